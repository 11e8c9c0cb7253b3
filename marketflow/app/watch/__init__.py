"""Health, measurements, the state of the stores, and clocks."""
