"""A client of the HTTP API, for the terminal: questions, and the live table.

It knows the service by its answers alone: nothing of it is imported here.
"""
