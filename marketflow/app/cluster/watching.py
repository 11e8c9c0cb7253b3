"""Keeps mirrors up to date while nobody asks, and tells by them whether Redis answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio

from marketflow.app.cluster.mirror import Mirror
from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import StoreAway

WATCH_SECONDS: Final = 1.0
"""How often each mirror learns of changes. Changes are kept for far longer."""


class MirrorWatch:
    """Looks at all mirrors again and again."""

    def __init__(self, mirrors: Callable[[], Sequence[Mirror]], redis: StoreState) -> None:
        """`mirrors`: those of the present mode's exchanges."""
        self._mirrors = mirrors
        self._redis = redis
        self._began_at = trio.current_time()
        self._read_at: dict[str, float] = {}
        """When each mirror was up to date the last time (seconds of Trio's clock)."""

    def lags(self) -> Mapping[str, float]:
        """By exchange of the mode, the seconds since its mirror was up to date."""
        now, names = trio.current_time(), [each.exchange for each in self._mirrors()]
        return {name: now - self._read_at.get(name, self._began_at) for name in names}

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            asked_at, mirrors = trio.current_time(), self._mirrors()
            async with trio.open_nursery() as nursery:
                for mirror in mirrors:
                    nursery.start_soon(mirror.catch_up, ())
            self._read_at |= {each.exchange: asked_at for each in mirrors if each.answers}
            errors = [mirror.error for mirror in mirrors if mirror.error is not None]
            if errors:
                self._redis.failed(StoreAway(errors[0]))
            else:
                self._redis.answered()
            await trio.sleep(WATCH_SECONDS)
