"""Answers as JSON. Floats are written with the shortest text that gives the same float back."""

from __future__ import annotations

from typing import Any, Final

import cattrs
import msgspec
from quart.wrappers import Response
from quart_trio.wrappers import TrioResponse

_CONVERTER: Final = cattrs.Converter()


def plain(value: object) -> Any:
    """The value with mappings in place of attrs objects, whose fields keep their order.

    msgspec alone would sort the fields of classes with slots.
    """
    return _CONVERTER.unstructure(value)


def encoded(value: object) -> bytes:
    """The value as JSON: attrs objects, mappings, sequences and plain values."""
    return msgspec.json.encode(plain(value))


def as_json(value: object, status: int = 200, *, content_type: str = "application/json") -> Response:
    """A response whose body is `value` as JSON."""
    return TrioResponse(encoded(value), status=status, content_type=content_type)
