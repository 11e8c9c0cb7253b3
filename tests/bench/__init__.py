"""Measures the data path at its limit, with the limit itself beside each row: `python -m tests.bench`."""
