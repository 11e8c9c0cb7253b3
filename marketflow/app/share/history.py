"""The history of earlier boots: whether the bars that they have left in the last hour are known.

A pure state machine, as the link is (`marketflow.app.share.link`).

```
          was read, rows are to be compared        rows told, or database away
 unread ────────────────────────────────────> doubted ───────────────────────> known
    │                                          ^                                │ ^
    │                                          └─ database ours, not told yet ──┘ │
    └── was read, rows told or database away ─────────────────────────────────────┘
```
Two stores tell it independently: the bars are read from Redis, and the rows of PostgreSQL tell whether Redis
has lost any of them, by the counts of both. The rows may have told before the bars are read. While the
database is away, or another boot has it, nothing can be compared, and the bars are believed.

If the database was lost and is ours again, another boot may have written meanwhile, and the bars are read
once more. That does not make the history unread: the boots before this one have ended, so what was read of
them stays true. Until the new reading is done the history is only not up to date. With Redis away that may
take long, and questions and rows go on with what this boot knows, as they do while both stores are away.

The bars of the open minutes are read before all others, so that questions about these need not wait for an
hour of bars. That changes no state: `reach` tells of which time bars have been read, and
`marketflow.app.share.history_reach` what follows from it.

But if another boot had the database before rows were compared for the first time, the history stays doubted
until then: the other may have written rows with our bars in them, and rows of the time before this boot wait.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs

from marketflow.domain.periods import Span

NOTHING: Final = Span(0, 0)
ALL_TIME: Final = Span(0, 2**62)


class HistoryState(Enum):
    """What is known of the bars of earlier boots."""

    UNREAD = "unread"
    """They have not been read since this boot began."""
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
    """The number of the last reading that was done; 0: none."""
    comparable: bool = False
    """Whether the database is ours, so that rows can be compared with the bars."""
    told: bool = False
    """Whether rows have told what Redis has lost."""
    another: bool = False
    """Whether another boot had the database, and its bars have not been read since."""
    newest: Span = NOTHING
    """Of which time (ms) the reading that is wanted has read the bars, before all others."""

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
        """Whether the bars have been read, once at least."""
        return self.done > 0

    @property
    def reach(self) -> Span:
        """Of which time (ms) the bars have been read."""
        return ALL_TIME if self.read else self.newest

    @property
    def up_to_date(self) -> bool:
        """Whether no other boot can have added to the bars since they were read."""
        return self.done == self.wanted

    @property
    def unsure(self) -> bool:
        """Whether rows cannot tell anything yet: another boot may have written some with bars of ours.

        It had the stores before rows were compared for the first time. Its own bars will show it, once they
        can be read.
        """
        return self.another and self.read and not self.told and not self.up_to_date

    @property
    def known(self) -> bool:
        """Whether the bars of earlier boots, of the last hour, are known."""
        return self.state is HistoryState.KNOWN

    # ---- events ----

    def read_again(self) -> History:
        """The lease was lost and taken again: another boot may have written meanwhile."""
        return attrs.evolve(self, wanted=self.wanted + 1, newest=NOTHING)

    def newest_read(self, number: int, span: Span) -> History:
        """The reading of that number has read the bars of this time (ms). All others are yet to be read."""
        return attrs.evolve(self, newest=span) if number == self.wanted else self

    def was_read(self, number: int) -> History:
        """The reading of that number was done. If another one is wanted by now, it is not up to date."""
        another = self.another and not (self.comparable and number == self.wanted)
        return attrs.evolve(self, done=max(self.done, number), another=another)

    def database_ours(self) -> History:
        """The database answers, and no other boot has it."""
        return attrs.evolve(self, comparable=True)

    def database_away(self) -> History:
        """The database does not answer, or another boot has it."""
        return attrs.evolve(self, comparable=False)

    def another_has_database(self) -> History:
        """Another boot has the database."""
        return attrs.evolve(self.database_away(), another=True)

    def rows_told(self) -> History:
        """All rows of the last hour were compared with the bars."""
        return attrs.evolve(self, told=True)
