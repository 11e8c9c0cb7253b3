"""Answers as JSON. Floats are written with the shortest text that gives the same float back."""

from __future__ import annotations

from typing import Any, Final

import cattrs
import msgspec
from cattrs.gen import make_dict_unstructure_fn, override
from quart.wrappers import Response
from quart_trio.wrappers import TrioResponse

from marketflow.app.answers import Candles

_CONVERTER: Final = cattrs.Converter()
_CONVERTER.register_unstructure_hook(
    Candles,
    # The field is in an answer only if it has a value.
    make_dict_unstructure_fn(Candles, _CONVERTER, known_from=override(omit_if_default=True)),
)


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
