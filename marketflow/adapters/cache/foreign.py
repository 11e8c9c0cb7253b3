"""What marketflow cannot read under its keys: ignored, left where it is, and logged seldom.

Somebody else has written it, or a later version of marketflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import attrs
import structlog

from marketflow.app.instruments.seldom import FOREIGN_LOG_EVERY, Seldom

_SHOWN: Final = 80
"""Bytes of a name that the log shows."""

Kind = Literal["update", "bar"]
_WORDS: Final[Mapping[Kind, tuple[str, str, str]]] = {
    "update": ("foreign update ignored", "update of a later version ignored", "member"),
    "bar": ("foreign bar ignored", "bar of a later version ignored", "field"),
}
"""The log events about foreign data and data of a later version, and what the key has."""

log = structlog.get_logger()


class LaterForm(ValueError):
    """A later version of marketflow has written this, in a form that this one cannot read."""

    def __init__(self, form: int) -> None:
        super().__init__(f"form {form} of a later version")


@attrs.define
class _Some:
    """Ignored data of one origin."""

    count: int = 0
    first: tuple[str, bytes] = ("", b"")
    """The key, and the member or field, of the first."""


class Ignored:
    """What was ignored while replies were read."""

    def __init__(self) -> None:
        self.foreign = _Some()
        self.later = _Some()

    def add(self, key: str, name: bytes, error: Exception) -> None:
        """This member or field of a key was ignored, because of that error."""
        some = self.later if isinstance(error, LaterForm) else self.foreign
        if not some.count:
            some.first = key, name
        some.count += 1


class ForeignLog:
    """Logs ignored data, at most one line of a kind in `FOREIGN_LOG_EVERY` seconds."""

    def __init__(self) -> None:
        self._seldom: dict[str, Seldom] = {}
        """By log event."""

    def tell(self, kind: Kind, ignored: Ignored) -> None:
        """This was ignored while replies were read."""
        foreign, later, part = _WORDS[kind]
        self._tell(foreign, part, ignored.foreign)
        self._tell(later, part, ignored.later)

    def _tell(self, event: str, part: str, some: _Some) -> None:
        if not some.count:
            return
        seldom = self._seldom.setdefault(event, Seldom(FOREIGN_LOG_EVERY))
        if (others := seldom.turn(some.count)) is not None:
            key, name = some.first
            log.warning(event, key=key, others_since=others, **{part: repr(name[:_SHOWN])})
