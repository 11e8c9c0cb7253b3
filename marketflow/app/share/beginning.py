"""When this boot began to accept updates, by the wall clock as it is set now."""

from __future__ import annotations

import trio

from marketflow.app.instruments.clocks import STEP
from marketflow.app.ports import Clock
from marketflow.app.share.book import Book


class Beginning:
    """Tells when a book began. Before that time only the bars of earlier boots know the updates.

    If the wall clock was behind at the start and has been set right since, the noted time is too early.
    Earlier boots accepted updates after it, which this boot does not know. So the beginning is computed from
    the time that has passed since, which Trio's clock measures without steps. If the clock was ahead, the
    noted time stays: it is too late, so less is taken for known.

    It is fixed once rows are made of what came after it. Later steps of the clock, or a machine that was
    suspended, must not make these rows look like those of an earlier boot.
    """

    def __init__(self, book: Book, clock: Clock) -> None:
        self._book = book
        self._clock = clock
        self._fixed: int | None = None

    @property
    def at(self) -> int | None:
        """Unix ms; None while the book does not accept updates yet."""
        began_at = self._book.began_at
        if began_at is None or self._fixed is not None:
            return self._fixed
        by_now = self._clock.now() - round((trio.current_time() - self._book.began) * 1_000)
        return by_now if by_now - began_at > STEP else began_at

    def fix(self) -> None:
        """Rows are made now, so that the beginning does not change any more."""
        self._fixed = self.at
