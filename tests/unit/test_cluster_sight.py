"""What a node has seen last of its cluster: why it could take an exchange, and whether its clock is right."""

from __future__ import annotations

import pytest

from marketflow.app.cluster.clock_offset import ClockOffset
from marketflow.app.cluster.sight import LastSight
from marketflow.app.ports import ClusterSight, Node, SeenLease, Term, WantedMode
from marketflow.cluster_outside import url_of

ME = Node("me", "boot", "http://me", "all", "1")
NOW = 1_000_000


class Clock:
    """A wall clock that the test sets."""

    time = NOW

    def now(self) -> int:
        return self.time


def lease(node: str, boot: str, *, released: bool = False) -> SeenLease:
    return SeenLease(Term("a", 3, "t"), node, boot, -1, NOW, released)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (None, "first"),
        (lease("other", "b", released=True), "given_back"),
        (lease("other", "b"), "expired"),
        (lease("me", "boot"), "own"),
        (lease("me", "an earlier boot"), "expired"),
    ],
)
async def test_takeovers_are_counted_by_what_made_the_exchange_free(seen, reason):
    sight = LastSight()
    sight.looked(ClusterSight(NOW, {} if seen is None else {"a": seen}, {}, WantedMode("live", 1)))

    sight.took(Term("a", 4, "u"), ME)

    assert {why: count for why, count in sight.takeovers.items() if count} == {reason: 1}


@pytest.mark.parametrize(
    ("theirs", "sent_at", "offset"),
    [
        (NOW, NOW, 0),
        (NOW - 700, NOW - 1_500, 0),  # the answer took long, and may have been given at any time in between
        (NOW + 700, NOW - 1_500, 700),
        (NOW - 1_600, NOW - 1_500, -100),
    ],
)
def test_clocks_differ_by_no_more_than_is_certain(theirs, sent_at, offset):
    clocks = ClockOffset(Clock())

    clocks.compare(theirs, sent_at)

    assert clocks.offset == offset


@pytest.mark.parametrize(
    ("offset", "right", "takes"),
    [(0, True, True), (-500, True, True), (501, False, True), (-2_000, False, True), (2_001, False, False)],
)
def test_a_wrong_clock_degrades_and_a_very_wrong_one_takes_nothing(offset, right, takes):
    clocks = ClockOffset(Clock())
    assert (clocks.is_right, clocks.may_take()) == (True, True)

    clocks.compare(NOW + offset, NOW)

    assert (clocks.is_right, clocks.may_take()) == (right, takes)


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:1"), ("::1", "http://[::1]:1"), ("a.b", "http://a.b:1")]
)
def test_a_node_tells_where_it_answers(host, url):
    assert url_of(host, 1) == url


def test_a_node_that_listens_everywhere_tells_its_host():
    assert "0.0.0.0" not in url_of("0.0.0.0", 1)
