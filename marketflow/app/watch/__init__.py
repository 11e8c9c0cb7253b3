"""Health and measurements: what the service tells of itself."""
