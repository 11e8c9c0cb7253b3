"""A client of the HTTP API, for the terminal: questions, and the live table.

It depends only on the API: it imports nothing of the service.
"""
