"""A one-second bar in few bytes: form 2 of a bar. Form 1 is a JSON array.

```
byte 0        the form: 2
bytes 1, 2    flags: which of the fields below are there
              1    flat: all prices are equal. There is one price, and no others
              2    `open` is `min`      4    `open` is `max`
              8    `close` is `min`    16    `close` is `max`
              32   large: counts and the step to the closing sequence take 8 bytes, not 2 and 4
              64   traded: an update has told its volume
              128  all updates have
              256  sided: one of them has told its side
              512  what was sold is what was not bought
then          min, then if not flat average, max, then if they are none of these open, close      8 bytes each
              if traded volume, quote, then if sided buy, then if it is not the rest sell         8 bytes each
              open_sequence                                                                       8
              close_sequence - open_sequence                                                      4 or 8
              count, then if traded by not all how many told their volume                         2 or 8
              open_time - second, close_time - second (ms)                                        2 each
```
Numbers are little-endian, prices and sums IEEE 754 doubles, the step signed, the others unsigned. A second
with one update takes 29 bytes, one with many at most 61, and 95 if volumes and sides are told.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from struct import Struct, error
from typing import Final

from marketflow.domain.bars import Bar
from marketflow.domain.columns import Traded

FORM: Final = 2

_FLAT: Final = 1
_OPEN_IS_MIN: Final = 2
_OPEN_IS_MAX: Final = 4
_CLOSE_IS_MIN: Final = 8
_CLOSE_IS_MAX: Final = 16
_LARGE: Final = 32
_TRADED: Final = 64
_ALL_TOLD: Final = 128
_SIDED: Final = 256
_REST_SOLD: Final = 512
_MOST_FLAGS: Final = 1023
_MOST_COUNT: Final = 2**16
_MOST_STEP: Final = 2**31
_FLAGS: Final = Struct("<BH")


@cache
def _struct(flags: int) -> Struct:
    doubles = 1 if flags & _FLAT else 3
    doubles += not flags & (_FLAT | _OPEN_IS_MIN | _OPEN_IS_MAX)
    doubles += not flags & (_FLAT | _CLOSE_IS_MIN | _CLOSE_IS_MAX)
    counts = 1
    if flags & _TRADED:
        doubles += 2
        if flags & _SIDED:
            doubles += 1 if flags & _REST_SOLD else 2
        counts += not flags & _ALL_TOLD
    step, count = ("q", "Q") if flags & _LARGE else ("i", "H")
    return Struct(f"<BH{doubles}dQ{step}{counts}{count}HH")


def pack_bar(bar: Bar, second: int) -> bytes:
    """The bar of the second that starts at `second` (ms)."""
    lowest, highest = bar.min, bar.max
    step = bar.close_sequence - bar.open_sequence
    flags = 0 if bar.count < _MOST_COUNT and -_MOST_STEP <= step < _MOST_STEP else _LARGE
    if lowest == highest:
        flags |= _FLAT
        doubles = [lowest]
    else:
        doubles = [lowest, bar.average, highest]
        if bar.open == lowest:
            flags |= _OPEN_IS_MIN
        elif bar.open == highest:
            flags |= _OPEN_IS_MAX
        else:
            doubles.append(bar.open)
        if bar.close == lowest:
            flags |= _CLOSE_IS_MIN
        elif bar.close == highest:
            flags |= _CLOSE_IS_MAX
        else:
            doubles.append(bar.close)
    counts = [bar.count]
    if bar.traded is not None:
        flags |= _pack_traded(bar.traded, doubles, counts)
    return _struct(flags).pack(
        FORM,
        flags,
        *doubles,
        bar.open_sequence,
        step,
        *counts,
        bar.open_time - second,
        bar.close_time - second,
    )


def _pack_traded(traded: Traded, doubles: list[float], counts: list[int]) -> int:
    """Add its fields; returns its flags."""
    flags = _TRADED
    doubles += traded.volume, traded.quote
    if traded.updates == counts[0]:
        flags |= _ALL_TOLD
    else:
        counts.append(traded.updates)
    if traded.buy is not None and traded.sell is not None:
        flags |= _SIDED
        doubles.append(traded.buy)
        if traded.sell == traded.volume - traded.buy:
            flags |= _REST_SOLD
        else:
            doubles.append(traded.sell)
    return flags


def unpack_bar(packed: bytes, second: int) -> Bar:
    """The bar of the second that starts at `second` (ms). What its numbers say is not checked.

    Raises:
        ValueError: it is not of this form.
    """
    try:
        form, flags = _FLAGS.unpack_from(packed)
        if form != FORM or flags > _MOST_FLAGS:
            raise ValueError(packed[:80])
        take = iter(_struct(flags).unpack(packed)).__next__
    except error as cause:
        raise ValueError(packed[:80]) from cause
    take(), take()  # form and flags
    lowest = take()
    if flags & _FLAT:
        average = highest = opened = closed = lowest
    else:
        average, highest = take(), take()
        opened = lowest if flags & _OPEN_IS_MIN else highest if flags & _OPEN_IS_MAX else take()
        closed = lowest if flags & _CLOSE_IS_MIN else highest if flags & _CLOSE_IS_MAX else take()
    sums = _sums(flags, take) if flags & _TRADED else None
    opening, step, count = take(), take(), take()
    traded = None
    if sums is not None:
        traded = Traded(count if flags & _ALL_TOLD else take(), *sums)
    first, last = take(), take()
    return Bar(
        count,
        average,
        lowest,
        highest,
        opened,
        second + first,
        opening,
        closed,
        second + last,
        opening + step,
        traded,
    )


def _sums(flags: int, take: Callable[[], float]) -> tuple[float, float, float | None, float | None]:
    """Volume, quote volume, and what was bought and sold if that was told."""
    volume, quote = take(), take()
    if not flags & _SIDED:
        return volume, quote, None, None
    bought = take()
    return volume, quote, bought, volume - bought if flags & _REST_SOLD else take()
