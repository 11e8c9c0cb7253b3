"""The check of bars that come from outside: a store or a disk may hold anything under our names.

Merging, rows, questions and sequences rely on what is checked here. The adapters check each bar when they
read it, but for whole minutes of bars: these are checked by `PairBars` before anybody reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import float_info
from typing import Final

import structlog

from marketflow.app.instruments.seldom import FOREIGN_LOG_EVERY, Seldom
from marketflow.app.ports import Field
from marketflow.app.share.sequences import MOST, PER_MS
from marketflow.domain.bars import BAR_WIDTH, Bar
from marketflow.domain.columns import MOST_QUOTE, MOST_VOLUME, Traded, counts
from marketflow.domain.prices import Pair

log = structlog.get_logger()

MOST_A_SECOND: Final = 2**35
"""More updates than a boot can accept in a second, by far. Sums of such counts over years fit into 64 bits,
which is the most that PostgreSQL and JSON take."""
ROUNDING: Final = 1.000001
"""By this factor a sum may be greater than its limit, since each addition is rounded."""
LATEST: Final = MOST // PER_MS
"""Timestamps (ms) are not greater. First sequences come from the clock, so both have one limit."""


def most_updates(width: int) -> int:
    """How many updates a bar of that width (ms) can have."""
    return MOST_A_SECOND * width // BAR_WIDTH


def is_foreign(bar: Bar, start: int, width: int) -> bool:
    """Whether no boot can have made this bar of updates from `start` on, in a span of that width (ms)."""
    return not (
        _is_possible(bar, start, width)
        and start % BAR_WIDTH == 0
        and 0 <= start <= LATEST - width
        and 0 <= bar.open_sequence < MOST
        and 0 <= bar.close_sequence < MOST
        # Of equal timestamps the later received is the later one.
        and (bar.open_time < bar.close_time or bar.open_sequence <= bar.close_sequence)
    )


def is_foreign_row(bar: Bar, end: int, interval: int) -> bool:
    """Whether no boot can have written this row of the interval that ends at `end` (ms).

    The statements of PostgreSQL check the same.
    """
    return end % interval != 0 or not _is_possible(bar, end - interval, interval)


def _is_possible(bar: Bar, start: int, width: int) -> bool:
    """Whether its numbers agree with each other and with its span."""
    lowest, highest = bar.min, bar.max
    # Comparisons with NaN are false, so it is not possible.
    return (
        1 <= bar.count <= most_updates(width)
        and 0.0 < lowest <= bar.average <= highest <= float_info.max
        and lowest <= bar.open <= highest
        and lowest <= bar.close <= highest
        and start <= bar.open_time <= bar.close_time < start + width
        and (bar.traded is None or _is_possible_trade(bar.traded, bar.count))
        and (bar.close_volume is None or (bar.traded is not None and counts(bar.close_volume, bar.close)))
    )


def _is_possible_trade(traded: Traded, count: int) -> bool:
    """Whether so many updates can have traded this. The statements of PostgreSQL check the same."""
    told, most = traded.updates, MOST_VOLUME * traded.updates * ROUNDING
    return (
        1 <= told <= count
        and 0 <= traded.sideless <= most
        and 0 <= traded.quote <= MOST_QUOTE * told * ROUNDING
        and (traded.buy is None) == (traded.sell is None)
        and 0 <= (traded.buy or 0) <= most
        and 0 <= (traded.sell or 0) <= most
    )


class ForeignBars:
    """Bars from a store that no boot can have made. They are ignored."""

    def __init__(self) -> None:
        self._seldom = Seldom(FOREIGN_LOG_EVERY)
        self.heard: Callable[[Pair, int], None] = _ignore
        """Called with the pair and the minute (ms) when such bars are found that have counted until now."""

    def found(self, pair: Pair, minute: int, fields: Sequence[Field]) -> None:
        """The bars in these fields have counted as their heads said, and do not any more."""
        self.tell(pair, fields)
        self.heard(pair, minute)

    def tell(self, pair: Pair, fields: Sequence[Field]) -> None:
        """Log that the bars in these fields were ignored, at most one line in `FOREIGN_LOG_EVERY` seconds."""
        if fields and (others := self._seldom.turn(len(fields))) is not None:
            second, boot = fields[0]
            log.warning(
                "foreign bar ignored",
                exchange=pair[0],
                symbol=pair[1],
                second=second,
                boot=boot,
                others_since=others,
            )


def _ignore(_pair: Pair, _minute: int) -> None:
    """No-op callback."""
