"""Which exchanges a node of a cluster takes and gives back, look by look."""

from __future__ import annotations

from collections.abc import Collection

import attrs
import pytest

from marketflow.app.cluster.balance import Balance, Moves
from marketflow.app.ports import ClusterSight, Node, SeenLease, SeenNode, Term, WantedMode
from marketflow.domain.modes import Mode
from marketflow.domain.placement import placed, ranked

LASTS, CALM = 3.0, 30.0
EXCHANGES = ["exchange1", "exchange2"]
ME = Node("a", "boot1", "http://a", "all", "1")
OTHER = Node("b", "boot2", "http://b", "all", "1")
TERM = Term("exchange1", 4, "t4")
LIVE, TEST = WantedMode("live", 7), WantedMode("test", 8)
NONE, TAKEN = Moves(generation=7), Moves({"exchange1": TERM}, generation=7)


def sight(*nodes: Node | SeenNode, **leases: SeenLease) -> ClusterSight:
    seen = [node if isinstance(node, SeenNode) else SeenNode(node, 0) for node in nodes]
    return ClusterSight(0, leases, {each.node.name: each for each in seen}, LIVE)


def lease(node: Node, *, left: int = 2_000, released: bool = False, exchange: str = "exchange1") -> SeenLease:
    return SeenLease(Term(exchange, 4, "t4"), node.name, node.boot, left, 0, released)


def alone() -> Balance:
    return Balance({"exchange1": "live"}, lasts=LASTS, calm=CALM)


def look(
    balance: Balance,
    seen: ClusterSight,
    now: float,
    me: Node,
    held: Collection[str],
    immovable: Collection[str] = (),
) -> Moves:
    """Look at that time. Leases that are good were just renewed; of the others each time is longer ago."""
    ms = round(now * 1_000)
    leases = {
        name: each if each.left > 0 else attrs.evolve(each, left=each.left - ms)
        for name, each in seen.leases.items()
    }
    return balance.looked(attrs.evolve(seen, now=ms, leases=leases), now, me, held, immovable)


def looks(balance: Balance, seen: ClusterSight, until: float, *, since: float = 0.0) -> Moves:
    """Look four times a second; returns the moves of the last look."""
    moves, at = Moves(), since
    while at <= until:
        moves = look(balance, seen, at, ME, ())
        at += 0.25
    return moves


def test_what_nobody_has_ever_had_is_taken_at_once() -> None:
    assert look(alone(), sight(), 0.0, ME, ()) == Moves({"exchange1": None}, generation=7)


def test_what_it_has_already_is_not_taken_again() -> None:
    assert look(alone(), sight(), 0.0, ME, ["exchange1"]) == NONE


def test_what_was_given_back_is_taken_at_once() -> None:
    seen = sight(exchange1=lease(OTHER, released=True))
    assert look(alone(), seen, 0.0, ME, ()) == TAKEN


def test_a_lease_that_lives_is_left_alone() -> None:
    assert looks(alone(), sight(exchange1=lease(OTHER)), 100.0) == NONE


def test_an_expired_lease_is_free_once_the_database_has_answered_for_two_lease_times() -> None:
    balance, seen = alone(), sight(exchange1=lease(OTHER, left=-60_000))
    assert looks(balance, seen, 2 * LASTS - 0.25) == NONE
    assert looks(balance, seen, 2 * LASTS, since=2 * LASTS) == TAKEN


@pytest.mark.parametrize("breaks", ["unanswered", "stood still"])
def test_a_break_in_the_answers_begins_the_wait_again(breaks: str) -> None:
    balance, seen = alone(), sight(exchange1=lease(OTHER, left=-60_000))
    looks(balance, seen, 5.0)
    if breaks == "unanswered":
        balance.unanswered()
    since = 5.25 if breaks == "unanswered" else 5.0 + LASTS
    assert looks(balance, seen, since + 2 * LASTS - 0.25, since=since) == NONE
    assert looks(balance, seen, since + 2 * LASTS, since=since + 2 * LASTS) == Moves(
        {"exchange1": TERM}, generation=7
    )


def renewed_at(seconds: float, clock: float) -> ClusterSight:
    """A sight of a lease that its owner renewed at that time, if the database's clock is at `clock`."""
    left = round((seconds + LASTS - clock) * 1_000)
    return attrs.evolve(sight(exchange1=lease(OTHER, left=left)), now=round(clock * 1_000))


def test_a_step_of_the_databases_clock_frees_no_lease_of_an_owner_that_lives() -> None:
    balance, at = alone(), 0.0
    while at < 30.0:
        step = 4.0 if at >= 20.0 else 0.0
        # Each second it renews, by the clock that stepped between two renewals.
        renewed = at // 1 + (0.0 if at < 21.0 else step)
        assert balance.looked(renewed_at(renewed, at + step), at, ME, ()) == NONE
        at += 0.25


@pytest.mark.parametrize("step", [-600.0, 600.0])
def test_a_step_of_the_databases_clock_keeps_no_lease_of_a_dead_owner(step: float) -> None:
    balance, at, taken = alone(), 0.0, []
    while at < 20.0:
        clock = at + (step if at >= 8.0 else 0.0)
        if balance.looked(renewed_at(min(at // 1, 7.0), clock), at, ME, ()).take:
            taken.append(at)
        at += 0.25
    assert taken[0] == 7.0 + LASTS


def test_its_own_lease_is_taken_again_if_it_does_not_have_it() -> None:
    assert look(alone(), sight(exchange1=lease(ME)), 0.0, ME, ()) == TAKEN
    earlier = attrs.evolve(ME, boot="boot0")
    assert look(alone(), sight(exchange1=lease(earlier)), 0.0, ME, ()) == NONE


def test_the_node_that_should_have_it_takes_it_first_and_the_others_later() -> None:
    nodes = [ME, OTHER]
    mine = placed(EXCHANGES, ["a", "b"])
    balance = Balance(dict.fromkeys(EXCHANGES, "live"), lasts=LASTS, calm=CALM)
    wanted = {exchange for exchange in EXCHANGES if mine[exchange] == "a"}
    assert len(wanted) == 1
    assert look(balance, sight(*nodes), 0.0, ME, ()).take.keys() == wanted
    (other,) = set(EXCHANGES) - wanted
    patience = (1 + ranked(other, ["a", "b"]).index("a")) * LASTS
    assert looks(balance, sight(*nodes), patience - 0.25, since=0.25).take.keys() == wanted
    assert looks(balance, sight(*nodes), patience, since=patience).take.keys() == set(EXCHANGES)


@pytest.mark.parametrize(
    "other",
    [
        SeenNode(OTHER, 3_000),
        SeenNode(attrs.evolve(OTHER, leaving=True), 0),
        SeenNode(attrs.evolve(OTHER, role="api"), 0),
    ],
    ids=["silent", "leaving", "api"],
)
def test_nodes_that_may_have_nothing_are_not_waited_for(other: SeenNode) -> None:
    balance = Balance(dict.fromkeys(EXCHANGES, "live"), lasts=LASTS, calm=CALM)
    assert look(balance, sight(ME, other), 0.0, ME, ()).take.keys() == set(EXCHANGES)


@pytest.mark.parametrize("me", [attrs.evolve(ME, leaving=True), attrs.evolve(ME, role="api")])
def test_a_node_that_leaves_or_only_answers_takes_nothing(me: Node) -> None:
    assert look(alone(), sight(me), 0.0, me, ()) == Moves()


def test_an_exchange_is_moved_once_nothing_has_changed_for_a_while_and_one_at_a_time() -> None:
    names = [f"exchange{number}" for number in range(6)]
    balance = Balance(dict.fromkeys(names, "live"), lasts=LASTS, calm=CALM)
    leases = {name: lease(ME, exchange=name) for name in names}
    seen = sight(ME, OTHER, **leases)
    at, moves = 0.0, Moves()
    while at < CALM:
        moves = look(balance, seen, at, ME, names)
        assert moves == NONE
        at += 1.0
    moves = look(balance, seen, at, ME, names)
    first = next(name for name in names if placed(names, ["a", "b"])[name] == "b")
    assert moves == Moves(give=(first,), generation=7)
    # It has moved: the next one waits for calm again.
    theirs = SeenLease(Term(first, 5, "t5"), OTHER.name, OTHER.boot, 3_000, 0)
    moved = sight(ME, OTHER, **leases | {first: theirs})
    assert look(balance, moved, at + 1.0, ME, [name for name in names if name != first]) == NONE


def test_an_exchange_whose_window_is_away_is_not_moved() -> None:
    """What the window lacks the next owner would lack in its rows."""
    names = ["exchange1", "exchange2"]
    balance = Balance(dict.fromkeys(names, "live"), lasts=LASTS, calm=CALM)
    seen = sight(ME, OTHER, **{name: lease(ME, exchange=name) for name in names})
    (first,) = (name for name in names if placed(names, ["a", "b"])[name] == "b")
    for second in range(2 * int(CALM)):
        assert look(balance, seen, float(second), ME, names, immovable=[first]) == NONE
    assert look(balance, seen, 2 * CALM, ME, names).give == (first,)


def test_a_node_that_leaves_keeps_an_exchange_whose_window_is_away() -> None:
    """For how long at most, the member knows."""
    me = attrs.evolve(ME, leaving=True)
    seen = sight(me, OTHER, exchange1=lease(ME))
    assert look(alone(), seen, 0.0, me, ["exchange1"], immovable=["exchange1"]).give == ()
    assert look(alone(), seen, 0.0, me, ["exchange1"]).give == ("exchange1",)


def test_an_exchange_of_the_other_mode_is_kept_while_its_window_is_away() -> None:
    seen = attrs.evolve(sight(ME, exchange1=lease(ME)), wanted=WantedMode("test", 2))
    assert look(alone(), seen, 0.0, ME, ["exchange1"], immovable=["exchange1"]).give == ()
    assert look(alone(), seen, 0.0, ME, ["exchange1"]).give == ("exchange1",)


def test_without_calm_nothing_is_moved() -> None:
    names = ["exchange1", "exchange2"]
    balance = Balance(dict.fromkeys(names, "live"), lasts=LASTS, calm=CALM)
    held = {name: lease(ME, exchange=name) for name in names}
    for second in range(100):
        # Each 20 s another node comes and goes, or a lease is renewed too late.
        nodes = (ME, OTHER) if second // 20 % 2 else (ME,)
        assert look(balance, sight(*nodes, **held), float(second), ME, names).give == ()
    expired = held | {"exchange2": lease(OTHER, left=-1, exchange="exchange2")}
    for second in range(100, 200):
        assert look(balance, sight(ME, OTHER, **expired), float(second), ME, names).give == ()


# ---- modes ----

BOTH: dict[str, Mode] = {"exchange1": "live", "exchange2": "live", "test1": "test"}


def of_both() -> Balance:
    return Balance(BOTH, lasts=LASTS, calm=CALM)


def test_nothing_is_taken_before_the_cluster_has_a_mode() -> None:
    seen = attrs.evolve(sight(ME), wanted=None)
    assert look(of_both(), seen, 0.0, ME, ()) == Moves()


def test_only_exchanges_of_the_wanted_mode_are_taken() -> None:
    assert look(of_both(), sight(ME), 0.0, ME, ()).take.keys() == {"exchange1", "exchange2"}
    seen = attrs.evolve(sight(ME), wanted=TEST)
    assert look(of_both(), seen, 0.0, ME, ()) == Moves({"test1": None}, generation=8)


def test_all_exchanges_of_the_other_mode_are_given_back_at_once() -> None:
    held = {name: lease(ME, exchange=name) for name in EXCHANGES}
    seen = attrs.evolve(sight(ME, **held), wanted=TEST)
    assert look(of_both(), seen, 0.0, ME, EXCHANGES) == Moves(
        give=("exchange1", "exchange2"), closes=True, generation=8
    )


@pytest.mark.parametrize("left", [2_000, -60_000])
def test_none_is_taken_as_long_as_one_of_the_other_mode_is_not_released(left: int) -> None:
    held = {"exchange1": lease(ME, released=True), "exchange2": lease(OTHER, left=left, exchange="exchange2")}
    seen = attrs.evolve(sight(ME, **held), wanted=TEST)
    assert looks(of_both(), seen, 2 * LASTS - 0.25) == Moves(generation=8)
    held = {name: attrs.evolve(each, released=True) for name, each in held.items()}
    seen = attrs.evolve(sight(ME, **held), wanted=TEST)
    assert look(of_both(), seen, 0.0, ME, ()) == Moves({"test1": None}, generation=8)


def test_what_a_dead_node_has_of_the_other_mode_is_sealed_once_it_is_free() -> None:
    dead = lease(OTHER, left=-60_000, exchange="exchange2")
    balance, seen = of_both(), attrs.evolve(sight(ME, exchange2=dead), wanted=TEST)
    assert looks(balance, seen, 2 * LASTS - 0.25) == Moves(generation=8)
    sealed = Moves(seal={"exchange2": dead.term}, generation=8)
    assert looks(balance, seen, 2 * LASTS, since=2 * LASTS) == sealed


def test_after_a_switch_each_exchange_is_left_to_the_node_that_should_have_it_again() -> None:
    """It was free all the time, but could not be taken."""
    balance, live = of_both(), {name: lease(ME, released=True, exchange=name) for name in EXCHANGES}
    theirs = lease(OTHER, exchange="test1")
    testing = attrs.evolve(sight(ME, OTHER, **live, test1=theirs), wanted=TEST)
    assert looks(balance, testing, 20 * LASTS) == Moves(generation=8)
    released = attrs.evolve(theirs, released=True)
    again = sight(ME, OTHER, **live, test1=released)
    taken = looks(balance, again, 20 * LASTS + 0.25, since=20 * LASTS + 0.25).take
    assert taken.keys() == {name for name, node in placed(EXCHANGES, ["a", "b"]).items() if node == "a"}
