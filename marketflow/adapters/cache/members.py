"""The form of what is in Redis: members of the sorted sets, fields of the bars, and the protocol's bytes.

A flush is encoded once, into the Redis serialization protocol (RESP2), by bytes templates that take a whole
run of updates at a time: this is the hot path, and `%` on a prepared template is several times quicker than
packing argument by argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import msgspec
import structlog

from marketflow.app.ports import Field, Written
from marketflow.domain.bars import Bar
from marketflow.domain.prices import Pair, PriceUpdate

log = structlog.get_logger()
T = TypeVar("T")

SEQUENCE_DIGITS: Final = 16
"""Sequences are padded to that, so that equal prices of equal score come in the order of receipt."""
MEMBERS_PER_COMMAND: Final = 1_000
"""A ZADD of more would hold Redis up."""


def window_key(pair: Pair) -> str:
    """The sorted set of an exchange and symbol."""
    return f"prices:{pair[0]}:{pair[1]}"


def bars_key(pair: Pair) -> str:
    """The hash of one-second bars of an exchange and symbol."""
    return f"bars:{pair[0]}:{pair[1]}"


# ---- members: <price>:<sequence>:<boot>, score = timestamp ----


def read_member(pair: Pair, member: bytes, score: float) -> PriceUpdate:
    """The update that a member of the window stands for.

    Raises:
        ValueError, OverflowError: it is not of our form.
    """
    price, sequence, _ = member.split(b":")
    return PriceUpdate(pair[0], pair[1], float(price), int(score), int(sequence))


def read_edge(pair: Pair, reply: Sequence[bytes]) -> Bar | None:
    """The bar of members and scores in turn, ordered by score as Redis gives them; None of none."""
    try:
        return _edge(reply)
    except (ValueError, OverflowError):
        # Somebody else's are among them: one by one, to leave those out.
        ours = [(member, score) for member, score in in_twos(reply) if _update_of(pair, member, score)]
        return _edge([item for both in ours for item in both])


def _edge(reply: Sequence[bytes]) -> Bar | None:
    """By columns: there may be hundreds of thousands.

    Raises:
        ValueError, OverflowError: not all of them are of our form.
    """
    if not reply:
        return None
    members, scores = [member.split(b":") for member in reply[0::2]], reply[1::2]
    prices = [float(price) for price, _, _ in members]
    # Equal scores come ordered by text. The order of receipt decides, at the first and the last timestamp.
    count = len(scores)
    first = next((place for place in range(count) if scores[place] != scores[0]), count)
    last = next((place for place in range(count - 1, -1, -1) if scores[place] != scores[-1]), -1)
    opening, opened = min((int(members[place][1]), place) for place in range(first))
    closing, closed = max((int(members[place][1]), place) for place in range(last + 1, count))
    bar = Bar.of([0] * count, prices)
    return Bar(
        count,
        bar.average,
        bar.min,
        bar.max,
        prices[opened],
        int(float(scores[0])),
        opening,
        prices[closed],
        int(float(scores[-1])),
        closing,
    )


def read_newest(pair: Pair, reply: Sequence[bytes]) -> PriceUpdate | None:
    """The newest of members and scores in turn; None of none."""
    updates = _read_members(pair, reply)
    return max(updates, key=lambda update: (update.timestamp, update.sequence)) if updates else None


def in_twos(reply: Iterable[T]) -> Iterable[tuple[T, T]]:
    """The items two by two."""
    following = iter(reply)
    return zip(following, following, strict=True)


def _read_members(pair: Pair, reply: Sequence[bytes]) -> list[PriceUpdate]:
    found = (_update_of(pair, member, score) for member, score in in_twos(reply))
    return [update for update in found if update is not None]


def _update_of(pair: Pair, member: bytes, score: bytes) -> PriceUpdate | None:
    try:
        return read_member(pair, member, float(score))
    except (ValueError, OverflowError):
        # Somebody else wrote it. It is not counted, and must not hide what is ours.
        log.warning("not a member of ours", key=window_key(pair), member=repr(member[:80]))
        return None


def pack_updates(boot: bytes, runs: Iterable[Written]) -> tuple[bytes, int]:
    """Variadic ZADD commands for runs of one exchange and symbol; returns their bytes and number."""
    timestamps: list[int] = []
    prices: list[float] = []
    sequences: list[int] = []
    pair = ("", "")
    for run in runs:
        pair = (run.exchange, run.symbol)
        timestamps += run.timestamps
        prices += run.prices
        sequences += run.sequences
    key = window_key(pair).encode()
    commands = []
    for first in range(0, len(timestamps), MEMBERS_PER_COMMAND):
        part = slice(first, first + MEMBERS_PER_COMMAND)
        commands.append(_zadd(key, boot, timestamps[part], prices[part], sequences[part]))
    return b"".join(commands), len(commands)


def _zadd(
    key: bytes, boot: bytes, timestamps: Sequence[int], prices: Sequence[float], sequences: Sequence[int]
) -> bytes:
    count = len(timestamps)
    # All prices to their shortest exact text at once.
    texts = msgspec.json.encode(prices)[1:-1].split(b",")
    scores = msgspec.json.encode(timestamps)[1:-1].split(b",")
    rest = 1 + SEQUENCE_DIGITS + 1 + len(boot)
    flat: list[object] = [None] * (5 * count)
    flat[0::5] = map(len, scores)
    flat[1::5] = scores
    flat[2::5] = [len(text) + rest for text in texts]
    flat[3::5] = texts
    flat[4::5] = sequences
    head = b"*%d\r\n$4\r\nZADD\r\n$%d\r\n%b\r\n" % (2 + 2 * count, len(key), key)
    template = b"$%%d\r\n%%b\r\n$%%d\r\n%%b:%%0%dd:%b\r\n" % (SEQUENCE_DIGITS, boot)
    return head + template * count % tuple(flat)


# ---- bars: field <second>:<boot>, value a JSON array ----


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


def bar_value(bar: Bar) -> bytes:
    """A bar as it is stored."""
    return msgspec.json.encode(
        (
            bar.count,
            bar.average,
            bar.min,
            bar.max,
            bar.open,
            bar.open_time,
            bar.open_sequence,
            bar.close,
            bar.close_time,
            bar.close_sequence,
        )
    )


_BAR: Final = msgspec.json.Decoder(tuple[int, float, float, float, float, int, int, float, int, int])


def read_bar(value: bytes) -> Bar:
    """A bar as it was stored.

    Raises:
        ValueError: it is not of our form.
    """
    return Bar(*_BAR.decode(value))


def read_bars(pair: Pair, values: Iterable[tuple[bytes, bytes]]) -> dict[Field, Bar]:
    """Bars by field, of fields and values."""
    bars: dict[Field, Bar] = {}
    for name, value in values:
        try:
            bars[read_field(name)] = read_bar(value)
        except ValueError:
            log.warning("not a bar of ours", key=bars_key(pair), field=repr(name[:80]))
    return bars


def pack(*arguments: bytes) -> bytes:
    """One command in RESP."""
    return b"*%d\r\n" % len(arguments) + b"".join(
        b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments
    )
