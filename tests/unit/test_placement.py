"""Which node should have which exchange."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from marketflow.domain.placement import placed, ranked, score

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
exchanges = st.sets(names, max_size=20)
nodes = st.sets(names, min_size=1, max_size=7)


@given(exchanges, nodes)
def test_every_exchange_has_a_node_and_nodes_share_evenly(exchanges: set[str], nodes: set[str]) -> None:
    found = placed(exchanges, nodes)
    assert found.keys() == exchanges
    numbers = Counter(dict.fromkeys(nodes, 0)) + Counter(found.values())
    assert set(numbers) <= nodes
    counts = [numbers[node] for node in nodes]
    assert max(counts) - min(counts) <= 1


@given(st.permutations([f"exchange{number}" for number in range(7)]), st.permutations(["a", "b", "c"]))
def test_it_does_not_depend_on_the_order_of_the_names(exchanges: list[str], nodes: list[str]) -> None:
    assert placed(exchanges, nodes) == placed(sorted(exchanges), sorted(nodes))


def test_without_nodes_nothing_is_placed() -> None:
    assert placed(["exchange1"], []) == {}


def test_names_that_are_equal_when_joined_have_scores_of_their_own() -> None:
    assert score("ab", "c")[0] != score("a", "bc")[0]


def test_few_exchanges_move_when_a_node_goes() -> None:
    exchanges = [f"exchange{number}" for number in range(60)]
    nodes = [f"node{number}" for number in range(6)]
    moved = []
    for gone in nodes:
        before, after = placed(exchanges, nodes), placed(exchanges, [node for node in nodes if node != gone])
        moved.append(
            sum(before[exchange] != gone and before[exchange] != after[exchange] for exchange in exchanges)
        )
    # Those of the node that has gone are ten each. By a plain modulo fifty would move.
    assert sum(moved) / len(moved) <= 10


def test_an_exchange_is_taken_by_the_nodes_in_an_order_of_its_own() -> None:
    nodes = ["a", "b", "c"]
    orders = {tuple(ranked(f"exchange{number}", nodes)) for number in range(100)}
    assert len(orders) == 6
    assert all(sorted(order) == nodes for order in orders)
