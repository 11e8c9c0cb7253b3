"""The responses of an operation: its answer, and for each error status the possible problems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from marketflow.adapters.http.description.operations import Operation
from marketflow.adapters.http.description.values import Json, ref
from marketflow.adapters.http.kinds import KINDS, Kind
from marketflow.adapters.http.problem import PROBLEM_JSON
from marketflow.adapters.http.tables import CSV

STRICT: Final = ("unknown-parameter", "repeated-parameter")
"""The kinds of problems of every route that is strict about its parameters."""
ALWAYS: Final = ("internal-server-error",)
"""The kinds of problems that any route may have."""

HEADERS: Final[Mapping[str, Json]] = {
    "X-Request-Id": {
        "description": "The request's id, which is also in the log. If the request has one of this form, it "
        "is used.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "Retry-After": {
        "description": "Seconds after which to ask again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "The authentication scheme to use.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Upgrade": {
        "description": "The protocol to change to.",
        "required": True,
        "schema": {"const": "websocket"},
    },
    "Allow": {
        "description": "The methods that the path has.",
        "required": True,
        "schema": {"type": "string"},
    },
}
_OF_STATUS: Final = {401: ("WWW-Authenticate",), 405: ("Allow",), 426: ("Upgrade",), 503: ("Retry-After",)}


def responses(operation: Operation, examples: Mapping[str, object]) -> Iterator[tuple[str, Json]]:
    """All responses of an operation, by status; `examples` are answers by the name of their schema."""
    answer: Json = {"description": operation.summary}
    if operation.answer is None:
        yield "101", answer
    else:
        content: Json = {"schema": ref(operation.answer)}
        if operation.answer in examples:
            content["example"] = examples[operation.answer]
        answer["content"] = dict.fromkeys(operation.media, content)
        if operation.listed:
            answer["content"][CSV] = {"schema": ref("Text")}
        yield "200", answer | _headers(200)
    if operation.cached:
        yield (
            "304",
            {"description": "It has not changed since the version in `If-None-Match`."} | _headers(304),
        )
    if operation.unavailable:
        yield "503", answer | _headers(503) | {"description": "The same, while it is unavailable."}
    for status, kinds in _by_status(operation):
        yield str(status), ref(_name(status, kinds), "responses")


def problem_responses(operations: Iterable[Operation]) -> dict[str, Json]:
    """The responses that `responses` refers to: those of several operations are the same."""
    shared = {
        _name(status, kinds): _problems(status, kinds)
        for operation in operations
        for status, kinds in _by_status(operation)
    }
    # 405 belongs to no operation: it is the answer to all methods that a path does not have.
    return {**shared, "405": _problems(405, [KINDS["method-not-allowed"]])}


def problem_examples() -> dict[str, Json]:
    """A problem of each kind, by the kind's name."""
    return {
        name: {
            "summary": kind.title,
            "value": {
                "type": kind.type,
                "title": kind.title,
                "status": kind.status.value,
                "detail": kind.meaning,
            },
        }
        for name, kind in KINDS.items()
    }


def _by_status(operation: Operation) -> Iterator[tuple[int, Sequence[Kind]]]:
    names = (*(STRICT if operation.strict else ()), *ALWAYS, *operation.kinds)
    kinds = sorted((KINDS[name] for name in names), key=lambda kind: kind.status)
    for status, of_status in groupby(kinds, key=lambda kind: kind.status.value):
        yield status, list(of_status)


def _name(status: int, kinds: Iterable[Kind]) -> str:
    return ".".join([str(status), *(kind.name for kind in kinds if kind.name not in {*STRICT, *ALWAYS})])


def _problems(status: int, kinds: Sequence[Kind]) -> Json:
    """A response that is a problem of one of these kinds, which all have this status."""
    narrowed = {"type": {"enum": [kind.type for kind in kinds]}, "status": {"const": status}}
    return {
        "description": "\n".join(f"- **{kind.title}**: {kind.meaning}" for kind in kinds),
        **_headers(status),
        "content": {
            PROBLEM_JSON: {
                "schema": {"allOf": [ref("Problem"), {"properties": narrowed}]},
                "examples": {kind.name: ref(kind.name, "examples") for kind in kinds},
            }
        },
    }


def _headers(status: int) -> Json:
    names = ("X-Request-Id", *_OF_STATUS.get(status, ()))
    return {"headers": {name: ref(name, "headers") for name in names}}
