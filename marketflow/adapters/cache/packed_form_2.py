"""Form 2 of a bar in Redis, which was written between the versions 0.1 and 0.2. It is only read.

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
Numbers are little-endian, prices IEEE 754 doubles, the step signed, the others unsigned.
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


def _struct(flags: int) -> Struct:
    prices = 1 if flags & _FLAT else 3
    prices += not flags & (_FLAT | _OPEN_IS_MIN | _OPEN_IS_MAX)
    prices += not flags & (_FLAT | _CLOSE_IS_MIN | _CLOSE_IS_MAX)
    return Struct(f"<BB{prices}dQ{'qQ' if flags & _LARGE else 'iH'}HH")


_STRUCTS: Final = tuple(_struct(flags) for flags in range(_ALL))


def unpack_form_2(packed: bytes, second: int) -> Bar:
    """The bar of the second that starts at `second` (ms). What its numbers say is not checked.

    Raises:
        ValueError: it is not of this form.
    """
    try:
        flags = packed[1]
        _, _, *prices, opening, step, count, first, last = _STRUCTS[flags].unpack(packed)
    except (IndexError, error) as cause:
        raise ValueError(packed[:80]) from cause
    if flags & _FLAT:
        (lowest,) = prices
        average = highest = opened = closed = lowest
    else:
        lowest, average, highest, *others = prices
        opened = lowest if flags & _OPEN_IS_MIN else highest if flags & _OPEN_IS_MAX else others[0]
        closed = lowest if flags & _CLOSE_IS_MIN else highest if flags & _CLOSE_IS_MAX else others[-1]
    return Bar(
        *(count, average, lowest, highest),
        *(opened, second + first, opening),
        *(closed, second + last, opening + step),
    )
