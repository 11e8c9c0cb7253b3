"""Data that is kept on disk between two runs."""
