"""marketflow: real-time market data on Trio, exchanges in, exact prices and aggregates out."""

from importlib.metadata import version

__version__ = version("marketflow")
