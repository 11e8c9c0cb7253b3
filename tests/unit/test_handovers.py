"""Which exchanges a node records, to whom they go, and when they are given back, look by look."""

from __future__ import annotations

import attrs
import pytest

from marketflow.app.cluster.balance import Balance, Moves
from marketflow.app.cluster.handovers import HEARD, MOVE_PATIENCE
from marketflow.app.ports import ClusterSight, Node, SeenLease, SeenNode, Term, WantedMode
from marketflow.domain.placement import placed

LASTS, CALM = 3.0, 30.0
NAMES = ["exchange1", "exchange2"]
A, B = Node("a", "boot1", "http://a", "all", "1"), Node("b", "boot2", "http://b", "all", "1")
OF_A, OF_B = (
    next(name for name, node in placed(NAMES, ["a", "b"]).items() if node == owner) for owner in ("a", "b")
)


def balance(*, shared=NAMES, standby=False, calm=CALM) -> Balance:
    return Balance(dict.fromkeys(NAMES, "live"), lasts=LASTS, calm=calm, shared=shared, standby=standby)


def sight(*nodes: Node, **owners: Node) -> ClusterSight:
    leases = {
        name: SeenLease(Term(name, 4, "t4"), owner.name, owner.boot, 2_000, 0)
        for name, owner in owners.items()
    }
    return ClusterSight(0, leases, {node.name: SeenNode(node, 0) for node in nodes}, WantedMode("live", 7))


def ready(node: Node, *exchanges: str) -> Node:
    return attrs.evolve(node, ready=exchanges)


def leaving(node: Node) -> Node:
    return attrs.evolve(node, leaving=True)


def held_by(owner: Node) -> dict[str, Node]:
    return dict.fromkeys(NAMES, owner)


def test_what_a_leaving_node_has_is_recorded_and_given_back_once_the_next_one_is_ready() -> None:
    owners = {OF_A: A, OF_B: B}
    seen = sight(leaving(A), B, **owners)
    assert balance().looked(seen, 0.0, B, [OF_B]).record == {OF_A}
    assert balance().looked(seen, 0.0, leaving(A), [OF_A]) == Moves()
    seen = sight(leaving(A), ready(B, OF_A), **owners)
    assert balance().looked(seen, 0.0, leaving(A), [OF_A]) == Moves(give=(OF_A,))


@pytest.mark.parametrize("others", [(B,), ()], ids=["not shared", "no other node"])
def test_a_leaving_node_waits_for_nothing_that_cannot_be(others: tuple[Node, ...]) -> None:
    seen = sight(leaving(A), *others, **held_by(A))
    moves = balance(shared=() if others else NAMES).looked(seen, 0.0, leaving(A), NAMES)
    assert set(moves.give) == set(NAMES)


def test_the_next_one_to_be_moved_is_recorded_and_moved_once_the_node_is_ready() -> None:
    mine, theirs = balance(calm=0.0), balance(calm=0.0)
    seen = sight(A, B, **held_by(A))
    assert mine.looked(seen, 0.0, A, NAMES).give == ()
    assert theirs.looked(seen, 0.0, B, []).record == {OF_B}
    assert mine.looked(sight(A, ready(B, OF_B), **held_by(A)), 0.25, A, NAMES).give == (OF_B,)


def test_a_move_waits_for_some_lease_times_at_most() -> None:
    mine, seen, most = balance(calm=0.0), sight(A, B, **held_by(A)), MOVE_PATIENCE * LASTS
    for now, given in ((0.0, ()), (most - 0.25, ()), (most, (OF_B,))):
        # Leases and heartbeats were just renewed.
        assert mine.looked(attrs.evolve(seen, now=round(now * 1_000)), now, A, NAMES).give == given


def test_nothing_goes_to_a_node_that_was_ready_and_may_have_died_since() -> None:
    seen, given = sight(A, B, **held_by(A)), []
    for age in (round(HEARD * LASTS * 1_000), round(HEARD * LASTS * 1_000) + 1):
        nodes = {"a": SeenNode(A, 0), "b": SeenNode(ready(B, OF_B), age)}
        given.append(balance(calm=0.0).looked(attrs.evolve(seen, nodes=nodes), 0.0, A, NAMES).give)
    assert given == [(OF_B,), ()]


def test_a_standby_keeps_its_record_until_the_node_that_is_to_have_it_is_ready() -> None:
    """Without it nobody would have a record of what comes meanwhile, if the owner died then."""
    c = Node("c", "boot3", "http://c", "all", "1")
    owned = {OF_A: A, OF_B: A}
    for exchange in NAMES:
        heir = placed(NAMES, ["b", "c"])[exchange]
        me, other = (B, c) if heir == "c" else (c, B)
        for others, kept in (((other,), True), ((ready(other, exchange),), False)):
            mine = ready(me, exchange)
            looked = balance(standby=True).looked(sight(A, mine, *others, **owned), 0.0, mine, [])
            assert (exchange in looked.record) == kept
        assert exchange not in balance(standby=True).looked(sight(A, me, other, **owned), 0.0, me, []).record


def test_without_a_standby_nothing_is_recorded_that_has_an_owner() -> None:
    seen = sight(A, B, **{OF_A: A, OF_B: B})
    assert balance().looked(seen, 0.0, B, [OF_B]).record == frozenset()
    assert balance(standby=True).looked(seen, 0.0, B, [OF_B]).record == {OF_A}
    assert balance(standby=True, shared=()).looked(seen, 0.0, B, [OF_B]).record == frozenset()


def test_what_nobody_has_goes_to_the_node_that_is_ready() -> None:
    """Also if the last owner has been started again, and should have it."""
    again = attrs.evolve(A, boot="boot3")
    seen = sight(again, ready(B, OF_A), **{OF_A: A, OF_B: B})
    released = attrs.evolve(
        seen, leases={**seen.leases, OF_A: attrs.evolve(seen.leases[OF_A], released=True)}
    )
    assert balance().looked(released, 0.0, again, []).take == {}
    assert balance().looked(released, 0.0, ready(B, OF_A), [OF_B]).take.keys() == {OF_A}
    assert balance().looked(released, 0.0, ready(B, OF_A), [OF_B]).record == {OF_A}
    nobody_ready = attrs.evolve(released, nodes={"a": SeenNode(again, 0), "b": SeenNode(B, 0)})
    assert balance().looked(nobody_ready, 0.0, again, []).take.keys() == {OF_A}
