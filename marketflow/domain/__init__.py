"""Pure Python: what updates, bars and periods are. No I/O, no Trio."""
