"""What the data path does at its limit, each row beside the limit itself: `python -m tests.bench`."""
