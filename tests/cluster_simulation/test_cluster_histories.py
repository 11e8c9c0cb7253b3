"""Histories of several nodes: that they are right, repeat exactly, and find planted bugs."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
import trio

from marketflow.app.cluster import balance
from marketflow.app.cluster.admission import Admission
from marketflow.app.cluster.balance import Balance, Moves
from marketflow.app.cluster.handovers import Handovers, Placement
from marketflow.app.cluster.holdings import Holdings
from marketflow.app.cluster.member import Member
from marketflow.app.cluster.mirror import Copy
from marketflow.app.cluster.record import Known
from marketflow.app.ports import Change, ClusterSight, Node, SeenLease
from marketflow.app.share.fence import Fence, FenceState
from marketflow.app.share.share import Share
from tests.cluster_simulation.history import run_history
from tests.cluster_simulation.plan import EXCHANGES, SHARED, Fault, Plan
from tests.simulation.history import History

FIRST = 6
FROZEN = Fault(14.0, "node frozen", 10.0, 2)
DATABASE_AWAY = Fault(25.0, "postgres refuses", 12.0, 1)
SHARD_AWAY = Fault(20.0, "shard refuses", 3.0, 1)
SWITCHED = Fault(14.0, "mode switched", 0.0, 0)
STOPPED = Fault(12.3, "node stopped", 0.0, 1)
RESTARTED_EARLY = 12
"""With this seed the node that was stopped is there again before its exchanges are taken."""
KILLED = Fault(13.95, "node killed", 0.0, 1)
DOUBLED = Fault(14.0, "node doubled", 0.0, 0)
CLOCK_AHEAD = Fault(14.3, "postgres steps", 0.0, 0)
"""By 4 s: more than a lease lasts."""
CLOCK_BACK = Fault(13.9, "postgres steps", 0.0, 13)
"""By ten minutes, just before a node is killed."""
AWAY_AT_A_STOP = Fault(11.5, "shard refuses", 2.0, 2)
"""It is back before the node that is stopped meanwhile has to end."""
AWAY_AT_A_SWITCH = Fault(13.0, "shard refuses", 5.0, 0)
AWAY_AT_A_MOVE = Fault(19.0, "shard refuses", 6.0, 2)
MIRRORS_CUT_OFF = Fault(14.0, "network down", 12.0, 0)


def history_of(*faults: Fault, seed: int = 1, standby: bool = False) -> History:
    """One with these faults, in which only traffic and the order of tasks are drawn."""
    plan = Plan(
        seed=seed,
        seconds=40.0,
        nodes=2,
        tick=0.1,
        interval=5_000,
        grace=200,
        lateness=8_000,
        window_length=60_000,
        faults=faults,
        standby=standby,
    )
    return run_history(plan)


@pytest.mark.parametrize("seed", range(FIRST))
def test_the_first_seeds_are_right(seed: int) -> None:
    assert run_history(Plan.of(seed)).failure is None


def test_a_seed_is_the_same_history_each_time() -> None:
    assert run_history(Plan.of(1)).digest == run_history(Plan.of(1)).digest


@pytest.mark.parametrize("kind", ["node killed", "node frozen"])
def test_exchanges_of_a_node_that_is_lost_are_taken_over(kind: str) -> None:
    history = history_of(Fault(12.3, kind, 14.0, 2))
    assert history.failure is None
    assert history.coverage["taken over"] > 0


def test_exchanges_of_a_node_that_stops_are_given_back() -> None:
    history = history_of(Fault(12.3, "node stopped", 0.0, 1))
    assert history.failure is None
    assert history.coverage["sealed"] > len(EXCHANGES)
    assert history.coverage["taken over"] == history.coverage["updates lost"] == 0


@pytest.mark.parametrize("seed", [2, RESTARTED_EARLY])
def test_a_stop_loses_and_doubles_nothing_of_shared_exchanges(seed: int) -> None:
    """Nor do the moves that follow, once the node is there again."""
    history = history_of(STOPPED, seed=seed)
    assert history.failure is None
    assert history.coverage["shared exchanges whole"] == len(SHARED)


@pytest.mark.parametrize("fault", [KILLED, FROZEN], ids=str)
def test_with_a_standby_a_death_loses_and_doubles_nothing_of_shared_exchanges(fault: Fault) -> None:
    history = history_of(fault, seed=RESTARTED_EARLY, standby=True)
    assert history.failure is None
    assert history.coverage["taken over"] > 0
    assert history.coverage["shared exchanges whole"] == len(SHARED)


AWAY_WHEN_GIVEN = {
    "stop": (AWAY_AT_A_STOP, STOPPED),
    "switch": (AWAY_AT_A_SWITCH, SWITCHED),
    "move": (STOPPED, AWAY_AT_A_MOVE),
}


@pytest.mark.parametrize("what", AWAY_WHEN_GIVEN)
def test_nothing_is_lost_if_a_shard_is_away_when_its_exchange_is_to_be_given_back(what: str) -> None:
    history = history_of(*AWAY_WHEN_GIVEN[what])
    assert history.failure is None
    assert history.coverage["updates lost"] == 0


@pytest.mark.parametrize("what", ["stop", "move"])  # at a switch rows have what the window lacks
def test_it_is_found_if_an_exchange_is_given_back_while_its_shard_is_away(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Holdings, "immovable", ())
    assert history_of(*AWAY_WHEN_GIVEN[what]).coverage["updates lost"] > 0


def test_a_switch_of_the_mode_gives_back_all_exchanges_in_order() -> None:
    history = history_of(SWITCHED)
    assert history.failure is None
    # One by the fault, and one back at the end.
    assert history.coverage["mode asked for: switched"] == 2
    assert history.coverage["taken to be sealed"] == history.coverage["updates lost"] == 0


def test_it_is_found_if_a_switch_leaves_open_intervals_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would get them when the mode is switched back, if the window has their bars still."""
    end = Share.end
    monkeypatch.setattr(Share, "end", lambda self, **_: end(self))
    assert "row missing" in str(history_of(SWITCHED).failure)


def test_a_switch_seals_what_a_dead_node_has_not_given_back() -> None:
    history = history_of(KILLED, SWITCHED)
    assert history.failure is None
    assert history.coverage["mode asked for: switched"] == 2
    assert history.coverage["taken to be sealed"] > 0


def test_a_second_node_of_a_name_is_refused() -> None:
    history = history_of(DOUBLED)
    assert history.failure is None
    assert history.coverage["refused"] == 1


def test_a_node_that_was_killed_and_starts_at_once_is_not_refused() -> None:
    history = history_of(KILLED)
    assert history.failure is None
    assert history.coverage["refused"] == 0


def test_a_node_that_stood_still_while_another_took_its_name_is_refused() -> None:
    """It is started again and again, and refused as often."""
    history = history_of(FROZEN, Fault(15.0, "node doubled", 0.0, FROZEN.detail))
    assert history.failure is None
    assert history.coverage["refused"] > 0


def test_a_mirror_that_was_cut_off_and_misses_changes_is_whole_again() -> None:
    history = history_of(MIRRORS_CUT_OFF)
    assert history.failure is None


@pytest.mark.parametrize("fault", [DATABASE_AWAY, SHARD_AWAY], ids=str)
def test_an_outage_of_a_store_takes_no_exchange_from_its_owner(fault: Fault) -> None:
    history = history_of(fault)
    assert history.failure is None
    assert history.coverage["taken over"] == 0


def test_a_step_of_the_databases_clock_takes_no_exchange_from_an_owner_that_lives() -> None:
    history = history_of(CLOCK_AHEAD)
    assert history.failure is None
    assert history.coverage["taken over"] == 0


def test_a_step_back_of_the_databases_clock_keeps_no_exchange_of_a_dead_owner() -> None:
    history = history_of(CLOCK_BACK, KILLED)
    assert history.failure is None
    assert history.coverage["taken over"] > 0


def test_it_is_found_if_the_databases_clock_says_which_lease_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_free(self: Balance, exchange: str, lease: SeenLease | None, me: Node, now: float) -> bool:
        del self, exchange, me, now
        return lease is None or lease.released or lease.left < 0

    monkeypatch.setattr(Balance, "_is_free", is_free)
    assert "though its owner" in str(history_of(CLOCK_AHEAD).failure)


def test_it_is_found_if_an_expired_lease_is_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "UNBROKEN", 0)
    assert "though its owner" in str(history_of(DATABASE_AWAY, seed=2).failure)


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


def test_it_is_found_if_the_wanted_mode_is_taken_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "unreleased", lambda *_: [])
    assert "are not given back" in str(history_of(SWITCHED).failure)


def test_it_is_found_if_the_lease_of_a_dead_node_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Member._take

    def without_sealing(self: Member, moves: Moves, having: trio.Nursery) -> None:
        take(self, attrs.evolve(moves, seal={}), having)

    monkeypatch.setattr(Member, "_take", without_sealing)
    assert "not whole" in str(history_of(KILLED, SWITCHED).failure)


def test_it_is_found_if_a_second_boot_of_a_name_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(self: Admission, _: ClusterSight) -> None:
        self.admitted = True

    monkeypatch.setattr(Admission, "looked", looked)
    assert "two nodes of one name live" in str(history_of(DOUBLED).failure)


def test_it_is_found_if_a_mirror_ignores_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_top = Copy.put_on_top

    def ignoring_holes(self: Copy, changes: Sequence[Change]) -> bool:
        for change in changes:
            epoch, _, number = change.place.partition("-")
            self.place = f"{epoch}-{int(number) - 1}"
            put_on_top(self, [change])
        return True

    monkeypatch.setattr(Copy, "put_on_top", ignoring_holes)
    assert "lacks" in str(history_of(MIRRORS_CUT_OFF).failure)


def test_it_is_found_if_a_record_enters_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Known, "sifted", lambda _, batch, since=0: batch)  # noqa: ARG005
    assert "more often in the window" in str(history_of(STOPPED, seed=RESTARTED_EARLY).failure)


def test_it_is_found_if_an_exchange_is_given_back_before_the_next_node_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Handovers, "waits", lambda *_: False)
    monkeypatch.setattr(Handovers, "to_record", lambda *_: frozenset())
    assert "and not in its window" in str(history_of(STOPPED, seed=3).failure)


def test_it_is_found_if_the_node_that_should_have_an_exchange_takes_it_from_one_that_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def placed(_: Handovers, exchange: str, sight: ClusterSight, placement: Placement) -> str | None:
        del sight
        return placement.places.get(exchange)

    monkeypatch.setattr(Handovers, "heir", placed)
    assert "and not in its window" in str(history_of(STOPPED, seed=RESTARTED_EARLY).failure)
