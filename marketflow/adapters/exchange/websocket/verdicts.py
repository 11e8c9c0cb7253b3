"""What an exchange has said about our symbols, for health and the log, over all connections of a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from marketflow.adapters.exchange.websocket.subscriptions import Outcome
from marketflow.app.instruments.seldom import Seldom

MOST_TEXT: Final = 200
"""Characters of an exchange's words that are kept."""
NOTICE_EVERY: Final = 60.0
"""Seconds between two notices in the log at least."""

logger = structlog.get_logger()


class Verdicts:
    """Which symbols are rejected, and why. The newest answer counts."""

    def __init__(self, exchange: str, names: Mapping[str, str]) -> None:
        """`names`: our symbols by the exchange's spelling."""
        self.rejected: dict[str, str] = {}
        """The reasons by symbol, in our spelling."""
        self._unanswered: dict[str, None] = {}
        """Symbols without an answer, in our spelling."""
        self._names = names
        self._log = logger.bind(exchange=exchange)
        self._notices = Seldom(NOTICE_EVERY)

    def take(self, outcome: Outcome) -> None:
        """An answer has come."""
        for symbol in map(self._names.__getitem__, outcome.accepted):
            self._unanswered.pop(symbol, None)
            if self.rejected.pop(symbol, None) is not None:
                self._log.info("symbol accepted", symbol=symbol)
        for theirs, reason in outcome.rejected.items():
            symbol, words = self._names[theirs], reason[:MOST_TEXT]
            self._unanswered.pop(symbol, None)
            if self.rejected.get(symbol) != words:
                self._log.warning("symbol rejected", symbol=symbol, spelling=theirs, reason=words)
            self.rejected[symbol] = words

    def unanswered(self, symbols: Sequence[str]) -> None:
        """No answer has come for some symbols, in the exchange's spelling. Their trades may still come."""
        new = [each for each in map(self._names.__getitem__, symbols) if each not in self._unanswered]
        if new:
            self._log.warning("subscriptions unanswered", symbols=", ".join(new))
            self._unanswered.update(dict.fromkeys(new))

    def notice(self, text: str) -> None:
        """The exchange says something that changes nothing."""
        if (others := self._notices.turn()) is not None:
            self._log.info("notice of exchange", text=text[:MOST_TEXT], others=others)

    def leaves(self, reason: str) -> None:
        """The exchange has announced that it will end the connection."""
        self._log.info("leave announced", reason=reason[:MOST_TEXT])

    def renewed(self) -> None:
        """The next connection has taken over."""
        self._log.info("connection renewed")

    def not_renewed(self, error: Exception) -> None:
        """The next connection could not be made; the present one goes on."""
        self._log.warning("renewal failed", error=str(error) or type(error).__name__)
