"""What marketflow cannot read under its keys: ignored, left where it is, and logged seldom.

Somebody else has written it, or a later version of marketflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import attrs
import structlog

from marketflow.adapters.cache.keys import Keys, changes_key
from marketflow.app.instruments.seldom import FOREIGN_LOG_EVERY, Seldom
from marketflow.domain.prices import Pair

_SHOWN: Final = 80
"""Bytes of a name that the log shows."""

Kind = Literal["update", "bar", "change"]
_WORDS: Final[Mapping[Kind, tuple[str, str, str]]] = {
    "update": ("foreign update ignored", "update of a later version ignored", "member"),
    "bar": ("foreign bar ignored", "bar of a later version ignored", "field"),
    "change": ("foreign change ignored", "change of a later version ignored", "entry"),
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
    first: tuple[Pair, bytes] = (("", ""), b"")
    """The pair, and the member or field, of the first."""


class Ignored:
    """What was ignored while replies were read."""

    def __init__(self) -> None:
        self.foreign = _Some()
        self.later = _Some()

    def add(self, pair: Pair, name: bytes, error: Exception) -> None:
        """This member or field of a pair's key was ignored, because of that error."""
        some = self.later if isinstance(error, LaterForm) else self.foreign
        if not some.count:
            some.first = pair, name
        some.count += 1


class ForeignLog:
    """Logs ignored data, at most one line of a kind in `FOREIGN_LOG_EVERY` seconds."""

    def __init__(self, keys: Keys) -> None:
        self._keys: Final[Mapping[Kind, Callable[[Pair], bytes]]] = {
            "update": keys.window,
            "bar": keys.bars,
            "change": lambda pair: changes_key(pair[0]),
        }
        self._seldom: dict[str, Seldom] = {}
        """By log event."""

    def tell(self, kind: Kind, ignored: Ignored) -> None:
        """This was ignored while replies were read."""
        foreign, later, part = _WORDS[kind]
        for event, some in ((foreign, ignored.foreign), (later, ignored.later)):
            if some.count:
                self._tell(event, part, self._keys[kind](some.first[0]).decode(), some)

    def _tell(self, event: str, part: str, key: str, some: _Some) -> None:
        seldom = self._seldom.setdefault(event, Seldom(FOREIGN_LOG_EVERY))
        if (others := seldom.turn(some.count)) is not None:
            log.warning(event, key=key, others_since=others, **{part: repr(some.first[1][:_SHOWN])})
