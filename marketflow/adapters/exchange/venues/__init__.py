"""Real exchanges: a module for each kind of venue, without I/O."""
