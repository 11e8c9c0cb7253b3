"""Whether the window does all that is asked of it: that it answers is not enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum

from marketflow.app.ports import StoreAway
from marketflow.app.watch.stores import StoreState


class Task(Enum):
    """What is asked of the window."""

    MARK = "mark"
    """A write of nothing but the marker."""
    WRITE = "write"
    """Updates and bars."""
    READ = "read"
    """All bars."""
    REPLAY = "replay"
    """The updates of the last minute, once more."""
    TRIM = "trim"
    """What is too old is removed."""


class Trials:
    """Tells the window's state: it is up once each task that has failed has worked again.

    A Redis that is full, that has a key of another type in the way, or lets us do some things and not others,
    takes the marker and refuses the rest. Else it would be up and away again four times a second.
    """

    def __init__(self, state: StoreState, came_up: Callable[[], None]) -> None:
        """`came_up` is called when it is up again."""
        self._state = state
        self._came_up = came_up
        self.failed = {Task.MARK}
        """What has failed, or was not tried yet, and has not worked since."""

    @contextmanager
    def of(self, task: Task) -> Iterator[None]:
        """Note whether what is done inside works: all of it acknowledged, or StoreAway."""
        try:
            yield
        except StoreAway:
            self.failed |= {Task.MARK, task}
            raise
        self.failed.discard(task)
        if not self.failed and not self._state.up:
            self._state.answered()
            self._came_up()
