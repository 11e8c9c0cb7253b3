"""Several nodes: which exchanges this one has, and for how long it may be sure of them."""
