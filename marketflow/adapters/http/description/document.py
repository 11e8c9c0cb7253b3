"""The OpenAPI document, put together for the service that serves it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from marketflow import __version__
from marketflow.adapters.http.description.examples import examples
from marketflow.adapters.http.description.operations import TAGS, Operation, operations
from marketflow.adapters.http.description.responses import (
    HEADERS,
    problem_examples,
    problem_responses,
    responses,
)
from marketflow.adapters.http.description.schemas import answers
from marketflow.adapters.http.description.values import Json, parameters, ref, values

ABOUT: Final = """\
Prices from exchanges, now and back in time.

- **Times** are Unix ms, UTC, by the exchanges' own clocks. **Spans** are [start, end): the start is
  included, the end is not.
- **An answer** contains every update that the service accepted before the request. `source` says where it
  comes from; `start` and `end` give the span that was covered, and the numbers are exact for it.
- **The exchange** may be in the path or in the query. Without one, the answer covers those of the current
  mode.
- **Errors** are problems (RFC 9457, `application/problem+json`). Their `type` is a path that explains it. An
  unknown or repeated query parameter is an error too. A path answers other methods with 405, and `Allow`
  lists those it has.
- **Every answer** has an `X-Request-Id`, which is also in the log; you may send your own.
"""


def document(
    *,
    symbols: Sequence[str],
    exchanges: Sequence[str],
    assets: Sequence[str],
    guarded: bool,
    in_cluster: bool = False,
) -> Json:
    """The description of a service.

    Args:
        symbols: the configured symbols.
        exchanges: the exchanges of both modes.
        assets: the names of the dashboard's files.
        guarded: whether switching the mode needs a token.
        in_cluster: whether the service is a node of a cluster.
    """
    answered = examples(symbols[0], exchanges[0], in_cluster=in_cluster)
    paths: dict[str, Json] = {}
    for operation in operations():
        of_path = paths.setdefault(operation.path, {})
        of_path[operation.method] = _described(operation, answered, guarded=guarded)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "marketflow",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The service that serves this description."}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {**values(symbols, exchanges), **answers(in_cluster=in_cluster)},
            "parameters": parameters(symbols, exchanges, assets),
            "headers": HEADERS,
            "responses": problem_responses(operations()),
            "examples": problem_examples(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The configured `http.token`. Without one no token is needed.",
                }
            },
        },
    }


def _described(operation: Operation, answered: Mapping[str, object], *, guarded: bool) -> Json:
    in_path = re.findall(r"{(\w+)}", operation.path)
    described: Json = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": "_".join([operation.method, *re.findall(r"\w+", operation.path)]),
        "parameters": [
            *(ref(f"path-{name}", "parameters") for name in in_path),
            *(ref(name, "parameters") for name in operation.parameters),
        ],
        "responses": dict(responses(operation, answered)),
    }
    if operation.text:
        described["description"] = operation.text
    if operation.guarded and guarded:
        described["security"] = [{"bearer": []}]
    return described
