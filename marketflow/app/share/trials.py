"""What is asked of the window and how it turned out: keeps the link, and all that follows from it."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from trio_util import AsyncValue

from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import StoreAway, StoreRefuses
from marketflow.app.share.link import Link, Task


class Trials:
    """Keeps the link to the window. Others read it, and wait for its changes."""

    def __init__(self, state: StoreState, set_dropping: Callable[[bool], None]) -> None:
        """`state` and the policy for full buffers follow the link."""
        self.state = state
        self._set_dropping = set_dropping
        self.link = Link()
        """As it is now."""
        self._links = AsyncValue(self.link)
        """The same, to wait for changes. It is dearer to read, and the flusher reads it all the time."""

    async def first(self) -> None:
        """Wait until it is known whether the window is there."""
        await self._links.wait_value(lambda link: link.tried)

    def become(self, link: Link) -> None:
        """The link after an event."""
        if link is self.link:
            return
        self.link = self._links.value = link
        if link.answers and not self.state.up:
            self.state.answered()
        self._set_dropping(link.dropping)

    def of(self, task: Task) -> Trial:
        """Note whether what is done in a `with` block works: all of it acknowledged, or StoreAway."""
        return Trial(self, task)

    def note(self, task: Task, error: BaseException | None) -> None:
        """It worked, or it ended with an error. Only StoreAway tells something of the window."""
        if error is None:
            self.become(self.link.worked(task))
        elif isinstance(error, StoreAway):
            self.state.failed(error)
            self.become(self.link.failed(task, refused=isinstance(error, StoreRefuses)))


@attrs.define
class Trial:
    """One attempt. It is a class, because a context manager made of a generator takes three times as long."""

    _trials: Trials
    _task: Task

    def __enter__(self) -> None:
        """It begins."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """It ends."""
        self._trials.note(self._task, error)
