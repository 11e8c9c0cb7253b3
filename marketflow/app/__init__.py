"""The use cases, on Trio. They use ports, which the adapters implement."""
