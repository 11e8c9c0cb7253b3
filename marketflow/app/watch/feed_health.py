"""The health of a feed: its exchange's status, and what else health reports."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from marketflow.app.ingest.feeds import Feed
from marketflow.app.interface import Counters, ExchangeHealth, ExchangeStatus
from marketflow.app.ports import VenueSource


def status_of(
    feed: Feed, venue: VenueSource[Any] | None, *, accepted: float | None, stale_after: float
) -> ExchangeStatus:
    """The status of a feed that runs.

    Args:
        feed: which one.
        venue: its source, if that is a venue.
        accepted: when its last update was accepted (seconds of Trio's clock); None before the first.
        stale_after: seconds.
    """
    if not feed.connected:
        return "reconnecting"
    if venue is not None:
        return "stale" if _is_mute(venue, stale_after) else "connected"
    # Not since the connection: an exchange that reconnects again and again without a good line is stale.
    heard = feed.running_since if accepted is None else max(feed.running_since, accepted)
    return "stale" if trio.current_time() - heard > stale_after else "connected"


def _is_mute(venue: VenueSource[Any], stale_after: float) -> bool:
    """Whether a venue gives nothing. A quiet market is none: trades need not come, but heartbeats do."""
    refused_all = len(venue.rejected_symbols) == len(venue.symbols)
    heard_at = venue.heard_at
    # Signs of life come more than twice within the silence after which a connection is dead.
    limit = min(venue.silence, venue.silence / 2 + stale_after)
    return refused_all or heard_at is None or trio.current_time() - heard_at > limit


def health_of(
    feed: Feed,
    venue: VenueSource[Any] | None,
    status: ExchangeStatus,
    *,
    accepted: float | None,
    counters: Counters,
    gaps: int,
) -> ExchangeHealth:
    """What health reports of a feed with that status. `accepted` as for `status_of`."""
    health = ExchangeHealth(
        status=status,
        last_update_age=None if accepted is None else round(trio.current_time() - accepted, 3),
        reconnects=feed.reconnects,
        updates=counters,
    )
    if venue is None:
        return health
    return attrs.evolve(
        health,
        kind=venue.kind,
        activity=venue.activity if status != "off" else None,
        rejected_symbols=sorted(venue.rejected_symbols),
        gaps=gaps,
        symbols=venue.symbols,
    )
