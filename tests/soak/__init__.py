"""The real program under faults for minutes, compared with what was sent: `python -m tests.soak`."""
