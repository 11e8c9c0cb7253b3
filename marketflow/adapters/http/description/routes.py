"""/openapi.json, /docs and /problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import trio
from quart import Blueprint, request
from quart.wrappers import Response
from quart_trio.wrappers import TrioResponse

from marketflow.adapters.http.description.page import FILES, INDEX, POLICY, PageFile
from marketflow.adapters.http.kinds import KINDS
from marketflow.adapters.http.pages import SECURITY
from marketflow.adapters.http.parameters import parameters
from marketflow.adapters.http.problem import problem
from marketflow.adapters.http.responses import as_json


def description_routes(describe: Callable[[], Mapping[str, Any]]) -> Blueprint:
    """The routes that serve the description, show it, and explain the problems in it.

    `describe` is slow. It is called once, in a thread, at the first request for the description.
    """
    routes = Blueprint("description", __name__)
    described = cache(describe)
    one_at_a_time = trio.CapacityLimiter(1)

    @routes.get("/openapi.json")
    async def description() -> Response:
        parameters(request.args.items(multi=True), ())
        return as_json(await trio.to_thread.run_sync(described, limiter=one_at_a_time))

    @routes.get("/docs")
    async def page() -> Response:
        parameters(request.args.items(multi=True), ())
        return await _served(INDEX, {"Content-Security-Policy": POLICY})

    @routes.get("/docs/<file>")
    async def page_file(file: str) -> Response:
        parameters(request.args.items(multi=True), ())
        if file not in FILES:
            return problem("not-found", "the page has no such file", allowed=tuple(FILES))
        return await _served(FILES[file], {"Cache-Control": "public, max-age=3600"})

    @routes.get("/problems")
    async def problems() -> Response:
        parameters(request.args.items(multi=True), ())
        return as_json({"problems": [kind.explanation for kind in KINDS.values()]})

    @routes.get("/problems/<kind>")
    async def problem_kind(kind: str) -> Response:
        parameters(request.args.items(multi=True), ())
        if kind not in KINDS:
            return problem("not-found", "there is no such kind of problem", allowed=tuple(KINDS))
        return as_json(KINDS[kind].explanation)

    return routes


async def _served(file: PageFile, headers: dict[str, str]) -> Response:
    return TrioResponse(
        await file.read(),
        content_type=file.media,
        headers={**SECURITY, **headers},
    )
