"""Whether a node may take part under its name."""

from __future__ import annotations

import attrs
import pytest

from marketflow.app.cluster.admission import Admission
from marketflow.app.ports import ClusterSight, Node, SeenNode, StoreTaken

ME = Node("a", "boot2", "http://a", "all", "1")
EARLIER = attrs.evolve(ME, boot="boot1")


def sight(now: int, *seen: SeenNode) -> ClusterSight:
    return ClusterSight(now, {}, {each.node.name: each for each in seen})


def test_a_node_is_admitted_once_the_database_has_its_boot() -> None:
    admission = Admission(ME, "live")
    admission.looked(sight(1_000))
    assert not admission.admitted
    admission.looked(sight(1_250, SeenNode(ME, 0)))
    assert admission.admitted


def test_a_boot_that_was_killed_only_delays_the_start() -> None:
    admission = Admission(ME, "live")
    for now in range(1_000, 4_000, 250):
        admission.looked(sight(now, SeenNode(EARLIER, now - 990)))
        assert not admission.admitted
    admission.looked(sight(4_000, SeenNode(ME, 0)))
    assert admission.admitted


@pytest.mark.parametrize("admitted_before", [False, True])
def test_a_boot_of_its_name_that_is_heard_of_again_lives(admitted_before: bool) -> None:
    """Also for a node that stood still, and was replaced."""
    admission = Admission(ME, "live")
    if admitted_before:
        admission.looked(sight(0, SeenNode(ME, 0)))
    admission.looked(sight(1_000, SeenNode(EARLIER, 900)))
    admission.looked(sight(1_250, SeenNode(EARLIER, 1_151)))
    assert not admission.admitted
    with pytest.raises(StoreTaken, match="another node named a is running"):
        admission.looked(sight(1_500, SeenNode(EARLIER, 200)))


def test_boots_that_came_and_went_are_not_taken_for_one_that_lives() -> None:
    admission = Admission(ME, "live")
    admission.looked(sight(1_000, SeenNode(EARLIER, 900)))
    admission.looked(sight(1_250, SeenNode(attrs.evolve(ME, boot="boot0"), 100)))
    admission.looked(sight(1_500, SeenNode(ME, 0)))
    assert admission.admitted
