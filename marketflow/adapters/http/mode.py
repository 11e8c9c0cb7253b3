"""/mode, and its switch: the only route that changes anything, and so the only one that is guarded."""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import urlsplit

from quart import Blueprint, request
from quart.wrappers import Response

from marketflow.adapters.http.parameters import parameters
from marketflow.adapters.http.problem import problem
from marketflow.adapters.http.responses import as_json
from marketflow.app.questions import Mode, ModeQuestions

SWITCHES: Final[tuple[Mode, ...]] = ("test", "live")


def mode_routes(modes: ModeQuestions, token: str | None) -> Blueprint:
    """The routes that tell and switch the mode; a switch wants `token` where there is one."""
    routes = Blueprint("mode", __name__)

    @routes.get("/mode")
    async def mode() -> Response:
        parameters(request.args.items(multi=True), ())
        return as_json({"mode": modes.mode, "changed": False})

    for target in SWITCHES:
        _switch_route(routes, modes, token, target)
    return routes


def _switch_route(routes: Blueprint, modes: ModeQuestions, token: str | None, target: Mode) -> None:
    async def switch() -> Response:
        # A request is complete with its body only: half a POST is none. What the body says is of no interest;
        # the app's limits bound its size and the time that it may take.
        await request.get_data(cache=False)
        parameters(request.args.items(multi=True), ())
        refusal = _refusal(token)
        if refusal is not None:
            return refusal
        changed = await modes.switch(target)
        return as_json({"mode": target, "changed": changed})

    routes.add_url_rule(f"/mode/{target}", f"to_{target}", switch, methods=["POST"])


def _refusal(token: str | None) -> Response | None:
    """The answer to a request that may not switch."""
    if not _from_our_own_page(request.headers.get("Origin"), request.headers.get("Host", "")):
        return problem("cross-site-request", "pages of another site may not switch the mode")
    if token is None or _is_bearer(request.headers.get("Authorization", ""), token):
        return None
    return problem(
        "unauthorized",
        "switching the mode wants the header Authorization: Bearer <http.token>",
        headers={"WWW-Authenticate": 'Bearer realm="marketflow"'},
    )


def _from_our_own_page(origin: str | None, host: str) -> bool:
    """Whether a browser did not send this for another site's page. Only browsers send an Origin."""
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower() != ""
    except ValueError:
        return False


def _is_bearer(authorization: str, token: str) -> bool:
    scheme, _, credentials = authorization.partition(" ")
    # Header text is the bytes that came, read as Latin-1.
    presented = credentials.strip().encode("latin-1")
    return scheme.lower() == "bearer" and hmac.compare_digest(presented, token.encode()) and presented != b""
