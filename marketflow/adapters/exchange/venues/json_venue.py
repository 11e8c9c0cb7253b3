"""What venues that send JSON do in the same way. No I/O."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from marketflow.adapters.exchange.checks import Quotes
from marketflow.adapters.exchange.venues.members import members
from marketflow.adapters.exchange.venues.reading import TradeMessages
from marketflow.adapters.exchange.venues.venue import Found, Meaning, Trades, Venue


class JsonVenue(Venue):
    """A venue whose messages are JSON objects."""

    messages: ClassVar[TradeMessages]
    """Its messages with trades."""
    usual: ClassVar[tuple[bytes, bytes] | None] = None
    """How a message with trades usually begins, and what else it then has. Nothing else may have both."""

    def only_trades(self, frames: Sequence[bytes]) -> bool:
        """Those that have the usual form."""
        return self.usual is not None and all_have(frames, *self.usual)

    def read(self, frame: bytes) -> Meaning:
        """What is no JSON may have been a trade."""
        if self.only_trades((frame,)):
            return Trades(frame)
        message = members(frame)
        return Trades(frame) if message is None else self.meaning(message, frame)

    @abstractmethod
    def meaning(self, message: Mapping[str, Any], frame: bytes) -> Meaning:
        """What a message means, also one with trades in an unusual form. `frame`: the message as it came."""

    def trades(self, body: bytes) -> Found:
        """The trades of a message."""
        return self.messages.found(body)

    def together(self, bodies: Sequence[bytes]) -> Sequence[Quotes] | None:
        """The trades of all messages, decoded at once."""
        return self.messages.together(bodies)


def all_have(frames: Sequence[bytes], begin: bytes, within: bytes = b"") -> bool:
    """Whether all of them begin in this way, and have these bytes anywhere."""
    length = len(begin)
    usual = [frame for frame in frames if frame[:length] == begin]
    if within:
        # `within in frame` takes twice the time: it first tries whether `within` is a number.
        usual = [frame for frame in usual if frame.find(within) >= 0]
    return len(usual) == len(frames)
