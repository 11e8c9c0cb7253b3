"""The one-second bars in Redis: hashes with a field `<second>:<boot>` for each, in three forms.

Form 3 is written, see `marketflow.domain.packed_bars`. Forms 1 and 2 are only read: a JSON array
of the same numbers, of version 0.1, and `marketflow.adapters.cache.packed_form_2`. A value begins with its
form: the byte 3 or 2, or `[` for form 1. Other bytes below 32 are for the forms of later versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from marketflow.adapters.cache.field_order import FieldOrder
from marketflow.adapters.cache.foreign import Ignored, LaterForm
from marketflow.adapters.cache.keys import Keys
from marketflow.adapters.cache.members import bulk, key_argument
from marketflow.adapters.cache.packed_form_2 import FORM as FORM_2
from marketflow.adapters.cache.packed_form_2 import unpack_form_2
from marketflow.app.ports import Field
from marketflow.app.share.foreign_bars import is_foreign
from marketflow.domain.bars import BAR_WIDTH, Bar
from marketflow.domain.packed_bars import FORM, pack_bar, unpack_bar
from marketflow.domain.packed_minute import PackedMinute, by_minute
from marketflow.domain.prices import Pair

_LATER: Final = range(FORM + 1, 32)
"""First bytes of the forms of later versions."""
_JSON: Final = msgspec.json.Decoder(tuple[int, float, float, float, float, int, int, float, int, int])
_JSON_BEGIN: Final = ord("[")


def field_name(field: Field) -> bytes:
    """The name of a bar's field."""
    return b"%d:%b" % (field[0] // 1_000, field[1].encode())


def read_field(name: bytes) -> Field:
    """The second (ms) and boot of a field.

    Raises:
        ValueError: it is not of our form.
    """
    second, boot = name.split(b":")
    return int(second) * 1_000, boot.decode()


def pack_items(bars: Iterable[tuple[Pair, Field, Bar]]) -> dict[Pair, list[bytes]]:
    """The field and the value of each bar, packed as arguments of a command, by exchange and symbol."""
    names: dict[Field, bytes] = {}
    """The names of fields so far. Usually all bars are of the same second."""
    items: dict[Pair, list[bytes]] = {}
    for pair, field, bar in bars:
        if field not in names:
            names[field] = bulk(field_name(field))
        if pair not in items:
            items[pair] = []
        value = pack_bar(bar, field[0])
        items[pair].append(b"%b$%d\r\n%b\r\n" % (names[field], len(value), value))
    return items


def pack_bars(items: Mapping[Pair, Sequence[bytes]], keys: Keys) -> tuple[bytes, Sequence[bytes]]:
    """The HSET commands for packed items, and the key of each command."""
    names = [keys.bars(pair) for pair in items]
    pieces: list[bytes] = []
    for key, of_pair in zip(names, items.values(), strict=True):
        pieces += b"*%d\r\n$4\r\nHSET\r\n%b" % (2 + 2 * len(of_pair), key_argument(key)), *of_pair
    return b"".join(pieces), names


def read_bar(value: bytes, second: int) -> Bar:
    """The bar of a second (its start in ms) as it was stored, in any form.

    Raises:
        LaterForm: a later version has written it.
        ValueError: it is of no form of ours, or no boot can have made it.
    """
    begin = value[0] if value else 0
    if begin in _LATER:
        raise LaterForm(begin)
    if begin == _JSON_BEGIN:
        bar = Bar(*_JSON.decode(value))
    else:
        bar = unpack_form_2(value, second) if begin == FORM_2 else unpack_bar(value, second)
    if is_foreign(bar, second, BAR_WIDTH):
        raise ValueError(value[:80])
    return bar


def read_bars(pair: Pair, values: Iterable[tuple[bytes, bytes]], ignored: Ignored) -> dict[Field, Bar]:
    """Bars by field, read from fields and values. What is no bar of ours is ignored."""
    bars: dict[Field, Bar] = {}
    for name, value in values:
        try:
            field = read_field(name)
            bars[field] = read_bar(value, field[0])
        except ValueError as error:
            ignored.add(pair, name, error)
    return bars


def read_minutes(
    pair: Pair, values: Mapping[bytes, bytes], order: FieldOrder, ignored: Ignored
) -> dict[int, PackedMinute]:
    """Bars by minute, from the fields of a hash. There may be millions.

    If all are in form 3, no more than their heads is looked at. Otherwise each is read, and foreign ones are
    ignored.
    """
    try:
        return order.minutes(values)
    except ValueError:
        return by_minute(read_bars(pair, values.items(), ignored))


def is_bar(name: bytes, value: bytes) -> bool:
    """Whether this is the field and the value of a bar, in any form."""
    try:
        read_bar(value, read_field(name)[0])
    except LaterForm:
        return True
    except ValueError:
        return False
    return True
