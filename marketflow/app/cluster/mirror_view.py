"""Fills the ports of questions and the live stream from a mirror."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from marketflow.app.cluster.mirror import Mirror
from marketflow.app.cluster.mirrored_bars import MirroredBars
from marketflow.app.knowledge import View
from marketflow.domain.bars import Bar
from marketflow.domain.periods import Span
from marketflow.domain.prices import Pair

UNREADABLE: Final = 2**62
"""From when on (ms) bars are known as long as the window does not answer: never."""


def view_of(mirror: Mirror) -> View:
    """What one question knows by a mirror: nothing before it has caught up."""
    learnt = Learnt(mirror)
    return View(MirrorBars(learnt), MirrorStanding(learnt))


class Learnt:
    """What one question has learnt of a mirror.

    Others may read other pairs meanwhile, and their reads may fail. That changes nothing for this question.
    """

    def __init__(self, mirror: Mirror) -> None:
        self.began_at: Final = mirror.began_at
        """When the mirror was made (Unix ms)."""
        self._mirror = mirror
        self._found: MirroredBars | None = None

    async def catch_up(self, pairs: Sequence[Pair]) -> None:
        """Learn of all that the window has of these pairs. If that fails nothing is known any more."""
        self._found = await self._mirror.catch_up(pairs)

    @property
    def answered(self) -> bool:
        """Whether the window answered this question the last time."""
        return self._found is not None

    @property
    def bars(self) -> MirroredBars:
        """Those that are known; none if the window did not answer."""
        return self._mirror.nothing if self._found is None else self._found


class MirrorBars:
    """Fills the port KnownBars. Bars are read from the window when somebody asks."""

    def __init__(self, learnt: Learnt) -> None:
        self._learnt = learnt

    @property
    def forgotten_to(self) -> int:
        """Bars before this time (ms) have been forgotten, or removed from the window."""
        return self._learnt.bars.forgotten_to

    async def catch_up(self, pairs: Sequence[Pair]) -> None:
        """Learn of all that the window has of these pairs."""
        await self._learnt.catch_up(pairs)

    def newest(self, pair: Pair) -> Bar | None:
        """The bar with the newest update."""
        return self._learnt.bars.newest_bars.of(pair)

    def bar(self, pair: Pair, span: Span) -> Bar | None:
        """The updates of the seconds that start within the span."""
        return self._learnt.bars.bar(pair, span)

    def seconds(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The bars of the seconds that start within the span, one for each term."""
        return [(second, bar) for (second, _), bar in self._learnt.bars.fields(pair, span).items()]

    def minutes(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The same updates, with whole minutes merged."""
        return self._learnt.bars.parts(pair, span)

    def unwritten(self, pair: Pair, span: Span) -> dict[int, Bar]:  # noqa: ARG002 - a port
        """Nothing: only the node that has the exchange knows. Within the last hour bars answer anyway."""
        return {}

    def may_lack(self, exchange: str) -> bool:  # noqa: ARG002 - a port
        """Always: the node that has the exchange may have dropped updates, which the window does not show."""
        return True


class MirrorStanding:
    """Fills the port Standing. As long as the window does not answer, nothing of the last hour is known."""

    def __init__(self, learnt: Learnt) -> None:
        self._learnt = learnt

    @property
    def began_at(self) -> int:
        """When the mirror was made (Unix ms)."""
        return self._learnt.began_at

    @property
    def history_known(self) -> bool:
        """Whether the window has answered this question: it has the bars of all terms."""
        return self._learnt.answered

    @property
    def known_from(self) -> int:
        """0 if the window answers."""
        return 0 if self._learnt.answered else UNREADABLE

    async def wait_for_history(self, since: int) -> None:  # noqa: ARG002 - a port
        """No-op: `catch_up` reads it."""
        await trio.lowlevel.checkpoint()

    async def can_answer_from_redis(self) -> bool:
        """Whether the window has answered this question."""
        await trio.lowlevel.checkpoint()
        return self._learnt.answered

    async def flushed(self) -> bool:
        """The same: all that was acknowledged before `catch_up` is known."""
        await trio.lowlevel.checkpoint()
        return self._learnt.answered
