"""Several nodes in one simulated history: they share exchanges, and take them over from each other."""
