"""What somebody else wrote under our keys: ignored when it is read, and logged seldom."""

from __future__ import annotations

from typing import Final, Literal

import structlog

from marketflow.app.instruments.seldom import FOREIGN_LOG_EVERY, Seldom

_SHOWN: Final = 80
"""Bytes of a name that the log shows."""

Kind = Literal["update", "bar"]

log = structlog.get_logger()


class Ignored:
    """What was ignored while replies were read. Replies are read in a thread, which logs nothing itself."""

    def __init__(self) -> None:
        self.count = 0
        self.first: tuple[str, bytes] | None = None
        """The key, and the member or field, of the first."""

    def add(self, key: str, name: bytes) -> None:
        """This member or field of a key was ignored."""
        self.count += 1
        if self.first is None:
            self.first = key, name


class ForeignLog:
    """Logs ignored data, at most one line of a kind in `FOREIGN_LOG_EVERY` seconds."""

    def __init__(self) -> None:
        self._updates, self._bars = Seldom(FOREIGN_LOG_EVERY), Seldom(FOREIGN_LOG_EVERY)

    def tell(self, kind: Kind, ignored: Ignored) -> None:
        """This was ignored while replies were read."""
        if ignored.first is None:
            return
        seldom = self._updates if kind == "update" else self._bars
        if (others := seldom.turn(ignored.count)) is None:
            return
        key, name = ignored.first
        shown = repr(name[:_SHOWN])
        if kind == "update":
            log.warning("foreign update ignored", key=key, member=shown, others_since=others)
        else:
            log.warning("foreign bar ignored", key=key, field=shown, others_since=others)
