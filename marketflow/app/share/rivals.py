"""Another boot on a store: how long we wait for it to end, and what we have seen of it."""

from __future__ import annotations

from typing import Final

from marketflow.app.ports import StoreAway, StoreTaken

LEASE_PATIENCE: Final = 10.0
"""How long (seconds) to wait for the lease of another boot."""
MOST_BETWEEN_LOOKS: Final = 0.5
"""Of the time between two looks no more counts as standing still. Redis or we may have hung meanwhile, and
nobody could have written."""


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
      ^                            │
      └── ours, or the store away ─┘
    ```
    While a store is away nobody uses it, so the wait begins again. Times are seconds of one clock.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether another boot had the store when we looked last."""
        return self._since is not None

    def another(self, now: float, patience: float = LEASE_PATIENCE) -> bool:
        """Another boot has the store; returns whether we have waited long enough."""
        if self._since is None:
            self._since = now
        return now - self._since >= patience

    def end(self) -> None:
        """No other boot has it, or the store is away."""
        self._since = None


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
        self.wait.end()
