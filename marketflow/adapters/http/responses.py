"""Answers as JSON. Floats are written with the shortest text that gives the same float back."""

from __future__ import annotations

import msgspec
from quart.wrappers import Response
from quart_trio.wrappers import TrioResponse


def as_json(value: object, status: int = 200, *, content_type: str = "application/json") -> Response:
    """A response whose body is `value`: attrs objects, mappings, sequences and plain values."""
    return TrioResponse(msgspec.json.encode(value), status=status, content_type=content_type)
