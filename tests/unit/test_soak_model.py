"""The soak detects faults: tests of its model of rows, and of its plan."""

from __future__ import annotations

import math
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEY = ("BTCUSDT", "exchange1", 5_000)
ONE, OTHER = ["exchange1", 1, 0, 10, 1_000], ["exchange1", 1, 10, 10, 4_900]
"""Ten lines each, of two symbols in turn."""


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return import_module("tests.soak.model")


@pytest.fixture
def model(soak):
    made = soak.Model(["BTCUSDT", "ETHUSDT"], 5_000)
    made.add({"blocks": [ONE, OTHER], "ended": []})
    return made


@pytest.fixture
def sent(model):
    """The updates of BTCUSDT: every other line."""
    return model.lines[0:20:2]


def row(sent):
    prices = [price for price, _, _ in sent]
    told = [each for each in sent if each[1] is not None]
    bought, sold = (math.fsum(each[1] for each in told if each[2] == side) for side in ("buy", "sell"))
    sums = math.fsum(each[1] for each in told), math.fsum(each[0] * each[1] for each in told), bought, sold
    return (
        math.fsum(prices) / len(prices),
        min(prices),
        max(prices),
        prices[0],
        prices[-1],
        len(prices),
        *(sums if told else [None] * 4),
        len(told),
    )


def test_some_lines_tell_volumes_and_sides(model):
    told = Counter((volume is not None, side is not None) for _, volume, side in model.lines)
    assert told.keys() == {(True, True), (True, False), (False, False)}
    assert min(told.values()) > len(model.lines) / 10


def test_a_row_of_all_that_was_sent_is_right(soak, model, sent):
    assert list(model.keys(5_000)) == [KEY, ("ETHUSDT", "exchange1", 5_000)]
    assert list(model.keys(4_999)) == []
    assert model.judge(KEY, row(sent)) == soak.RIGHT
    assert model.count_of(KEY) == 10


@pytest.mark.parametrize("field", [*range(5), *range(6, 10)])
def test_any_other_number_is_wrong(soak, model, sent, field):
    wrong = list(row(sent))
    wrong[field] *= 1.0001
    assert model.judge(KEY, tuple(wrong)) not in {soak.RIGHT, soak.WAIT}


def test_another_number_of_volumes_is_wrong(soak, model, sent):
    *others, told = row(sent)
    assert model.judge(KEY, (*others, told - 1)) not in {soak.RIGHT, soak.WAIT}


def test_an_update_counted_twice_is_wrong(soak, model, sent):
    assert model.judge(KEY, row([*sent, sent[-1]])) == "1 updates more than were sent"


def test_what_is_missing_is_waited_for(soak, model, sent):
    """In the end nothing may be missing, unless the connection was broken."""
    assert model.judge(KEY, None) == soak.WAIT
    assert model.judge(KEY, row(sent[:-1])) == soak.WAIT
    model.add({"blocks": [], "ended": [["exchange1", 1, 4_950, True]]})
    assert model.judge(KEY, row(sent[:-1])) == soak.WAIT


def test_where_a_connection_was_torn_its_last_updates_may_be_missing(soak, model, sent):
    """Only the last ones, and only within the margin."""
    model.add({"blocks": [], "ended": [["exchange1", 1, 4_950, False]]})
    assert model.judge(KEY, row(sent)) == soak.RIGHT
    assert model.judge(KEY, row(sent[:-2])) == soak.RIGHT
    assert model.longest_missing == 50
    assert model.judge(KEY, row(sent[:-3] + sent[-2:])) == soak.WAIT
    assert model.judge(KEY, row(sent[:4])) == soak.WAIT
    assert model.judge(KEY, None) == soak.WAIT


@pytest.mark.parametrize(
    ("starved", "missing"), [(0.0, 50), (0.5, 50), (0.75, 250), (0.9, 250), (1.0, 1_500)], ids=str
)
def test_what_may_be_missing_is_the_promise_and_the_time_without_a_processor(soak, starved, missing):
    """A flusher that waits for 0.3 s is detected; starvation by the machine is not a fault."""
    blocks = [["exchange1", 1, 2 * number, 2, 4_950 - ago] for number, ago in enumerate((1_500, 250, 50))]
    model = soak.Model(["BTCUSDT", "ETHUSDT"], 5_000, lambda start, end: starved * (end - start))
    model.add({"blocks": [[*ONE[:4], 100], *blocks], "ended": [["exchange1", 1, 4_950, False]]})
    sent, _ = model.updates("BTCUSDT", "exchange1", 5_000)
    for number, ago in enumerate((50, 250, 1_500), 1):
        verdict = model.judge(KEY, row(sent[:-number]))
        assert verdict == (soak.RIGHT if ago <= missing else soak.WAIT), ago


def test_two_connections_torn_in_one_interval(soak, model, sent):
    model.add(
        {
            "blocks": [["exchange1", 2, 20, 10, 4_960]],
            "ended": [["exchange1", 1, 4_950, False], ["exchange1", 2, 4_990, False]],
        }
    )
    more = model.lines[20:30:2]
    assert model.judge(KEY, row(sent[:-2] + more[:-1])) == soak.RIGHT
    assert model.judge(KEY, row(sent[:-2] + more[1:])) == soak.WAIT


def test_the_seed_alone_decides_the_faults(soak):
    plan = import_module("tests.soak.plan")
    assert plan.plan(7, 300) == plan.plan(7, 300)
    assert plan.plan(7, 300) != plan.plan(8, 300)
    for seed in range(7, 27):
        kinds = Counter(fault.kind for fault in plan.plan(seed, 600))
        assert kinds.keys() == {*plan.CRASHES, *plan.FAULTS}
        assert kinds[plan.KILL] + kinds["kill_postgres_frozen"] >= 50
