"""The checks themselves: what they let pass, and what they do not."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from marketflow.adapters.cache.memory import MemoryShelf
from tests.simulation.checks import Checks
from tests.simulation.plan import SITUATION, Plan
from tests.simulation.process import Wrong
from tests.simulation.watching import Watch


def whole(*, refused=0, status="ok", redis="up", postgres="up", exchange="connected"):
    """What is not whole yet in a world with one process that measures this."""
    report = SimpleNamespace(
        status=status,
        redis=SimpleNamespace(status=redis),
        postgres=SimpleNamespace(status=postgres),
        exchanges={"exchange1": SimpleNamespace(status=exchange), "test1": SimpleNamespace(status="off")},
    )
    measured = SimpleNamespace(health=report, aggregates_refused=refused)
    process = SimpleNamespace(
        questions=SimpleNamespace(measuring=SimpleNamespace(measurements=lambda: measured))
    )
    return Checks(SimpleNamespace(serving=process, processes=[process]))._not_whole()


def test_all_is_whole():
    assert whole() == []


def test_refused_rows_excuse_the_status():
    assert whole(refused=3, status="degraded") == []
    assert whole(status="degraded")


@pytest.mark.parametrize(
    "lacking", [{"exchange": "reconnecting"}, {"exchange": "stale"}, {"redis": "away"}, {"postgres": "away"}]
)
def test_refused_rows_excuse_nothing_else(lacking):
    assert whole(refused=3, status="degraded", **lacking)


def leave(*, stopped=10, waiting=math.inf, received=5, frozen=False):
    """A feed leaves a connection. The numbers are steps."""
    process = SimpleNamespace(
        boot="b001", stopped_step=stopped, dead=False, was_frozen=frozen, switching=0, ended=None
    )
    Watch(SimpleNamespace()).check_left(
        process, SimpleNamespace(waiting_step=waiting, received_step=received)
    )


@pytest.mark.parametrize(
    "fine",
    [
        {},
        {"waiting": 10},
        {"waiting": 9, "received": 10},
        {"stopped": math.inf},
        {"waiting": 9, "frozen": True},
    ],
)
def test_what_may_be_left(fine):
    leave(**fine)


def test_what_came_in_a_step_before_the_stop_is_received():
    with pytest.raises(Wrong, match="has left what came in"):
        leave(waiting=9)


def taken(*, holder=None, outlived=(), acted=None, refused=-math.inf, alive=(), saved=math.inf):
    """A process ends because of another, long after the beginning."""
    redis = SimpleNamespace(shelf=MemoryShelf(), acted=acted or {})
    if holder is not None:
        redis.shelf.hold(holder)
    process = SimpleNamespace(
        boot="b002",
        outcome="taken",
        started=True,
        store=SimpleNamespace(refused_at=refused),
        window=SimpleNamespace(outlived=set(outlived)),
        spool=SimpleNamespace(save_began=saved),
    )
    processes = [SimpleNamespace(boot=boot) for boot in alive]
    Watch(SimpleNamespace(redis=redis, processes=processes)).check_taken(process)


@pytest.mark.parametrize(
    "fine",
    [
        {"holder": "b003", "acted": {"b003": 0.0}},
        {"refused": 0.0},
        {"acted": {"b001": -60.0}, "saved": -55.0},
        {"holder": "b001", "outlived": ["b001"], "alive": ["b001"], "acted": {"b001": 0.0}},
    ],
)
async def test_what_a_process_may_end_for(autojump_clock, fine):
    taken(**fine)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"holder": "b002", "acted": {"b003": 0.0}},
        {"acted": {"b001": -60.0}},
        {"holder": "b001", "outlived": ["b001"], "acted": {"b001": 0.0}},
    ],
)
async def test_what_a_process_may_not_end_for(autojump_clock, wrong):
    with pytest.raises(Wrong, match="b002 ended because of"):
        taken(**wrong)


def test_a_situation_is_in_few_plans():
    kinds = [Plan.of(seed).kinds for seed in range(1_000)]
    late = sum("redis late write" in each for each in kinds)
    assert 0 < late < 2 * SITUATION * 1_000
