"""/mode, and the switch of the mode. The switch is guarded: it is the only route that changes anything."""

from __future__ import annotations

from typing import Final

from quart import Blueprint, request
from quart.wrappers import Response

from marketflow.adapters.http.guard import Guard
from marketflow.adapters.http.parameters import parameters
from marketflow.adapters.http.responses import as_json
from marketflow.app.interface import Mode, ModeQuestions

SWITCHES: Final[tuple[Mode, ...]] = ("test", "live")


def mode_routes(modes: ModeQuestions, guard: Guard) -> Blueprint:
    """The routes that report and switch the mode. The guard decides who may switch."""
    routes = Blueprint("mode", __name__)

    @routes.get("/mode")
    async def mode() -> Response:
        parameters(request.args.items(multi=True), ())
        return as_json({"mode": modes.mode, "changed": False})

    for target in SWITCHES:
        _switch_route(routes, modes, guard, target)
    return routes


def _switch_route(routes: Blueprint, modes: ModeQuestions, guard: Guard, target: Mode) -> None:
    async def switch() -> Response:
        # Half a POST switches nothing, so wait for the whole body. Its content is not used; the app limits
        # its size and the time that it may take.
        await request.get_data(cache=False)
        parameters(request.args.items(multi=True), ())
        refusal = guard.refusal(request)
        if refusal is not None:
            return refusal
        changed = await modes.switch(target)
        return as_json({"mode": target, "changed": changed})

    routes.add_url_rule(f"/mode/{target}", f"to_{target}", switch, methods=["POST"])
