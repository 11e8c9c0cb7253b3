"""The schemas of values in requests and answers, and the parameters that take such values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, get_args

from marketflow.adapters.http.candles import DEFAULT_INTERVAL, DEFAULT_LIMIT, LARGEST_LIMIT
from marketflow.adapters.http.description.page import FILES
from marketflow.adapters.http.kinds import KINDS
from marketflow.adapters.http.metrics import NAME
from marketflow.adapters.http.parameters import LARGEST_INTEGER, SECONDS
from marketflow.adapters.http.tables import FORMAT, FORMATS
from marketflow.app.answers import AnswerSource
from marketflow.app.interface import Mode
from marketflow.domain.periods import (
    CANDLE_INTERVALS,
    DEFAULT_PERIOD,
    LONGEST_PERIOD,
    PERIOD_DIGITS,
    PERIOD_UNITS,
)

Json = dict[str, Any]

JSON: Final = "application/json"


def ref(name: str, kind: str = "schemas") -> Json:
    """A reference to one of the components."""
    return {"$ref": f"#/components/{kind}/{name}"}


def values(symbols: Sequence[str], exchanges: Sequence[str]) -> dict[str, Json]:
    """The schemas of values, by name, with the configured symbols and exchanges."""
    return {
        "Symbol": {"description": "A configured trading pair.", "type": "string", "enum": list(symbols)},
        "AskedSymbol": {
            "description": "A configured trading pair. Upper and lower case are the same.",
            "type": "string",
            "pattern": "^[A-Za-z0-9]{2,20}$",
            "examples": [symbols[0], symbols[0].lower()],
        },
        "Exchange": {
            "description": "The configured name of an exchange, of either mode.",
            "type": "string",
            "enum": list(exchanges),
        },
        "Mode": {
            "description": "`live`: prices of the exchanges. `test`: prices of a generator.",
            "type": "string",
            "enum": list(get_args(Mode)),
        },
        "Source": {
            "description": "The source: a store, or the service's memory while the store is away.",
            "type": "string",
            "enum": list(get_args(AnswerSource)),
        },
        "Period": {
            "description": "A whole number and s, m, h or d, from 1s to 30d.",
            "type": "string",
            "pattern": _period_pattern(),
            "maxLength": PERIOD_DIGITS + 1,
            "examples": ["30s", "5m", "24h"],
        },
        "Interval": {
            "description": "The width of a candle.",
            "type": "string",
            "enum": list(CANDLE_INTERVALS),
        },
        "ProblemName": {
            "description": "The name of a kind of problem.",
            "type": "string",
            "enum": list(KINDS),
        },
        "PageFile": {"description": "A file of the page.", "type": "string", "enum": list(FILES)},
        "Timestamp": {
            "description": "Unix time in ms, UTC.",
            "type": "integer",
            "format": "int64",
            "minimum": 0,
            "maximum": LARGEST_INTEGER,
            "examples": [1_795_343_351_549],
        },
        "AskedTime": {
            "description": "Unix time in ms, or a time as ISO 8601 has it, in UTC unless it says otherwise. "
            "A number that can only be seconds is refused.",
            "anyOf": [
                {"type": "integer", "minimum": SECONDS.stop, "maximum": LARGEST_INTEGER},
                {"type": "integer", "minimum": 0, "maximum": SECONDS.start - 1},
                {"type": "string", "format": "date-time"},
            ],
            "examples": [1_795_343_351_549, "2026-11-26T10:00:00Z"],
        },
    }


def parameters(symbols: Sequence[str], exchanges: Sequence[str], assets: Sequence[str]) -> dict[str, Json]:
    """The parameters, by name; those in a path have a name that begins with `path-`."""
    return {
        "path-symbol": _in_path("symbol", "The requested symbol.", "AskedSymbol", symbols[0]),
        "path-exchange": _in_path("exchange", "The requested exchange.", "Exchange", exchanges[0]),
        "path-kind": _in_path("kind", "The last part of a problem's type.", "ProblemName", "unknown-symbol"),
        "path-name": {
            **_in_path("name", "The name of the file.", "Text", next(iter(assets), "index.js")),
            "schema": {"type": "string", "enum": list(assets)} if assets else ref("Text"),
        },
        "path-file": _in_path("file", "The name of the file.", "PageFile", "page.js"),
        # No example: Swagger UI would fill it in when it tries out a route, and so narrow the request.
        "symbol": _in_query(
            "symbol", "Only these symbols, with commas between them. All by default.", _list("AskedSymbol")
        )
        | _WITH_COMMAS,
        "exchange": _in_query(
            "exchange",
            "Only these exchanges, of either mode, with commas between them. By default all exchanges of the "
            "current mode.",
            _list("Exchange"),
        )
        | _WITH_COMMAS,
        "last-event-id": {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The id of the last event that the client got before it lost its connection. The "
            "stream then continues with the changes since that event. Browsers send it by themselves. An "
            "invalid id is ignored.",
            "schema": {"type": "string"},
        },
        "name": _in_query(
            NAME,
            "Only the series with this name. It may be given any number of times; unknown names are ignored.",
            {"type": "array", "items": {"type": "string"}},
            ["marketflow_up"],
        ),
        "period": _in_query(
            "period",
            "The span [now - period, now), or [`end` - period, `end`), by the exchanges' own time. Spans "
            "within the last minute are exact to the millisecond. Others, and answers from memory, are in "
            "whole seconds; before the last hour they are in whole minutes. `start` and `end` of the answer "
            "give the span that was covered.",
            ref("Period") | {"default": DEFAULT_PERIOD},
            "5m",
        ),
        "interval": _in_query(
            "interval", "The width of a candle.", ref("Interval") | {"default": DEFAULT_INTERVAL}, "5s"
        ),
        "from": _in_query(
            "start",
            "The beginning of the span (inclusive), instead of a period.",
            ref("AskedTime"),
        ),
        "to": _in_query(
            "end",
            "The end of the span (exclusive); now by default, and at the latest.",
            ref("AskedTime"),
        ),
        "time": _in_query("time", "A time. One that is yet to come stands for now.", ref("AskedTime"))
        | {"required": True},
        "start": _in_query(
            "start",
            "Only candles that begin at this time or later. Without it the newest candles are returned.",
            ref("AskedTime"),
        ),
        "end": _in_query(
            "end", "Only candles that begin before this time. Not before `start`.", ref("AskedTime")
        ),
        "format": _in_query(
            FORMAT,
            "The format of the answer. By default the `Accept` header decides.",
            {"type": "string", "enum": list(FORMATS)},
        ),
        "limit": _in_query(
            "limit",
            "The largest number of candles to return.",
            {"type": "integer", "minimum": 1, "maximum": LARGEST_LIMIT, "default": DEFAULT_LIMIT},
            10,
        ),
    }


_WITH_COMMAS: Final[Json] = {"style": "form", "explode": False}


def _list(name: str) -> Json:
    return {"type": "array", "items": ref(name), "minItems": 1}


def _in_path(name: str, text: str, schema: str, example: object) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": text,
        "schema": ref(schema),
        "example": example,
    }


def _in_query(name: str, text: str, schema: Json, example: object = None) -> Json:
    described = {"name": name, "in": "query", "description": text, "schema": schema}
    return described if example is None else {**described, "example": example}


def _period_pattern() -> str:
    units = "|".join(f"({_up_to(LONGEST_PERIOD // width)}){unit}" for unit, width in PERIOD_UNITS.items())
    return f"^0*({units})$"


def _up_to(most: int) -> str:
    """A pattern of the whole numbers from 1 to `most`, without leading zeros."""
    digits = str(most)
    shorter = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"] if len(digits) > 1 else []
    # Numbers of the same length that are less: equal up to `place`, with a smaller digit there.
    less = [
        f"{digits[:place]}[{0 if place else 1}-{int(digit) - 1}][0-9]{{{len(digits) - place - 1}}}"
        for place, digit in enumerate(digits)
        if int(digit) > (0 if place else 1)
    ]
    return "|".join([*shorter, *less, digits])
