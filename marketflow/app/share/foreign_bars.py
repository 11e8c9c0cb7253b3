"""The check of bars that come from outside: a store or a disk may hold anything under our names.

Merging, rows, questions and sequences rely on what is checked here.
"""

from __future__ import annotations

from sys import float_info
from typing import Final

from marketflow.app.share.sequences import MOST
from marketflow.domain.bars import BAR_WIDTH, Bar

LATEST: Final = MOST // 1_000
"""Timestamps (ms) are not greater. First sequences are the clock's microseconds, so both have one limit."""


def is_foreign(bar: Bar, start: int, width: int) -> bool:
    """Whether no boot can have made this bar of updates from `start` on, in a span of that width (ms)."""
    lowest, highest = bar.min, bar.max
    # Comparisons with NaN are false, so NaN is foreign.
    return not (
        1 <= bar.count <= MOST
        and 0.0 < lowest <= bar.average <= highest <= float_info.max
        and lowest <= bar.open <= highest
        and lowest <= bar.close <= highest
        and start % BAR_WIDTH == 0
        and 0 <= start <= bar.open_time <= bar.close_time < start + width <= LATEST
        and 0 <= bar.open_sequence < MOST
        and 0 <= bar.close_sequence < MOST
        # Of equal timestamps the later received is the later one.
        and (bar.open_time < bar.close_time or bar.open_sequence <= bar.close_sequence)
    )
