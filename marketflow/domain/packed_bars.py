"""A one-second bar in few bytes: form 2 of a bar. Form 1 is a JSON array.

```
byte 0     the form: 2
byte 1     flags: which of the fields below are there
           1    flat: all prices are equal. There is one price, and no others
           2    `open` is `min`      4    `open` is `max`
           8    `close` is `min`    16    `close` is `max`
           32   large: `count` and the step to the closing sequence take 8 bytes, not 2 and 4
then       min, then if not flat average, max, then if they are none of these open, close      8 bytes each
           open_sequence                                                                       8
           close_sequence - open_sequence                                                      4 or 8
           count                                                                               2 or 8
           open_time - second, close_time - second (ms)                                        2 each
```
Numbers are little-endian, prices IEEE 754 doubles, the step signed, the others unsigned. A second with one
update takes 28 bytes, one with many at most 60.
"""

from __future__ import annotations

from struct import Struct, error
from typing import Final

from marketflow.domain.bars import Bar

FORM: Final = 2

_FLAT: Final = 1
_OPEN_IS_MIN: Final = 2
_OPEN_IS_MAX: Final = 4
_CLOSE_IS_MIN: Final = 8
_CLOSE_IS_MAX: Final = 16
_LARGE: Final = 32
_ALL: Final = 64
"""Flags are less than that."""
_MOST_COUNT: Final = 2**16
_MOST_STEP: Final = 2**31


def _struct(flags: int) -> Struct:
    prices = 1 if flags & _FLAT else 3
    prices += not flags & (_FLAT | _OPEN_IS_MIN | _OPEN_IS_MAX)
    prices += not flags & (_FLAT | _CLOSE_IS_MIN | _CLOSE_IS_MAX)
    return Struct(f"<BB{prices}dQ{'qQ' if flags & _LARGE else 'iH'}HH")


_STRUCTS: Final = tuple(_struct(flags) for flags in range(_ALL))


def pack_bar(bar: Bar, second: int) -> bytes:
    """The bar of the second that starts at `second` (ms)."""
    lowest, highest = bar.min, bar.max
    step = bar.close_sequence - bar.open_sequence
    flags = 0 if bar.count < _MOST_COUNT and -_MOST_STEP <= step < _MOST_STEP else _LARGE
    rest = (bar.open_sequence, step, bar.count, bar.open_time - second, bar.close_time - second)
    if lowest == highest:
        flags |= _FLAT
        return _STRUCTS[flags].pack(FORM, flags, lowest, *rest)
    prices = [lowest, bar.average, highest]
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
    return _STRUCTS[flags].pack(FORM, flags, *prices, *rest)


def unpack_bar(packed: bytes, second: int) -> Bar:
    """The bar of the second that starts at `second` (ms). What its numbers say is not checked.

    Raises:
        ValueError: it is not of this form.
    """
    try:
        flags = packed[1]
        form, _, *prices, opening, step, count, first, last = _STRUCTS[flags].unpack(packed)
    except (IndexError, error) as cause:
        raise ValueError(packed[:80]) from cause
    if form != FORM:
        raise ValueError(packed[:80])
    if flags & _FLAT:
        (lowest,) = prices
        average = highest = opened = closed = lowest
    else:
        lowest, average, highest, *others = prices
        if flags & _OPEN_IS_MIN:
            opened = lowest
        elif flags & _OPEN_IS_MAX:
            opened = highest
        else:
            opened = others[0]
        if flags & _CLOSE_IS_MIN:
            closed = lowest
        elif flags & _CLOSE_IS_MAX:
            closed = highest
        else:
            closed = others[-1]
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
    )
