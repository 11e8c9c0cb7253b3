"""Keeps mirrors up to date while nobody asks, and tells by them whether Redis answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import trio

from marketflow.app.cluster.mirror import Mirror
from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import StoreAway

WATCH_SECONDS: Final = 1.0
"""How often each mirror learns of changes. Changes are kept for far longer."""


class MirrorWatch:
    """Looks at all mirrors again and again."""

    def __init__(self, mirrors: Sequence[Mirror], redis: StoreState) -> None:
        self._mirrors = mirrors
        self._redis = redis
        self._read_at: dict[str, float] = dict.fromkeys(
            (each.exchange for each in mirrors), trio.current_time()
        )
        """When each mirror was up to date the last time (seconds of Trio's clock)."""

    def lags(self) -> Mapping[str, float]:
        """By exchange, the seconds since its mirror was up to date."""
        now = trio.current_time()
        return {exchange: now - read_at for exchange, read_at in self._read_at.items()}

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            asked_at = trio.current_time()
            async with trio.open_nursery() as nursery:
                for mirror in self._mirrors:
                    nursery.start_soon(mirror.catch_up, ())
            self._read_at |= {each.exchange: asked_at for each in self._mirrors if each.answers}
            errors = [mirror.error for mirror in self._mirrors if mirror.error is not None]
            if errors:
                self._redis.failed(StoreAway(errors[0]))
            else:
                self._redis.answered()
            await trio.sleep(WATCH_SECONDS)
