"""The model of trades with ids: which are accepted, which are duplicates, and which are missing."""

from __future__ import annotations

import json
import random

import pytest
import trio

from tests.simulation.exchanges import Rules, judged_trade
from tests.simulation.trades import HELD_SECONDS, KINDS, NEWEST, Numbering, Sieve, Trade, is_id, spelled

ASKED = 1_795_340_400_000
RULES = Rules(("BTCUSDT",), ASKED, 5_000, 3_000)


def take(sieve, *trades, asked_at=ASKED, wall=ASKED, malformed=0):
    """The ids that are accepted of (id, time after the question in ms) pairs, received together."""
    given = [
        Trade("BTCUSDT", ASKED + time, number, None, place) for place, (number, time) in enumerate(trades)
    ]
    return [trade.id for trade in sieve.accepted(given, malformed=malformed, asked_at=asked_at, wall=wall)]


def counted(sieve, received):
    """Duplicates and gaps."""
    return {totals[1:] for totals in sieve.totals(received)}


async def test_each_id_is_accepted_once(autojump_clock):
    sieve = Sieve("numbers", {"BTCUSDT": ["7"]})
    assert take(sieve, (7, 0), (9, 1), (8, 0), (9, 1), malformed=1) == [8, 9]
    assert take(sieve, (8, 0), (10, 5)) == [10]
    assert counted(sieve, 7) == {(3, 0)}


async def test_trades_are_old_until_one_comes_that_is_not(autojump_clock):
    sieve = Sieve("texts", {})
    assert take(sieve, ("a", -1)) == []
    assert take(sieve, ("b", 0), ("c", -1)) == ["b"]
    assert take(sieve, ("d", -1), ("c", -1), ("a", -1)) == ["d"]


async def test_a_clock_that_is_set_right_takes_the_question_with_it(autojump_clock):
    sieve = Sieve("numbers", {})
    assert take(sieve, (1, 0), asked_at=ASKED + 9_000, wall=ASKED + 9_000) == []
    assert take(sieve, (2, 0), (3, 50), asked_at=ASKED + 9_000, wall=ASKED + 50) == [3]


@pytest.mark.parametrize(("kind", "missing"), [("contiguous", 2), ("numbers", 0), ("texts", 0)])
async def test_ids_are_missing_after_five_seconds(autojump_clock, kind, missing):
    sieve = Sieve(kind, {})
    take(sieve, (1, 0), (5, 0))
    await trio.sleep(4.9)
    take(sieve, (3, 0))
    assert counted(sieve, 3) == {(0, 0)}
    await trio.sleep(0.2)
    take(sieve, (6, 0))
    assert counted(sieve, 4) == {(0, missing)}


@pytest.mark.parametrize(
    ("told", "fine"),
    [(told, True) for told in (0, 2**63 - 1, "9f", "x" * 64)]
    + [(told, False) for told in (2**63, -1, True, 1.0, None, "", "9:f", "a b", "é", "x" * 65)],
)
def test_what_can_be_an_id(told, fine):
    assert is_id(told) is fine


@pytest.mark.parametrize("kind", KINDS)
async def test_an_exchange_sends_most_trades_and_some_again(autojump_clock, kind):
    """Of what it sends all but a few are trades, and with the rest of them each is sent at least once."""
    numbering, ids = Numbering(kind, random.Random(1)), []
    text = json.dumps({"symbol": spelled("BTCUSDT"), "price": 1.5, "timestamp": ASKED})[:-1]
    for _ in range(300):
        ids += sent(numbering.lines("BTCUSDT", text))
    await trio.sleep(HELD_SECONDS[1])
    ids += sent(numbering.lines("BTCUSDT", text))
    assert 270 < len(set(ids)) <= 301
    assert len(ids) > len(set(ids)) + 10
    if kind == "contiguous":
        assert ids != sorted(ids)
        assert set(ids) < set(range(min(ids), max(ids) + 1))
        assert len(set(ids)) > 0.9 * (max(ids) - min(ids))
    newest = sent(numbering.snapshot())
    assert len(newest) <= NEWEST
    assert set(newest) <= set(ids)


def sent(lines):
    """The ids in some lines; some lines have none."""
    found = [judged_trade(line, RULES) for line in lines.splitlines()]
    return [trade.id for trade in found if trade is not None]
