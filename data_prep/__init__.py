"""Prepares datasets for the book: everything here ends as a folder in Market-1501's layout with an index and a card.

`python -m data_prep synthetic` renders people who do not exist; `market1501`, `dukemtmc`, `msmt17`, `cuhk03` and
`folder` read sets that you hold, and `verify` checks any of them.  Nothing in `paul` imports this package.
"""
