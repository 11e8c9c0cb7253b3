"""How the service is: health, measurements, the state of its stores, and its clocks."""
