"""The exchanges and symbols that a share has something of in the stores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from marketflow.app.share.second_bars import SecondBars
from marketflow.domain.prices import Pair


class Pairs:
    """The configured pairs, and others that the book has bars of.

    Earlier boots had other symbols and exchanges, and may have left rows that are due. Their bars are kept
    and removed like all others.
    """

    def __init__(self, configured: Iterable[Pair], bars: SecondBars) -> None:
        self._configured = dict.fromkeys(configured)
        self._bars = bars

    def __call__(self) -> Sequence[Pair]:
        """As it is now: the configured ones first."""
        others = [pair for pair in self._bars.pairs if pair not in self._configured]
        return [*self._configured, *others]
