"""Paces the reading of connections: small amounts at a beat, together with those of other exchanges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs
import trio

from marketflow.app.instruments.clocks import Beat

LITTLE: Final = 32_768
"""Bytes. After a receive of less the reader waits for more data, since the work for each payload costs as
much as a hundred of its lines. After a receive of this size or more it reads again at once."""
FEW: Final = 2_048
"""Bytes, some 27 lines. After a receive of less the reader waits for a slower beat."""
LEAST: Final = 384
"""Bytes, some five lines. After a receive of less the reader waits for the slowest beat."""
EMPTY_BEATS: Final = 3
"""After so many beats in a row at which nothing had come, the exchange sends less often than the beat. It is
then read as soon as something comes, since a pause would only be one more wake-up."""
HIGH_SECONDS: Final = 0.25
"""For so long after a large receive of any exchange the others are read at the fastest beat."""
SPAN_BEATS: Final = 20
"""The number of beats over which receives are counted, to see whether a common beat saves wake-ups."""
BEGIN_TOGETHER, STAY_TOGETHER = 1.25, 0.75
"""Receives a beat, of all exchanges. The first is more than the one wake-up that a beat costs; they differ so
that exchanges which send just as often do not change all the time."""


class Connection(Protocol):
    """A connection that gives bytes."""

    async def receive(self) -> bytes:
        """The next bytes; empty at the end. Raises OSError."""
        ...

    def has_come(self) -> bool:
        """Whether something has come, so that a receive returns at once."""
        ...


class Company:
    """Whether exchanges that send less often than the beat are read at the beat nevertheless.

    If they send more often than the beat all together, they share wake-ups at it. If not, each is read as
    soon as something comes from it: at most beats there would be nothing.

    ```
             BEGIN_TOGETHER receives a beat or more
     apart ──────────────────────────────────────────> together
       ^                                                  │
       └──────────────────────────────────────────────────┘
                 less than STAY_TOGETHER receives a beat
    ```
    """

    def __init__(self, interval: float) -> None:
        """`interval` of the beat in seconds."""
        self._interval = interval
        self._together = False
        self._receives = 0
        self._since = -math.inf
        """Since when they are counted (seconds of Trio's clock)."""

    def note(self) -> None:
        """A small amount has been received, of any exchange that is read at this beat or would be."""
        self._receives += 1

    def is_together(self) -> bool:
        """Whether they are read together now. It follows the receives of the last beats."""
        now = trio.current_time()
        beats = (now - self._since) / self._interval
        if beats >= SPAN_BEATS:
            self._together = self._receives >= beats * (STAY_TOGETHER if self._together else BEGIN_TOGETHER)
            self._receives, self._since = 0, now
        return self._together


class PacedReceive:
    """Receives from one connection: small amounts at a beat, and everything else at once."""

    def __init__(
        self,
        connection: Connection,
        beat_after: Callable[[int], tuple[Beat | None, Company | None]],
        stopping: Callable[[], bool],
    ) -> None:
        """`beat_after` tells which beat to wait for after a receive of so many bytes; None: do not wait.

        It also gives the company of that beat's exchanges; None: the beat has no company.
        """
        self._receive = connection.receive
        self._has_come = connection.has_come
        self._beat_after = beat_after
        self._stopping = stopping
        self._beat: Beat | None = None
        """The beat before the next receive; None: there is no pause."""
        self._company: Company | None = None
        self._empty = 0
        """At how many beats in a row nothing had come."""

    async def receive(self) -> bytes:
        """The next bytes; empty at the end. After the stop there are no pauses.

        If the stop ends a pause, the next call receives what has come meanwhile.
        """
        beat, self._beat = self._beat, None
        if self._stopping():
            data = await self._receive()
        elif beat is None:
            # The rest of a large amount may be there already: others have a turn.
            await trio.lowlevel.cancel_shielded_checkpoint()  # with no time left, what is there is still read
            data = await self._receive()
        elif self._empty < EMPTY_BEATS:
            await beat.wait()
            self._empty = 0 if self._has_come() else self._empty + 1
            data = await self._receive()
        elif self._company is not None and self._company.is_together():
            await beat.wait()
            while not self._has_come() and self._company.is_together():
                await beat.wait()
            data = await self._receive()
        else:
            due = beat.after(trio.current_time())
            data = await self._receive()
            if trio.current_time() < due:
                self._empty = 0
        self._beat, self._company = self._beat_after(len(data))
        if self._company is not None:
            self._company.note()
        return data


class Load:
    """Whether an exchange sends so much that it is read without pauses."""

    def __init__(self) -> None:
        self._high_until = -math.inf

    def note(self) -> None:
        """A large receive has been made."""
        self._high_until = trio.current_time() + HIGH_SECONDS

    @property
    def is_high(self) -> bool:
        """Whether there was a large receive lately."""
        return trio.current_time() < self._high_until


@attrs.frozen
class Pace:
    """When the connections of all sources are read. They share it, so that they wake up together."""

    beats: Sequence[tuple[int, Beat]] = ()
    """Below how many bytes of a receive which beat ends the pause after it; the least number first. After
    larger receives there is no pause.

    The less has come, the more does a wake-up cost in comparison, and the slower is the beat. Pauses only
    make sense for streams of bytes: data that arrives meanwhile waits in the socket, and one receive takes
    all of it. If each receive gave one message, a pause would only be a delay."""
    _load: Load = attrs.field(init=False, factory=Load)
    _company: Company | None = attrs.field(init=False)
    """Of the slowest beat."""

    @_company.default
    def _company_of_slowest(self) -> Company | None:
        return Company(self.beats[0][1].interval) if self.beats else None

    @classmethod
    def at(cls, interval: float) -> Pace:
        """At beats of this interval (seconds), of a half and of a quarter of it."""
        return cls([(LEAST, Beat(interval)), (FEW, Beat(interval / 2)), (LITTLE, Beat(interval / 4))])

    def paced(self, connection: Connection, stopping: Callable[[], bool]) -> PacedReceive:
        """What receives from a connection at this pace. After the stop there are no pauses."""
        return PacedReceive(connection, self._beat_after, stopping)

    def _beat_after(self, size: int) -> tuple[Beat | None, Company | None]:
        """What to wait for after a receive of so many bytes, and with whom."""
        fitting = [beat for limit, beat in self.beats if size < limit]
        if not fitting:
            self._load.note()
            return None, None
        # Beside a flood an update waits behind the flood, so it must not wait for a slow beat before that.
        if self._load.is_high:
            return fitting[-1], None
        return fitting[0], self._company if len(fitting) == len(self.beats) else None
