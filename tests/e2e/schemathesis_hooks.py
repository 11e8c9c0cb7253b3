"""Hooks for Schemathesis, for what the API's description cannot express. It has no tests."""

from __future__ import annotations

import re

import schemathesis

from marketflow.adapters.http.parameters import BadParameter, timestamp


@schemathesis.hook
def before_call(context, case, kwargs):
    """Ask for symbols that there are, and make parameters consistent that would contradict each other.

    A schema cannot say that one parameter depends on another. test_http_problems tests the contradictions.
    """
    del kwargs
    schemas = context.operation.schema.raw_schema["components"]["schemas"]
    asked = (case.path_parameters or {}).get("symbol", "")
    if re.fullmatch(schemas["AskedSymbol"]["pattern"], asked):
        # Its schema cannot list the symbols, since their case does not matter.
        known = schemas["Symbol"]["enum"][len(asked) % len(schemas["Symbol"]["enum"])]
        case.path_parameters["symbol"] = known.lower() if asked[0].islower() else known
    in_query = case.query or {}
    if "period" in in_query and "start" in in_query:
        del in_query["period"]
    start, end = time_of(in_query.get("start")), time_of(in_query.get("end"))
    if start is not None and end is not None and start > end:
        in_query["start"], in_query["end"] = in_query["end"], in_query["start"]


def time_of(value):
    """A time in ms; None if it is none."""
    try:
        return timestamp("start", str(value))
    except BadParameter:
        return None


@schemathesis.deserializer("text/*", "image/svg+xml", "application/openmetrics-text")
def text(_, response):
    """Treat text as a string."""
    return response.content.decode()
