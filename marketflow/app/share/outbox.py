"""What a store does not have yet as it is now: taken to be written, acknowledged, or put back.

```
            add                   take                    add
 absent ──────────> waiting ──────────────> taken ──────────────> changed (taken, and waits again)
   ^                   ^                    │  │                     │  │
   │                   └───── put back ─────┘  │                     │  │ take: taken, of a new version
   ├───────────────── acknowledge ─────────────┘                     │  └──────────────────────────────
   │                               waiting <── acknowledge, put back ┘
   └── forget, from every state
```
A key is a bar for Redis, and an interval for PostgreSQL. The outbox does not hold what is written: that is
read when it is taken. It is therefore always the newest state that is written.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Iterator, KeysView
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Outbox(Generic[K]):
    """Keys of what has to be written to one store.

    The caller chooses which keys to take: the first ones (`waiting` is in the order of arrival), or those of
    the oldest intervals.
    """

    def __init__(self) -> None:
        self._waiting: dict[K, int] = {}
        """By key its place: the number of changes when it began to wait. Ascending."""
        self._taken: dict[K, int] = {}
        """By key the version that was taken last."""
        self.changes = 0
        """How many changes there have been. All changes up to now are before this place."""
        self._version = 0

    # ---- in ----

    def add(self, key: K) -> None:
        """It has changed. If it waits already, it keeps its place."""
        self.changes += 1
        if key not in self._waiting:
            self._waiting[key] = self.changes

    def forget(self, keys: Collection[K]) -> None:
        """These need not be written any more."""
        for key in keys:
            self._waiting.pop(key, None)
            self._taken.pop(key, None)

    # ---- out ----

    def take(self, keys: Iterable[K]) -> int:
        """Take some of `waiting`, each once, to be written as they are now; returns the version of them all.

        A key may be taken again when it has changed, before the first version is acknowledged. Only the
        acknowledgement of the newest version counts then.
        """
        self._version += 1
        keys = list(keys)
        self._taken.update(dict.fromkeys(keys, self._version))
        if len(keys) == len(self._waiting):
            self._waiting = {}
        else:
            for key in keys:
                del self._waiting[key]
        return self._version

    def acknowledge(self, keys: Collection[K], version: int) -> None:
        """The store has that version of them. Where it is not the newest taken, this changes nothing."""
        taken = self._taken
        for key in keys:
            if taken.get(key) == version:
                del taken[key]

    def put_back(self) -> None:
        """What was taken and not acknowledged waits again, before all others.

        Acknowledgements of these versions change nothing any more.
        """
        if self._taken:
            self._waiting = dict.fromkeys(self._taken, 0) | {
                key: place for key, place in self._waiting.items() if key not in self._taken
            }
            self._taken = {}

    # ---- what is known of it ----

    @property
    def waiting(self) -> KeysView[K]:
        """Keys that can be taken, in the order of arrival."""
        return self._waiting.keys()

    def __iter__(self) -> Iterator[K]:
        """Keys that are not acknowledged: they wait, or were taken. Each once."""
        yield from self._waiting
        yield from (key for key in self._taken if key not in self._waiting)

    def __contains__(self, key: object) -> bool:
        return key in self._waiting or key in self._taken

    def is_current(self, key: K, version: int) -> bool:
        """Whether it has not changed since that version was taken."""
        return self._taken.get(key) == version and key not in self._waiting

    @property
    def taken_to(self) -> int:
        """No key that waits has a place up to this one: all changes before it were taken or forgotten.

        It is less again when keys are put back, since these wait before all others.
        """
        return next(iter(self._waiting.values()), self.changes + 1) - 1


class ReceivedOutbox(Outbox[K]):
    """An outbox that knows when the newest part of what it has was received. Times are on Trio's clock."""

    def __init__(self) -> None:
        super().__init__()
        self._received: dict[K, float] = {}

    def add_received(self, key: K, at: float) -> None:
        """It has changed by what was received then (seconds)."""
        # The same as `add`, written out for speed: it is called for each symbol of each chunk.
        self.changes += 1
        if key not in self._waiting:
            self._waiting[key] = self.changes
        self._received[key] = at

    def received_at(self, key: K) -> float:
        """When a part of it was last received that the store may lack (seconds); -inf if it lacks none."""
        return self._received.get(key, -math.inf)

    def forget(self, keys: Collection[K]) -> None:
        """These need not be written any more."""
        super().forget(keys)
        self._drop_received(keys)

    def acknowledge(self, keys: Collection[K], version: int) -> None:
        """The store has that version of them. Where it is not the newest taken, this changes nothing."""
        super().acknowledge(keys, version)
        self._drop_received(keys)

    def _drop_received(self, keys: Collection[K]) -> None:
        waiting, taken = self._waiting, self._taken
        for key in keys:
            if key not in waiting and key not in taken:
                self._received.pop(key, None)
