"""Bars and prices of the window's members, for questions: tens of thousands at a time, by columns."""

from __future__ import annotations

from collections.abc import Sequence
from sys import float_info

from marketflow.adapters.cache.foreign import Ignored
from marketflow.adapters.cache.members import (
    PARTS,
    in_twos,
    read_member,
    read_sequence,
    read_told,
)
from marketflow.domain.bars import Bar
from marketflow.domain.columns import Columns
from marketflow.domain.prices import Pair, PriceUpdate


def read_prices(pair: Pair, members: Sequence[bytes], ignored: Ignored) -> Sequence[float]:
    """The prices of members. Members of another form, or with a price that no update has, are ignored."""
    try:
        prices = _columns([member.split(b":") for member in members]).prices
        if not prices or (min(prices) > 0.0 and sum(prices) <= float_info.max):
            return prices
    except ValueError:
        pass
    ours = [member for member in members if _is_ours(pair, member, b"0", ignored)]
    return [float(member.partition(b":")[0]) for member in ours]


def read_updates(pair: Pair, reply: Sequence[bytes], ignored: Ignored) -> Sequence[PriceUpdate]:
    """The updates in members, which alternate with their scores. Members of another form are ignored."""
    found: list[PriceUpdate] = []
    for member, score in in_twos(reply):
        try:
            found.append(read_member(pair, member, float(score)))
        except (ValueError, OverflowError) as error:
            ignored.add(pair, member, error)
    return found


def read_edge(pair: Pair, reply: Sequence[bytes], ignored: Ignored) -> tuple[Bar | None, Sequence[int]]:
    """The bar of members, which alternate with their scores and are ordered by score, as Redis gives them.

    The bar is None if there are no members. Members of another form, or with a price that no update has, are
    not in it: their scores (ms) are returned beside it.
    """
    try:
        return _edge(reply), ()
    except (ValueError, OverflowError):
        ours: list[bytes] = []
        others: list[int] = []
        for member, score in in_twos(reply):
            if _is_ours(pair, member, score, ignored):
                ours += member, score
            else:
                others.append(int(float(score)))
        return _edge(ours), others


def _edge(reply: Sequence[bytes]) -> Bar | None:
    """By columns: there may be hundreds of thousands.

    Raises:
        ValueError, OverflowError: some members are of another form.
    """
    if not reply:
        return None
    members, scores = [member.split(b":") for member in reply[0::2]], reply[1::2]
    columns = _columns(members)
    prices = columns.prices
    # Equal scores come ordered by text. The order of receipt decides, at the first and the last timestamp.
    count = len(scores)
    first = next((place for place in range(count) if scores[place] != scores[0]), count)
    last = next((place for place in range(count - 1, -1, -1) if scores[place] != scores[-1]), -1)
    opening, opened = min((read_sequence(members[place][1]), place) for place in range(first))
    closing, closed = max((read_sequence(members[place][1]), place) for place in range(last + 1, count))
    bar = Bar.of([0] * count, prices)
    # One price that is NaN makes the average NaN, whose comparisons are false.
    if not 0.0 < bar.min <= bar.average <= bar.max <= float_info.max:
        raise ValueError("there is a price that no update has")
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
        columns.traded,
        None if columns.volumes is None else columns.volumes[closed],
    )


def _columns(members: Sequence[Sequence[bytes]]) -> Columns:
    """The prices, volumes and sides of members, given in their parts. Times are left out.

    Raises:
        ValueError: some are of another form.
    """
    prices = [float(parts[0]) for parts in members]
    lengths = set(map(len, members))
    if lengths <= {PARTS}:
        return Columns([0] * len(prices), prices)
    if min(lengths) < PARTS:
        raise ValueError("not all parts are there")
    told = [read_told(parts[PARTS:], price) for parts, price in zip(members, prices, strict=True)]
    volumes, sides = [each.volume for each in told], [each.side for each in told]
    return Columns([0] * len(prices), prices, volumes, sides)


def _is_ours(pair: Pair, member: bytes, score: bytes, ignored: Ignored) -> bool:
    try:
        read_member(pair, member, float(score))
    except (ValueError, OverflowError) as error:
        # A foreign member is not counted, and must not hide one of ours.
        ignored.add(pair, member, error)
        return False
    return True
