"""Hooks for Schemathesis, for what the API's description cannot express. It has no tests."""

from __future__ import annotations

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    """Make parameters consistent that would contradict each other.

    A schema cannot say that one parameter depends on another. test_http_problems tests the contradictions.
    """
    in_path, in_query = case.path_parameters or {}, case.query or {}
    known = context.operation.schema.raw_schema["components"]["schemas"]["Exchange"]["enum"]
    if in_path.get("exchange") in known and in_query.get("exchange") in known:
        in_query["exchange"] = in_path["exchange"]
    start, end = in_query.get("start"), in_query.get("end")
    if is_number(start) and is_number(end) and int(start) > int(end):
        in_query["start"], in_query["end"] = end, start


def is_number(value):
    return isinstance(value, int) or (isinstance(value, str) and value.isdecimal())


@schemathesis.deserializer("text/*", "image/svg+xml", "application/openmetrics-text")
def text(_, response):
    """Treat text as a string."""
    return response.content.decode()
