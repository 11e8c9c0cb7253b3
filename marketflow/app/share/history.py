"""The history of earlier boots: whether the bars that they have left in the last hour are known.

A pure state machine, as the link is (`marketflow.app.share.link`).

```
          was read, rows are to be compared        rows told, or database away
 unread ────────────────────────────────────> doubted ───────────────────────> known
  ^ │                                          │  ^                             │ │
  │ └── was read, rows told or database away ──┼──┼───────────────────────────> ┘ │
  │                                            │  └─ database ours, not told yet ─┤
  └────────────────── read again ──────────────┴──────────────────────────────────┘
```
Two stores tell it independently: the bars are read from Redis, and the rows of PostgreSQL tell whether Redis
has lost any of them. The rows may have told before the bars are read. While the database is away, or another
boot has it, nothing can be compared, and the bars are believed.
"""

from __future__ import annotations

from enum import Enum

import attrs


class HistoryState(Enum):
    """What is known of the bars of earlier boots."""

    UNREAD = "unread"
    """They are to be read, perhaps once more."""
    DOUBTED = "doubted"
    """They have been read. Rows have yet to tell whether these are all."""
    KNOWN = "known"
    """They have been read, and no row contradicts."""


@attrs.frozen
class History:
    """What is known of earlier boots. Each event returns the history after it."""

    wanted: int = 1
    """The number of the reading that is wanted. It grows each time another boot may have added to them."""
    done: int = 0
    """The number of the last reading that was done."""
    comparable: bool = False
    """Whether the database is ours, so that rows can be compared with the bars."""
    told: bool = False
    """Whether rows have told what Redis has lost."""

    @property
    def state(self) -> HistoryState:
        """What is known."""
        if not self.read:
            return HistoryState.UNREAD
        return HistoryState.DOUBTED if self.doubted else HistoryState.KNOWN

    @property
    def doubted(self) -> bool:
        """Whether rows have yet to tell if what was read, or will be, is all."""
        return self.comparable and not self.told

    @property
    def read(self) -> bool:
        """Whether the bars have been read."""
        return self.done == self.wanted

    @property
    def known(self) -> bool:
        """Whether the bars of earlier boots, of the last hour, are known."""
        return self.state is HistoryState.KNOWN

    # ---- events ----

    def read_again(self) -> History:
        """The lease was lost and taken again: another boot may have written meanwhile."""
        return attrs.evolve(self, wanted=self.wanted + 1)

    def was_read(self, number: int) -> History:
        """The reading of that number was done. One that is no longer wanted changes nothing."""
        return attrs.evolve(self, done=number) if number == self.wanted else self

    def database_ours(self) -> History:
        """The database answers, and no other boot has it."""
        return attrs.evolve(self, comparable=True)

    def database_away(self) -> History:
        """The database does not answer, or another boot has it."""
        return attrs.evolve(self, comparable=False)

    def rows_told(self) -> History:
        """All rows of the last hour were compared with the bars."""
        return attrs.evolve(self, told=True)
