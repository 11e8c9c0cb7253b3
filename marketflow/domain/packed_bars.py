"""A one-second bar in few bytes: form 2 of a bar. Form 1 is a JSON array.

```
byte 0        the form: 2
bytes 1, 2    flags: which of the fields below are there
              1      flat: all prices are equal. There is one price, and no others
              2      `open` is `min`           4     `open` is `max`
              8      `close` is `min`          16    `close` is `max`
              32     large: counts and the step to the closing sequence take 8 bytes, not 2 and 4
              64     traded: an update has told its volume
              128    all updates have
              256    the quote volume is volume times `min`
              512    sided: an update has named its side
              1024   nothing was bought
              2048   nothing was sold
              4096   all that have told a volume have named a side
              8192   the last update has told its volume
              16384  that is the volume of all
then          min, then if not flat average, max, then if they are none of these open, close      8 bytes each
              if traded what was bought, sold, the rest, quote volume, the volume of the last update,
              as far as the flags do not say them                                                 8 bytes each
              open_sequence                                                                       8
              close_sequence - open_sequence                                                      4 or 8
              count, then if traded by not all how many told their volume                         2 or 8
              open_time - second, close_time - second (ms)                                        2 each
```
Numbers are little-endian, prices and sums IEEE 754 doubles, the step signed, the others unsigned. A second
with one update takes 29 bytes, and 37 if it has told its volume. One with many takes at most 61, and at most
105 with volumes and sides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from struct import Struct, error
from typing import Final

from msgspec.structs import replace

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
_QUOTE_AT_MIN: Final = 256
_SIDED: Final = 512
_NONE_BOUGHT: Final = 1024
_NONE_SOLD: Final = 2048
_NO_REST: Final = 4096
_LAST_TOLD: Final = 8192
_LAST_IS_ALL: Final = 16384
_MOST_FLAGS: Final = 32767
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
        counts += not flags & _ALL_TOLD
        doubles += (not flags & _NO_REST) + (not flags & _QUOTE_AT_MIN)
        if flags & _SIDED:
            doubles += (not flags & _NONE_BOUGHT) + (not flags & _NONE_SOLD)
        if flags & _LAST_TOLD:
            doubles += not flags & _LAST_IS_ALL
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
        flags |= _pack_traded(bar.traded, bar, doubles, counts)
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


def _pack_traded(traded: Traded, bar: Bar, doubles: list[float], counts: list[int]) -> int:
    """Add its fields; returns its flags."""
    volume = traded.volume
    if traded.updates == bar.count:
        flags = _TRADED | _ALL_TOLD
    else:
        flags = _TRADED
        counts.append(traded.updates)
    fields = [(traded.sideless, 0.0, _NO_REST), (traded.quote, volume * bar.min, _QUOTE_AT_MIN)]
    if traded.buy is not None and traded.sell is not None:
        flags |= _SIDED
        fields = [(traded.buy, 0.0, _NONE_BOUGHT), (traded.sell, 0.0, _NONE_SOLD), *fields]
    if bar.close_volume is not None:
        flags |= _LAST_TOLD
        fields.append((bar.close_volume, volume, _LAST_IS_ALL))
    for value, expected, flag in fields:
        if value == expected:
            flags |= flag
        else:
            doubles.append(value)
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
    traded, last_volume = _unpack_traded(flags, take, lowest) if flags & _TRADED else (None, None)
    opening, step, count = take(), take(), take()
    if traded is not None:
        traded = replace(traded, updates=count if flags & _ALL_TOLD else take())
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
        last_volume,
    )


def _unpack_traded(flags: int, take: Callable[[], float], lowest: float) -> tuple[Traded, float | None]:
    """What was traded, but for the number of updates, and the volume of the last update."""
    bought = sold = last = None
    if flags & _SIDED:
        bought = 0.0 if flags & _NONE_BOUGHT else take()
        sold = 0.0 if flags & _NONE_SOLD else take()
    rest = 0.0 if flags & _NO_REST else take()
    traded = Traded(0, rest, 0.0, bought, sold)
    quote = traded.volume * lowest if flags & _QUOTE_AT_MIN else take()
    if flags & _LAST_TOLD:
        last = traded.volume if flags & _LAST_IS_ALL else take()
    return replace(traded, quote=quote), last
