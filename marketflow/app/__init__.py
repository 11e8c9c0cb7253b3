"""The use cases, on Trio, over the ports that the adapters fill."""
