"""Trades with ids: each is taken in once, and those that never come are counted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from marketflow.app.ports import Batch, Identity, Updates
from marketflow.app.share import trades as module
from marketflow.app.share.book import Book
from marketflow.app.share.trades import (
    GAP_SECONDS,
    GAPS_KEPT,
    IDS_KEPT,
    AllTrades,
    Gaps,
    SymbolTrades,
    Trades,
)
from marketflow.domain.bars import in_seconds
from marketflow.domain.columns import Columns

NOON = 1_795_343_340_000
EXCHANGE, SYMBOL = "krk", "BTCUSDT"


def columns_of(trades):
    """The columns of (id, timestamp) pairs; the price is the id's number."""
    return Columns(
        [timestamp for _, timestamp in trades],
        [float(number) for number, _ in trades],
        [1.0] * len(trades),
        ["buy"] * len(trades),
        [str(number) for number, _ in trades],
    )


def batch_of(
    *trades,
    number=0,
    received_at=NOON,
    received_monotonic=0.0,
    asked_at=NOON,
    contiguous=False,
    symbol=SYMBOL,
    rejected=None,
    ignored_volumes=0,
    **of_identity,
):
    columns = columns_of(trades)
    return Batch(
        exchange=EXCHANGE,
        number=number,
        received=len(trades) + sum((rejected or {}).values()),
        rejected=rejected or {},
        updates=[Updates(symbol, columns, in_seconds(columns))] if trades else [],
        received_at=received_at,
        received_monotonic=received_monotonic,
        ignored_volumes=ignored_volumes,
        identity=Identity(asked_at, contiguous=contiguous, **of_identity),
    )


def ids_of(batch):
    return [number for updates in batch.updates for number in updates.columns.ids]


def sifted(trades, batch):
    return trades.sifted(batch, batch.identity)


def test_a_trade_that_came_before_is_a_duplicate():
    trades = Trades(EXCHANGE)
    first = batch_of((1, NOON), (2, NOON + 1))
    assert sifted(trades, first) is first

    again = sifted(trades, batch_of((2, NOON + 1), (3, NOON + 1_500), (1, NOON), rejected={"price": 1}))

    assert ids_of(again) == ["3"]
    assert again.rejected == {"price": 1, "duplicate": 2}
    assert again.received == again.accepted + sum(again.rejected.values())
    assert again.updates[0].bars == in_seconds(columns_of([(3, NOON + 1_500)]))


def test_a_batch_of_duplicates_has_no_updates():
    trades = Trades(EXCHANGE)
    sifted(trades, batch_of((1, NOON)))
    again = sifted(trades, batch_of((1, NOON), (1, NOON)))
    assert (again.updates, again.accepted, again.rejected) == ([], 0, {"duplicate": 2})


def test_a_trade_may_come_twice_in_a_batch():
    assert ids_of(sifted(Trades(EXCHANGE), batch_of((1, NOON), (1, NOON)))) == ["1"]


def test_symbols_have_ids_of_their_own():
    trades = Trades(EXCHANGE)
    sifted(trades, batch_of((1, NOON)))
    assert ids_of(sifted(trades, batch_of((1, NOON), symbol="ETHUSDT"))) == ["1"]


def test_an_old_trade_that_comes_first_is_not_new():
    """Some exchanges send the last trade again when they are asked for trades."""
    trades = Trades(EXCHANGE)
    found = sifted(trades, batch_of((1, NOON - 25_000), (2, NOON)))
    assert (ids_of(found), found.rejected) == (["2"], {"duplicate": 1})


def test_trades_are_old_until_one_comes_that_is_not():
    """Each may come in a message of its own. A trade that is late by a moment is not old."""
    trades = Trades(EXCHANGE)
    for number in (1, 2):
        assert ids_of(sifted(trades, batch_of((number, NOON - 3_000 + number)))) == []
    assert ids_of(sifted(trades, batch_of((3, NOON)))) == ["3"]
    assert ids_of(sifted(trades, batch_of((4, NOON - 10)))) == ["4"]


def test_trades_are_not_old_because_the_clock_was_ahead_at_the_question():
    trades = Trades(EXCHANGE)
    ahead = NOON + 86_400_000
    sifted(trades, batch_of((1, NOON), asked_at=ahead, received_at=ahead))
    found = sifted(trades, batch_of((2, NOON), (3, NOON + 2_000), asked_at=ahead, received_at=NOON + 2_000))
    assert (ids_of(found), found.rejected) == (["3"], {"duplicate": 1})


def test_a_volume_of_a_duplicate_is_not_counted_as_ignored():
    """It is of no update that counts."""
    trades = Trades(EXCHANGE)
    sifted(trades, batch_of((1, NOON), ignored_volumes=1, ignored={SYMBOL: {0}}))
    again = batch_of((1, NOON), (2, NOON), (3, NOON), ignored_volumes=2, ignored={SYMBOL: {0, 2}})
    assert sifted(trades, again).ignored_volumes == 1


def test_of_a_trade_that_comes_twice_in_a_batch_only_the_first_volume_matters():
    for place, ignored in ((0, 1), (1, 0)):
        batch = batch_of((1, NOON), (1, NOON), ignored_volumes=1, ignored={SYMBOL: {place}})
        assert sifted(Trades(EXCHANGE), batch).ignored_volumes == ignored


def test_what_was_traded_while_we_were_away_is_new():
    """Old is what was traded before the exchange was asked for the first time, not for the last time."""
    trades = Trades(EXCHANGE)
    sifted(trades, batch_of((1, NOON), symbol="ETHUSDT"))
    later = batch_of((1, NOON + 10_000), asked_at=NOON + 60_000)
    assert ids_of(sifted(trades, later)) == ["1"]


def test_trades_of_an_earlier_boot_are_known():
    """Those whose ids are not known are old, too, if they were made before this boot asked."""
    trades = AllTrades()
    trades.know({(EXCHANGE, SYMBOL): ["7"], (EXCHANGE, "ETHUSDT"): []})
    found = sifted(trades.of(EXCHANGE), batch_of((7, NOON + 2_000), (6, NOON - 90_000), (8, NOON)))
    assert (ids_of(found), found.rejected) == (["8"], {"duplicate": 2})


def test_ids_that_are_kept_are_bounded():
    symbol = SymbolTrades()
    for number in range(3):
        first = number * IDS_KEPT
        symbol.new(columns_of([(each, NOON) for each in range(first, first + IDS_KEPT)]), not_before=NOON)
    assert len(symbol.ids) == IDS_KEPT
    assert symbol.new(columns_of([(3 * IDS_KEPT - 1, NOON)]), not_before=NOON) == []


def test_ids_of_many_symbols_are_bounded_together(monkeypatch):
    monkeypatch.setattr(module, "EXCHANGE_IDS_KEPT", 100)
    trades = Trades(EXCHANGE)
    for number in range(50):
        for symbol in ("A", "B", "C", "D"):
            sifted(trades, batch_of((number, NOON), symbol=symbol))
            assert sum(len(each.ids) for each in trades._symbols.values()) <= 100
    assert ids_of(sifted(trades, batch_of((49, NOON), symbol="A"))) == []


@given(st.lists(st.lists(st.integers(0, 20), max_size=8), max_size=8))
def test_each_id_is_taken_in_once(chunks):
    """However they are sent, in which chunks and how often."""
    trades, taken, counted = Trades(EXCHANGE), Counter(), 0
    for number, chunk in enumerate(chunks):
        found = sifted(trades, batch_of(*[(each, NOON + each) for each in chunk], number=number))
        taken.update(ids_of(found))
        counted += found.rejected.get("duplicate", 0)
    sent = Counter(str(each) for chunk in chunks for each in chunk)
    assert taken == Counter(set(sent))
    assert counted == sent.total() - len(sent)


async def test_the_book_counts_duplicates(autojump_clock):
    book = Book(boot="b", limits={EXCHANGE: 100}, window_length=60_000, replay_memory=0, interval=60_000)
    book.begin(NOON)
    await book.enter(batch_of((1, NOON), (2, NOON), number=0))
    await book.enter(batch_of((2, NOON), (3, NOON), number=1))
    ledger = book.ledgers[EXCHANGE]
    assert (ledger.received, ledger.accepted, ledger.rejected) == (4, 3, {"duplicate": 1})


# ---- gaps ----


@pytest.mark.parametrize(
    ("ids", "missing"),
    [
        ([5, 6, 7], 0),
        ([5, 7], 1),
        ([5, 9, 10], 3),
        ([5, 7, 6], 0),
        ([5, 8, 6], 1),
        ([5, 4, 6], 0),
        ([5, 5, 6], 0),
    ],
)
def test_ids_that_never_come_are_counted(ids, missing):
    """Not before some seconds: trades need not come in order."""
    gaps = Gaps()
    for number in ids:
        gaps.came(number, 0.0)
    assert gaps.give_up(GAP_SECONDS - 0.001) == 0
    assert gaps.give_up(GAP_SECONDS) == gaps.lost == missing


@given(st.lists(st.integers(0, 60), min_size=1))
def test_gaps_are_what_has_not_come(ids):
    """In any order: of the ids behind the first one those that never came."""
    gaps = Gaps()
    for number in ids:
        gaps.came(number, 0.0)
    assert gaps.give_up(GAP_SECONDS) == len(set(range(ids[0], max(ids) + 1)) - set(ids))


def test_great_and_many_gaps_take_little_memory():
    gaps = Gaps()
    for number in range(0, 10 * GAPS_KEPT * 1_000, 1_000):
        gaps.came(number, 0.0)
    assert gaps.give_up(0.0) == 999 * (9 * GAPS_KEPT - 1)
    assert len(gaps._open) == GAPS_KEPT


@pytest.mark.parametrize("number", [10**17, 5])
def test_an_exchange_that_counts_again_has_no_gap(number):
    gaps = Gaps()
    gaps.came(10**8, 0.0)
    for each in (number, number + 1, number + 3):
        gaps.came(each, 0.0)
    assert gaps.give_up(GAP_SECONDS) == 1


@pytest.mark.parametrize("step", [-86_400_000, 86_400_000])
async def test_a_step_of_the_wall_clock_changes_no_gap(autojump_clock, step):
    trades = Trades(EXCHANGE)
    sifted(trades, batch_of((1, NOON), (3, NOON), contiguous=True))
    sifted(trades, batch_of((4, NOON), contiguous=True, received_at=NOON + step, received_monotonic=4.0))
    assert trades.missing == 0
    sifted(trades, batch_of((5, NOON), contiguous=True, received_at=NOON + step, received_monotonic=5.0))
    assert trades.missing == 1


def test_an_id_that_comes_with_a_rejected_trade_is_not_missing():
    """Even if it comes together with the trade after which it would be given up."""
    trades = Trades(EXCHANGE)
    sifted(trades, batch_of((1, NOON), (3, NOON), contiguous=True))
    last = batch_of((4, NOON), contiguous=True, received_monotonic=5.0, others={SYMBOL: ["2"]})
    sifted(trades, last)
    assert trades.missing == 0


async def test_missing_trades_are_told():
    trades = Trades(EXCHANGE)
    with capture_logs() as logs:
        sifted(trades, batch_of((1, NOON), (4, NOON), contiguous=True))
        sifted(trades, batch_of((5, NOON), contiguous=True, received_monotonic=GAP_SECONDS))
    assert trades.missing == 2
    assert [line["event"] for line in logs] == ["trades missing"]


def test_ids_that_are_not_contiguous_have_no_gaps():
    trades = Trades(EXCHANGE)
    sifted(trades, batch_of((1, NOON), (4, NOON)))
    sifted(trades, batch_of((5, NOON), received_monotonic=GAP_SECONDS))
    assert trades.missing == 0


@given(
    chunks=st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 6)).map(
            lambda span: [str(number) for number in range(span[0], sum(span))]
        )
        | st.lists(st.none() | st.sampled_from(["5", "05", "x", "7"]), max_size=3),
        max_size=8,
    )
)
def test_ids_together_leave_the_gaps_that_they_leave_one_by_one(chunks):
    together, apart = Gaps(), Gaps()
    for now, chunk in enumerate(chunks):
        together.all_came(chunk, now)
        for number in chunk:
            if number is not None and number.isdecimal():
                apart.came(int(number), now)
        assert (together.give_up(10**6), together.lost) == (apart.give_up(10**6), apart.lost)


def test_trades_that_are_all_new_are_found_together_and_then_known():
    trades = SymbolTrades(is_current=True)
    columns = Columns([1, 2], [1.0, 1.0], ids=["1", "2"])
    assert trades.new(columns, not_before=0) == [0, 1]
    assert trades.new(columns, not_before=0) == []
    assert trades.new(Columns([3, 3], [1.0, 1.0], ids=["3", "3"]), not_before=0) == [0]
    assert trades.new(Columns([4, 4], [1.0, 1.0], ids=[None, "4"]), not_before=0) == [0, 1]
    assert [*trades.ids] == ["1", "2", "3", "4"]
