"""Exchanges: the wire, the TCP source, the generator and the simulated exchange."""
