"""A one-second bar in few bytes: form 3 of a bar.

```
byte 0         the form: 3
bytes 1, 2     flags: which of the fields below are there, and how they are written
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
               32768  scaled: prices have few digits
bytes 3 to 10  open_sequence
then           close_sequence - open_sequence                                                    4 or 8
               open_time - second, close_time - second (ms)                                      2 each
               count, then if traded by not all how many told their volume                       2 or 8
               if scaled the number of digits behind the point                                   1
               min                                                                               8, scaled 4
               then if not flat max, then if they are none of these open, close:
               the prices, or if scaled how much greater than min they are                       8, scaled 2
               if not flat average                                                               8
               if traded what was bought, sold, the rest, quote volume, the volume of the last update,
               as far as the flags do not say them                                               8 each
```
Numbers are little-endian, prices and sums IEEE 754 doubles, the step signed, the others unsigned. Scaled
prices are counted in units of the last digit: 60000.12 with two digits is 6000012.

A second with one update takes 29 bytes, and 37 if it has told its volume. One with many takes 40 at most, and
80 with volumes and sides; 61 and 101 if its prices cannot be scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct, error
from typing import Final

from msgspec.structs import replace

from marketflow.domain.bars import Bar
from marketflow.domain.columns import Traded

FORM: Final = 3

_FLAT: Final = 1
_OPEN_IS_MIN: Final = 2
_OPEN_IS_MAX: Final = 4
_CLOSE_IS_MIN: Final = 8
_CLOSE_IS_MAX: Final = 16
LARGE: Final = 32
_TRADED: Final = 64
_ALL_TOLD: Final = 128
_QUOTE_AT_MIN: Final = 256
_SIDED: Final = 512
_NONE_BOUGHT: Final = 1024
_NONE_SOLD: Final = 2048
_NO_REST: Final = 4096
_LAST_TOLD: Final = 8192
_LAST_IS_ALL: Final = 16384
_SCALED: Final = 32768

_OPEN_IS_KNOWN: Final = _FLAT | _OPEN_IS_MIN | _OPEN_IS_MAX
_CLOSE_IS_KNOWN: Final = _FLAT | _CLOSE_IS_MIN | _CLOSE_IS_MAX
_MOST_COUNT: Final = 2**16
_MOST_STEP: Final = 2**31
_UNITS: Final = tuple((digits, 10**digits) for digits in (2, 4, 6, 8))
_MOST_SCALED: Final = 2**32
_MOST_ABOVE: Final = 2**16
_FLAGS: Final = Struct("<BH")
_STRUCTS_KEPT: Final = 4_096
"""There are many combinations of flags, and few are in use. But Redis may hold any."""
_SEQUENCES: Final = Struct(f"<{_FLAGS.size}xQi")
_LARGE_SEQUENCES: Final = Struct(f"<{_FLAGS.size}xQq")
_COUNTS: Final = Struct(f"<{_FLAGS.size}x8x4x2x2xH")
_LARGE_COUNTS: Final = Struct(f"<{_FLAGS.size}x8x8x2x2xQ")

HEAD: Final = 21
"""The first bytes of a bar, which all bars have: up to the count, unless it is large."""
SEQUENCE_AT: Final = 3
STEP_AT: Final = 11
COUNT_AT: Final = 19
"""Where these begin in a bar that is not large: 8, 4 and 2 bytes."""


@lru_cache(_STRUCTS_KEPT)
def _struct(flags: int) -> Struct:
    step, count = ("q", "Q") if flags & LARGE else ("i", "H")
    counts = 1 + bool(flags & _TRADED and not flags & _ALL_TOLD)
    others = (not flags & _FLAT) + (not flags & _OPEN_IS_KNOWN) + (not flags & _CLOSE_IS_KNOWN)
    prices = f"BI{others}H" if flags & _SCALED else f"{1 + others}d"
    doubles = int(not flags & _FLAT)
    if flags & _TRADED:
        doubles += (not flags & _NO_REST) + (not flags & _QUOTE_AT_MIN)
        if flags & _SIDED:
            doubles += (not flags & _NONE_BOUGHT) + (not flags & _NONE_SOLD)
        if flags & _LAST_TOLD:
            doubles += not flags & _LAST_IS_ALL
    return Struct(f"<BHQ{step}HH{counts}{count}{prices}{doubles}d")


def pack_bar(bar: Bar, second: int) -> bytes:
    """The bar of the second that starts at `second` (ms)."""
    lowest, highest = bar.min, bar.max
    step = bar.close_sequence - bar.open_sequence
    flags = 0 if bar.count < _MOST_COUNT and -_MOST_STEP <= step < _MOST_STEP else LARGE
    if lowest == highest:
        flags |= _FLAT
        prices: list[float] | list[int] = [lowest]
        doubles = []
    else:
        prices, doubles = [lowest, highest], [bar.average]
        if bar.open == lowest:
            flags |= _OPEN_IS_MIN
        elif bar.open == highest:
            flags |= _OPEN_IS_MAX
        else:
            prices.append(bar.open)
        if bar.close == lowest:
            flags |= _CLOSE_IS_MIN
        elif bar.close == highest:
            flags |= _CLOSE_IS_MAX
        else:
            prices.append(bar.close)
    counts = [bar.count]
    if bar.traded is not None:
        flags |= _pack_traded(bar.traded, bar, doubles, counts)
    if not flags & _FLAT and (scaled := _scale(prices)) is not None:
        flags |= _SCALED
        prices = scaled
    return _struct(flags).pack(
        FORM,
        flags,
        bar.open_sequence,
        step,
        bar.open_time - second,
        bar.close_time - second,
        *counts,
        *prices,
        *doubles,
    )


def _scale(prices: Sequence[float]) -> list[int] | None:
    """The number of digits, the lowest, and how much greater the others are; None if they do not fit."""
    lowest, *others = prices
    for digits, unit in _UNITS:
        if lowest * unit >= _MOST_SCALED or (others[0] - lowest) * unit >= _MOST_ABOVE:
            return None
        least = round(lowest * unit)
        if least / unit != lowest:
            continue
        scaled = [digits, least]
        for price in others:
            above = round(price * unit) - least
            if (least + above) / unit != price or not 0 <= above < _MOST_ABOVE:
                break
            scaled.append(above)
        else:
            return scaled if least < _MOST_SCALED else None
    return None


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
        if form != FORM:
            raise ValueError(packed[:80])
        take = iter(_struct(flags).unpack(packed)).__next__
    except error as cause:
        raise ValueError(packed[:80]) from cause
    take(), take()  # form and flags
    opening, step, first, last, count = take(), take(), take(), take(), take()
    told = take() if flags & _TRADED and not flags & _ALL_TOLD else count
    lowest, highest, opened, closed = _unpack_prices(flags, take)
    average = lowest if flags & _FLAT else take()
    traded, last_volume = _unpack_traded(flags, take, told, lowest) if flags & _TRADED else (None, None)
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


def count_of(packed: bytes) -> int:
    """The number of updates in a packed bar. Nothing else of it is read."""
    (count,) = (_LARGE_COUNTS if packed[1] & LARGE else _COUNTS).unpack_from(packed)
    return int(count)


def last_sequence(packed: bytes) -> int:
    """The greatest sequence in a packed bar. Nothing else of it is read."""
    opening, step = (_LARGE_SEQUENCES if packed[1] & LARGE else _SEQUENCES).unpack_from(packed)
    return int(max(opening, opening + step))


def _unpack_prices(flags: int, take: Callable[[], float]) -> tuple[float, float, float, float]:
    """The lowest, the highest, the first and the last."""
    if flags & _SCALED:
        unit, least = 10 ** take(), take()
        lowest = least / unit

        def other() -> float:
            return (least + take()) / unit

    else:
        lowest, other = take(), take
    highest = lowest if flags & _FLAT else other()
    opened = lowest if flags & (_FLAT | _OPEN_IS_MIN) else highest if flags & _OPEN_IS_MAX else other()
    closed = lowest if flags & (_FLAT | _CLOSE_IS_MIN) else highest if flags & _CLOSE_IS_MAX else other()
    return lowest, highest, opened, closed


def _unpack_traded(
    flags: int, take: Callable[[], float], told: int, lowest: float
) -> tuple[Traded, float | None]:
    """What was traded, and the volume of the last update."""
    bought = sold = last = None
    if flags & _SIDED:
        bought = 0.0 if flags & _NONE_BOUGHT else take()
        sold = 0.0 if flags & _NONE_SOLD else take()
    rest = 0.0 if flags & _NO_REST else take()
    traded = Traded(told, rest, 0.0, bought, sold)
    quote = traded.volume * lowest if flags & _QUOTE_AT_MIN else take()
    if flags & _LAST_TOLD:
        last = traded.volume if flags & _LAST_IS_ALL else take()
    return replace(traded, quote=quote), last
