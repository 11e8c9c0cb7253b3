"""When this boot began to accept updates, as today's wall clock counts the time."""

from __future__ import annotations

import trio

from marketflow.app.instruments.clocks import STEP
from marketflow.app.ports import Clock
from marketflow.app.share.book import Book


class Beginning:
    """Tells when a book began. Before that time only the bars of earlier boots know the updates.

    A wall clock that was behind at the start, and is right by now, made the beginning look too early: earlier
    boots have accepted updates after that time, which this boot does not know. So the time since then is
    measured with Trio's clock, which does not step. A clock that was ahead is left as it was. The beginning
    looks too late then, and less is taken for known.
    """

    def __init__(self, book: Book, clock: Clock) -> None:
        self._book = book
        self._clock = clock

    @property
    def at(self) -> int | None:
        """Unix ms; None while the book does not accept updates yet."""
        began_at = self._book.began_at
        if began_at is None:
            return None
        by_now = self._clock.now() - round((trio.current_time() - self._book.began) * 1_000)
        return by_now if by_now - began_at > STEP else began_at
