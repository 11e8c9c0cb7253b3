"""Faults of a fake venue that repeat by the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketflow.adapters.exchange.fake_venues.orders import Orders

NOTICE: Final = 5.0
"""Seconds from the announcement of a maintenance to the end of the connections."""


@attrs.frozen
class Plan:
    """Seconds; zero means that the venue does not have the fault."""

    silence: float = 0.0
    """So many seconds of traffic, then as many in which nothing but pongs is sent, in turn."""
    maintenance: float = 0.0
    """A maintenance is announced this often; `NOTICE` later all connections are cut."""
    reset: float = 0.0
    """All connections are reset this often."""


async def follow(plan: Plan, venue: Orders) -> None:
    """Order faults of the venue until cancelled."""
    async with trio.open_nursery() as nursery:
        if plan.silence:
            nursery.start_soon(_keep_silence, plan.silence, venue)
        if plan.maintenance:
            nursery.start_soon(_repeat, plan.maintenance, lambda: venue.maintain(NOTICE))
        if plan.reset:
            nursery.start_soon(_repeat, plan.reset, venue.reset)


async def _repeat(pause: float, order: Callable[[], None]) -> None:
    while True:
        await trio.sleep(pause)
        order()


async def _keep_silence(seconds: float, venue: Orders) -> None:
    while True:
        await trio.sleep(seconds)
        venue.mute()
        await trio.sleep(seconds)
        venue.unmute()
