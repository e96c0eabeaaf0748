"""Run records as tables, verdicts and the ledger's effects, beside what the paper prints."""
