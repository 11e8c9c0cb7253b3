"""Histories of several nodes: that they are right, repeat exactly, and find planted bugs."""

from __future__ import annotations

import pytest

from marketflow.app.cluster import balance
from marketflow.app.share.fence import Fence, FenceState
from marketflow.app.share.share import Share
from tests.cluster_simulation.history import run_history
from tests.cluster_simulation.plan import EXCHANGES, Fault, Plan
from tests.simulation.history import History

FIRST = 6
FROZEN = Fault(14.0, "node frozen", 10.0, 0)
DATABASE_AWAY = Fault(25.0, "postgres refuses", 12.0, 1)
SHARD_AWAY = Fault(20.0, "shard refuses", 3.0, 1)


def history_of(*faults: Fault) -> History:
    """One with these faults, in which only traffic and the order of tasks are drawn."""
    plan = Plan(
        seed=1,
        seconds=40.0,
        nodes=2,
        tick=0.1,
        interval=5_000,
        grace=200,
        lateness=8_000,
        window_length=60_000,
        faults=faults,
    )
    return run_history(plan)


@pytest.mark.parametrize("seed", range(FIRST))
def test_the_first_seeds_are_right(seed: int) -> None:
    assert run_history(Plan.of(seed)).failure is None


def test_a_seed_is_the_same_history_each_time() -> None:
    assert run_history(Plan.of(1)).digest == run_history(Plan.of(1)).digest


@pytest.mark.parametrize("kind", ["node killed", "node frozen"])
def test_exchanges_of_a_node_that_is_lost_are_taken_over(kind: str) -> None:
    history = history_of(Fault(12.3, kind, 14.0, 1))
    assert history.failure is None
    assert history.coverage["taken over"] > 0


def test_exchanges_of_a_node_that_stops_are_given_back() -> None:
    history = history_of(Fault(12.3, "node stopped", 0.0, 1))
    assert history.failure is None
    assert history.coverage["sealed"] > len(EXCHANGES)
    assert history.coverage["taken over"] == history.coverage["updates lost"] == 0


@pytest.mark.parametrize("fault", [DATABASE_AWAY, SHARD_AWAY], ids=str)
def test_an_outage_of_a_store_takes_no_exchange_from_its_owner(fault: Fault) -> None:
    history = history_of(fault)
    assert history.failure is None
    assert history.coverage["taken over"] == 0


def test_it_is_found_if_an_expired_lease_is_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "UNBROKEN", 0)
    assert "though its owner" in str(history_of(DATABASE_AWAY).failure)


def test_it_is_found_if_a_fence_is_not_looked_at_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    ensure = Fence.ensure

    async def once(self: Fence) -> None:
        if self._fence is not FenceState.SEALED:
            await ensure(self)

    monkeypatch.setattr(Fence, "ensure", once)
    assert "not whole" in str(history_of(SHARD_AWAY).failure)


def test_it_is_found_if_what_was_lost_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Share, "give_up", lambda _: None)
    assert "are pending" in str(history_of(FROZEN).failure)
