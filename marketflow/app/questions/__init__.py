"""Answers to questions about prices."""
