from __future__ import annotations

from builders import batch_of
from hypothesis import given
from hypothesis import strategies as st

from marketflow.app.share.ledger import OVERFLOW, SHUTDOWN, Ledger


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "cache", "expire", OVERFLOW, SHUTDOWN]), st.integers(0, 9)),
        max_size=40,
    )
)
def test_the_equations_hold_after_every_step(steps):
    ledger, received = Ledger(), 0
    for step, count in steps:
        some = min(count, ledger.pending)
        match step:
            case "enter":
                ledger.enter(batch_of("exchange1", [("BTCUSDT", 1.0, 1)] * count, rejected=count % 3))
                received += count + count % 3
            case "cache":
                ledger.cache(some)
            case "expire":
                ledger.expire(some)
            case reason:
                ledger.drop(some, reason)
        assert ledger.received == received == ledger.accepted + ledger.rejected.total()
        assert ledger.accepted == ledger.cached + ledger.expired + ledger.dropped.total() + ledger.pending
        assert ledger.settled == ledger.cached + ledger.expired + ledger.dropped.total()
    twice = Ledger()
    twice.add(ledger)
    twice.add(ledger)
    assert twice.received == 2 * received
    assert twice.accepted == twice.cached + twice.expired + twice.dropped.total() + twice.pending


def test_a_reason_is_named_only_if_it_occurred():
    """Otherwise every answer would list drops that never happened."""
    ledger = Ledger()
    ledger.drop(0, OVERFLOW)
    assert ledger.dropped == {}
