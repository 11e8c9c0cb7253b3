"""The port for what other nodes write: with it a node follows an exchange that it does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import attrs

from marketflow.app.ports.window import Field
from marketflow.domain.bars import Bar
from marketflow.domain.prices import Pair

CHANGES_AT_ONCE: Final = 200
"""How many changes are read at a time."""


class Place(NamedTuple):
    """The place of a change among those of its exchange. Places ascend."""

    epoch: int
    """Of the term that has written it."""
    number: int
    """It counts the changes of the term, from 1 on: a hole shows that one is missing."""

    @property
    def next(self) -> Place:
        """That of the term's next change."""
        return Place(self.epoch, self.number + 1)


BEGINNING: Final = Place(0, 0)
"""Before the first change."""


@attrs.frozen
class Change:
    """One write of the node that has the exchange."""

    place: Place
    bars: Sequence[tuple[Pair, Field, Bar]]
    """Absolute values."""


class Changes(Protocol):
    """The changes of exchanges, in a store that may be away.

    Every awaited method raises StoreAway when the store failed or did not answer in time; all are bounded.
    """

    async def end(self, exchange: str) -> Place:
        """The place of the exchange's last change."""
        ...

    async def after(self, exchange: str, place: Place) -> Sequence[Change] | None:
        """The first `CHANGES_AT_ONCE` changes behind a place, the oldest first. It waits for none.

        None: the store's last change is before that place, so it was emptied or has come back older. A change
        that cannot be read is left out.
        """
        ...
