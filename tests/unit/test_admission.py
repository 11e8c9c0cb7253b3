"""A node takes part only as long as no other boot of its name lives."""

from __future__ import annotations

import pytest

from marketflow.app.cluster.admission import Admission
from marketflow.app.ports import ClusterSight, Node, SeenNode, StoreTaken

LASTS = 3_000
US = Node("a", "boot2", "http://a", "all", "1")
OTHER = Node("a", "boot1", "http://elsewhere", "all", "1")


def sight(now: int, node: Node | None, age: int = 0) -> ClusterSight:
    return ClusterSight(now, {}, {} if node is None else {node.name: SeenNode(node, age)}, mode="live")


def test_it_is_admitted_once_the_cluster_has_heard_of_it() -> None:
    admission = Admission(US, lasts=LASTS)
    assert not admission.admits(sight(0, None))
    assert admission.admits(sight(1_000, US))
    assert admission.admits(sight(2_000, None))


def test_a_boot_that_was_killed_only_delays_it() -> None:
    admission = Admission(US, lasts=LASTS)
    assert [admission.admits(sight(now, OTHER, age=now)) for now in range(0, LASTS, 250)] == [False] * 12
    assert not admission.admits(sight(LASTS, OTHER, age=LASTS))
    assert admission.admits(sight(LASTS + 250, US))


def test_a_boot_that_lives_keeps_it_off() -> None:
    admission = Admission(US, lasts=LASTS)
    assert not admission.admits(sight(0, OTHER, age=900))
    with pytest.raises(StoreTaken, match="named a, at http://elsewhere"):
        admission.admits(sight(250, OTHER, age=10))


def test_one_that_was_replaced_while_it_stood_still_ends() -> None:
    admission = Admission(US, lasts=LASTS)
    assert admission.admits(sight(0, US))
    with pytest.raises(StoreTaken):
        admission.admits(sight(60_000, OTHER, age=500))
