"""Another boot on a store: how long we wait for it to end, and what we have seen of it."""

from __future__ import annotations

from typing import Final

from marketflow.app.ports import StoreAway, StoreTaken

LEASE_PATIENCE: Final = 10.0
"""How long (seconds) to wait for the lease of another boot."""
MOST_BETWEEN_LOOKS: Final = 0.5
"""Of the time between two looks no more counts as standing still. Redis or we may have hung meanwhile, and
nobody could have written."""
MOST_BETWEEN_ANSWERS: Final = 2.0
"""Of the time between two answers of a store no more counts as waiting, nor more than half of the patience.
A store is asked at least each second, so a longer time is one in which we stood still."""
_ROUNDING: Final = 1e-6
"""Many short times are added up."""


class HeldByAnother(StoreAway):
    """The store answers, and another boot has its lease, or may have it. Ask again."""

    def __init__(self, reason: str, taken: StoreTaken) -> None:
        """`taken` is the error to raise once we have waited long enough."""
        super().__init__(reason)
        self.taken = taken


class Wait:
    """The wait for another boot to end, on one store.

    ```
             another was seen             it was seen again, after the patience
     none ─────────────────────> waiting ──────────────────────────────────────> over
      ^  ^                        │   ^
      │  └───────── ours ─────────┤   │ it was seen again: the patience begins again
      │                store away v   │
      └───────── ours ────────── interrupted
    ```
    While a store is away nobody uses it, so that time does not count. But the other boot may have used it
    before, and may again: it is forgotten only once the store is ours. Nor does the time count in which we
    stood still, since the other may have ended meanwhile. Times are seconds of one clock.
    """

    def __init__(self) -> None:
        self.waiting = False
        """Whether another boot was seen since the store was ours."""
        self.waited = 0.0
        """For how long (seconds), since the store answers."""
        self._seen_at: float | None = None
        """When it was seen last; None: not since the store answers."""

    @property
    def counting(self) -> bool:
        """Whether the patience runs: not in an outage."""
        return self._seen_at is not None

    def another(
        self, now: float, patience: float = LEASE_PATIENCE, *, most: float = MOST_BETWEEN_ANSWERS
    ) -> bool:
        """Another boot has the store; returns whether we have waited long enough.

        Of the time since the last call at most `most` (seconds) counts.
        """
        self.waiting = True
        if self._seen_at is None:
            self.waited = 0.0
        else:
            self.waited += min(now - self._seen_at, most, patience / 2)
        self._seen_at = now
        return self.waited >= patience - _ROUNDING

    def interrupt(self) -> None:
        """The store is away."""
        self._seen_at = None

    def end(self) -> None:
        """The store is ours."""
        self.waiting, self._seen_at = False, None


class Stillness:
    """For how long the marker has stood still, by the looks at it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._marker: str | None = None
        self._looked_at: float | None = None

    def look(self, marker: str | None, now: float) -> bool:
        """Note the marker; returns whether it has moved since the last look."""
        first, moved = self._looked_at is None, marker != self._marker
        if first or moved:
            self.seconds = 0.0
        else:
            self.seconds += min(now - (self._looked_at or now), MOST_BETWEEN_LOOKS)
        self._marker, self._looked_at = marker, now
        return moved and not first

    def forget(self) -> None:
        """Begin again with the next look."""
        self.seconds, self._looked_at = 0.0, None


class Rival:
    """What we have seen of other boots on the window."""

    def __init__(self) -> None:
        self.marker = Stillness()
        self.wait = Wait()
        self.writes = False
        """Whether another boot has written while we waited for it: it is alive."""
        self.holders: set[str] = set()
        """Boots that were seen to hold the lease. Older versions do not know of it."""
        self.outlived: set[str] = set()
        """Boots that were dead when we took the lease, or must be, since the database has given us its lock.

        A Redis that comes back older may show their lease.
        """

    def gone(self) -> None:
        """The window is ours."""
        self.writes = False
        self.wait.end()

    def lost_sight(self) -> None:
        """The window is away."""
        self.marker.forget()
        self.wait.interrupt()
