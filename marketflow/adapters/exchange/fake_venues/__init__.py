"""Fake venues: servers that play trades as real exchanges do, for tests and for trying marketflow.

They are written from the venues' descriptions, and share nothing with the modules that read real venues: an
error there must not be repeated here.
"""
