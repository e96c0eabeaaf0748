"""The book: its chapters, the driver that runs them, and the builder of its pages.

`python -m book run` executes chapters, `python -m book build` makes the site, `python -m book pair` writes the
notebooks that belong to the chapters, `python -m book costs` writes measured times into book.toml.
"""
