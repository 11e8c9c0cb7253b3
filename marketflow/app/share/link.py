"""The link to the window: whether it answers, and whether it holds all that it should.

A pure state machine: a `Link` is a value, each event returns the next one, and nothing here does I/O.

```
              failed                      failed
 starting ───────────────> away <──────────────────────────┐
   │  │                    │  ^                            │
   │  │       mark worked  v  │ failed                     │
   │  └── tried ──────> joining ────── restored ────────> whole
   │                       ^                             ^ │
   │                       └──── emptied, outdated ──────┼─┘
   └────────────────── restored ─────────────────────────┘
```
"""

from __future__ import annotations

from enum import Enum

import attrs


class Task(Enum):
    """What the window is asked to do."""

    MARK = "mark"
    """Take a write of nothing but the marker."""
    WRITE = "write"
    """Take updates and bars."""
    READ = "read"
    """Return all bars."""
    REPLAY = "replay"
    """Take the updates of the last minute once more."""
    TRIM = "trim"
    """Remove what is too old."""


class LinkState(Enum):
    """How far the window has come."""

    STARTING = "starting"
    """The first attempt has not ended. Questions wait for its result."""
    AWAY = "away"
    """It failed, and has not answered since."""
    JOINING = "joining"
    """It answers, and may lack something that it should hold."""
    WHOLE = "whole"
    """It holds all that it should."""


@attrs.frozen
class Link:
    """The state of the link. Each event returns the link after it: itself, where nothing changes."""

    state: LinkState = LinkState.STARTING
    failing: frozenset[Task] = frozenset({Task.MARK})
    """What has failed, or was not tried yet, and has not worked since.

    A Redis that is full, has a key of another type in the way, or allows us only some commands takes the
    marker and refuses the rest. It counts as away until all that failed has worked; otherwise it would be up
    and away again four times a second.
    """
    epoch: int = 0
    """The marker epoch. It changes each time the window may have lost what was written to it.

    By how much is of no meaning: the same loss may be noticed by a refused write and by the marker.
    """
    replayed: int = 0
    """The epoch for which the updates of the last minute were last written."""

    # ---- what follows from it ----

    @property
    def answers(self) -> bool:
        """Whether the window does all that it is asked to do."""
        return not self.failing

    @property
    def tried(self) -> bool:
        """Whether it is known if the window is there."""
        return self.state is not LinkState.STARTING

    @property
    def whole(self) -> bool:
        """Whether the window holds all that it should. Something that has failed may be left to be tried."""
        return self.state is LinkState.WHOLE

    @property
    def up(self) -> bool:
        """Whether questions can be answered from the window."""
        return self.whole and self.answers

    @property
    def dropping(self) -> bool:
        """Whether full buffers drop their oldest updates, instead of holding up the feeds."""
        return self.tried and not self.answers

    @property
    def replay_due(self) -> bool:
        """Whether the window was emptied, and the updates of the last minute were not written since."""
        return self.replayed != self.epoch

    # ---- events ----

    def worked(self, task: Task) -> Link:
        """The window did what it was asked."""
        if not self.failing or task not in self.failing:
            return self
        state = LinkState.JOINING if self.state is LinkState.AWAY and task is Task.MARK else self.state
        return attrs.evolve(self, state=state, failing=self.failing - {task})

    def failed(self, task: Task, *, refused: bool = False) -> Link:
        """It did not, or not in time. `refused`: it answered, and would not do it.

        If it refuses writes, a key of another type has taken the place of what we had written.
        """
        failing = self.failing | {Task.MARK, task}
        lost = refused and Task.WRITE in failing
        return Link(LinkState.AWAY, failing, self.epoch + lost, self.replayed)

    def tried_once(self) -> Link:
        """The first attempt has ended. Later ones change nothing."""
        return self if self.tried else attrs.evolve(self, state=LinkState.JOINING)

    def emptied(self) -> Link:
        """A write has not found the marker of the one before."""
        return attrs.evolve(self.outdated(), epoch=self.epoch + 1)

    def outdated(self) -> Link:
        """Another boot may have written: the bars have to be read again."""
        return attrs.evolve(self, state=LinkState.JOINING) if self.whole else self

    def replayed_all(self, epoch: int) -> Link:
        """All that a window emptied in that epoch lacks was written. It may have been emptied again since."""
        return self if epoch != self.epoch else attrs.evolve(self, replayed=epoch)

    def made_whole(self, epoch: int) -> Link:
        """All that the window lacked in that epoch was written."""
        if epoch != self.epoch or self.state is LinkState.AWAY:
            return self
        return attrs.evolve(self, state=LinkState.WHOLE)
