"""The lease of the window: one boot writes to it at a time, and a key with an expiry says which.

`LeaseMachine` decides and does no I/O; `WindowLease` looks, takes and gives back. docs/architecture.md draws
the states.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Final

import structlog
import trio

from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import Sight, StoreAway, StoreTaken, Window
from marketflow.app.share.rivals import HeldByAnother, Rival

log = structlog.get_logger()

KEY_SECONDS: Final = 5.0
"""The key expires so long after the last write."""
LEASE_SECONDS: Final = KEY_SECONDS - 1
"""How long after it was sent a write is sure to have renewed the lease."""
DEAD_SECONDS: Final = 1.5
"""So long the marker of the holder must stand still before its lease is taken over. A boot that lives writes
each half second."""
FREE_SECONDS: Final = 0.75
"""The same if the key is free but a marker is left: a version without leases may be writing."""
_TRIES: Final = 3


class LeaseState(Enum):
    """Where we are with the lease."""

    SEEKING = "seeking"
    """Not ours yet. Nothing is written."""
    HELD = "held"
    """Ours."""
    LAPSED = "lapsed"
    """It was ours, and may have expired, or is gone or another's. Nothing is written until that is clear."""
    WATCHING = "watching"
    """Ours, but another boot has written. Nothing is written until its marker has stood still."""
    TAKEN = "taken"
    """Another boot has it. The end."""
    RELEASED = "released"
    """We gave it back. The end."""


class Move(Enum):
    """What is to be done after a look."""

    WRITE = "write"
    TAKE = "take"
    WAIT = "wait"
    END = "end"


class LeaseMachine:
    """The states of the lease and what leads from one to another. Times in seconds of one clock."""

    def __init__(self, boot: str) -> None:
        self.state = LeaseState.SEEKING
        self.renewed = -math.inf
        """When the lease was ours for sure the last time."""
        self.rival = Rival()
        self._boot = boot
        self._first_write = True
        """Whether no write was acknowledged since we took the lease. A foreign marker is an old one then."""

    def looked(self, sight: Sight, now: float, *, granted: bool) -> Move:
        """Somebody looked. `granted`: our database has given us its lock, so no other boot there is alive."""
        if sight.holder is not None:
            self.rival.holders.add(sight.holder)
        another_wrote = self.rival.marker.look(sight.marker, now) and self._is_anothers(sight)
        match self.state:
            case LeaseState.SEEKING:
                move = self._seek(sight, another_wrote=another_wrote, granted=granted)
            case LeaseState.WATCHING:
                move = self._watch(sight, another_wrote=another_wrote, granted=granted)
            case LeaseState.TAKEN | LeaseState.RELEASED:
                return Move.END
            case _:
                move = self._check(sight, granted=granted)
        if move is Move.WAIT:
            self.rival.writes = self.rival.writes or another_wrote
            if self.rival.wait.another(now):
                move = Move.END
        if move is Move.WRITE:
            self.rival.gone()
            self.state, self.renewed = LeaseState.HELD, now
        elif move is Move.END:
            self.state = LeaseState.TAKEN
        return move

    def _is_anothers(self, sight: Sight) -> bool:
        """Whether the last write shows that another boot is alive.

        Two kinds of writes do not, since they may have been held up on their way: our own, and those of a
        boot that we have outlived. If the latter is alive after all, it sees with its next write that the
        lease is not its own, and ends; so it must know of leases, and must not hold this one.
        """
        if sight.marker is None:
            return False  # It was removed, not written.
        rival, writer = self.rival, self._boot_of(sight.marker)
        held_up = writer in rival.outlived & rival.holders and writer != sight.holder
        return writer != self._boot and not held_up

    def _seek(self, sight: Sight, *, another_wrote: bool, granted: bool) -> Move:
        still = self.rival.marker.seconds
        if sight.holder == self._boot:  # The answer to our taking it was lost.
            return Move.WRITE
        if sight.holder is None:
            unwritten = sight.marker is None or self._boot_of(sight.marker) == self._boot
            return Move.TAKE if unwritten or still >= FREE_SECONDS else Move.WAIT
        if another_wrote and sight.holder in self.rival.outlived:
            return Move.END  # It was not dead, and has taken from us what we held.
        return Move.TAKE if granted and still >= DEAD_SECONDS else Move.WAIT

    def _watch(self, sight: Sight, *, another_wrote: bool, granted: bool) -> Move:
        if sight.holder != self._boot:
            return self._check(sight, granted=granted)
        if another_wrote:  # Late writes end; somebody who writes without a lease does not.
            return Move.END
        return Move.WRITE if self.rival.marker.seconds >= FREE_SECONDS else Move.WAIT

    def _check(self, sight: Sight, *, granted: bool) -> Move:
        """We have held it. A Redis that comes back older may show the lease of a boot that is dead."""
        if sight.holder is None:
            self.state = LeaseState.LAPSED
            return Move.TAKE
        if sight.holder == self._boot:
            return Move.WRITE
        if not granted and sight.holder not in self.rival.outlived:
            return Move.END
        self.rival.outlived.add(sight.holder)
        self.state = LeaseState.SEEKING
        return Move.WAIT

    def took(self, sight: Sight, now: float) -> None:
        """We have taken the lease as it was seen."""
        boots = {sight.holder, None if sight.marker is None else self._boot_of(sight.marker)}
        self.rival.outlived |= {boot for boot in boots if boot is not None and boot != self._boot}
        self.state, self.renewed = LeaseState.HELD, now
        self.rival.gone()
        self.rival.marker.forget()
        self._first_write = True

    def wrote(self, met: Sight, sent_at: float) -> None:
        """Writes of ours were acknowledged, the last of them sent at that time, and have met this."""
        first, self._first_write = self._first_write, False
        if met.holder != self._boot:
            self.state = LeaseState.LAPSED
            self.rival.marker.forget()
        elif met.marker is None or first:
            self.renewed = sent_at
        else:
            self.state = LeaseState.WATCHING
            self.rival.marker.forget()

    def lapse(self, now: float) -> None:
        """Time has gone by: after the lease nobody knows whether the key is there."""
        if self.state is LeaseState.HELD and now - self.renewed > LEASE_SECONDS:
            self.state = LeaseState.LAPSED
            self.rival.marker.forget()

    def lost_sight(self) -> None:
        """The window is away: no boot could have written, and a wait begins again."""
        self.rival.lost_sight()

    @staticmethod
    def _boot_of(marker: str) -> str:
        return marker.rpartition(":")[0]


class WindowLease:
    """Holds the window for this boot."""

    def __init__(self, window: Window, *, boot: str, state: StoreState, granted: Callable[[], bool]) -> None:
        """`granted`: whether the database has given us its lock."""
        self.state = state
        self._window = window
        self._granted = granted
        self._machine = LeaseMachine(boot)
        self._last = Sight(None, None)
        """What the last look has shown."""
        self._waiting = False
        """Whether the last look told us to wait."""

    @property
    def leased_until(self) -> float:
        """When it was ours for sure the last time (Trio's clock); -inf if it never was."""
        return self._machine.renewed

    @property
    def another(self) -> bool:
        """Whether another boot has it for sure: Redis says so, or we have seen it write."""
        return self._machine.rival.writes or self._machine.state is LeaseState.TAKEN

    async def ensure(self) -> None:
        """Return once we have the lease: at once if we have it already.

        Raises:
            HeldByAnother: not yet.
            StoreAway: the window is away.
            StoreTaken: another boot has it.
        """
        self._machine.lapse(trio.current_time())
        if self._machine.state is LeaseState.HELD:
            return
        for _ in range(_TRIES):
            match await self._look():
                case Move.WRITE:
                    return
                case Move.TAKE if await self._take():
                    return
                case Move.TAKE:
                    continue  # Another was quicker: see who.
                case Move.END:
                    raise self._taken()
                case Move.WAIT:
                    break
        raise HeldByAnother(f"another marketflow {self._signs()}, waiting until it ends", self._taken())

    async def _look(self) -> Move:
        try:
            self._last = await self._window.look()
        except StoreAway:
            self._machine.lost_sight()
            raise
        move = self._machine.looked(self._last, trio.current_time(), granted=self._granted())
        if move is Move.WAIT and not self._waiting:
            log.warning("lease on Redis awaited", seen=f"it {self._signs()}")
        self._waiting = move is Move.WAIT
        return move

    async def _take(self) -> bool:
        if not await self._window.take(self._last):
            return False
        self._machine.took(self._last, trio.current_time())
        log.info("lease on Redis taken", over=self._last.holder, last_write=self._last.marker)
        return True

    def wrote(self, sent_at: float) -> None:
        """Writes were acknowledged, the last of them sent at that time (seconds of Trio's clock)."""
        self._machine.wrote(self._window.met, sent_at)

    async def release(self) -> None:
        """Give the lease back, if we have it: a restart then waits for nothing.

        Raises:
            StoreAway: it expires.
        """
        if self._machine.state in {LeaseState.HELD, LeaseState.LAPSED, LeaseState.WATCHING}:
            self._machine.state = LeaseState.RELEASED
            await self._window.release()

    def _taken(self) -> StoreTaken:
        return StoreTaken(f"another marketflow is running on this Redis: it {self._signs()}")

    def _signs(self) -> str:
        """How it shows that there is another."""
        holder, marker = self._last
        return f"has written last ({marker})" if holder is None else f"holds it (boot {holder})"
