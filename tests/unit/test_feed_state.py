from __future__ import annotations

from typing import get_args

import attrs
import pytest

from marketflow.app.ingest.state import TRANSITIONS, Event, FeedState, State, WrongEvent

EVENTS = {
    "start": lambda feed: feed.start(7.0),
    "connected": lambda feed: feed.connect(7.0),
    "failed": lambda feed: feed.fail(7.0, "refused"),
    "retry": lambda feed: feed.retry(7.0),
    "stop": lambda feed: feed.stop(7.0),
}
TABLE = {
    # state: what each event leads to; None: it cannot happen
    #               start         connected    failed         retry         stop
    "stopped": ("connecting", None, None, None, None),
    "connecting": (None, "connected", "backing off", None, "stopped"),
    "connected": (None, "connected", "backing off", None, "stopped"),
    "backing off": (None, "connected", "backing off", "connecting", "stopped"),
}


def test_the_table_is_of_all_states_and_events():
    assert list(TABLE) == list(get_args(State))
    assert list(EVENTS) == list(get_args(Event))
    assert len(TRANSITIONS) == sum(after is not None for row in TABLE.values() for after in row)


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (before, event, after)
        for before, row in TABLE.items()
        for event, after in zip(EVENTS, row, strict=True)
    ],
)
def test_every_event_in_every_state(before, event, after):
    feed = FeedState(state=before, since=3.0)
    if after is None:
        with pytest.raises(WrongEvent, match=f"^{event} while {before}$"):
            EVENTS[event](feed)
        assert feed == FeedState(state=before, since=3.0), "an event that cannot happen changes nothing"
        return
    EVENTS[event](feed)
    assert feed.state == after
    assert feed.since == (3.0 if before == after else 7.0)
    assert feed.connected == (after == "connected")


def test_what_is_known_of_its_connections():
    """Reconnects are counted over all runs, but the first connection of a run is not one."""
    feed = FeedState()
    known = []

    def note():
        known.append((feed.running_since, feed.reconnects, feed.last_error, feed.bugs))

    feed.start(1.0)
    feed.fail(2.0, "refused")
    feed.retry(3.0)
    assert feed.connect(4.0)
    note()
    assert not feed.connect(5.0), "the same connection"
    feed.fail(6.0, "reset", bug=True)
    feed.retry(7.0)
    feed.connect(8.0)
    note()
    feed.stop(9.0)
    feed.start(10.0)
    feed.connect(11.0)
    note()
    assert known == [(1.0, 0, "refused", 0), (1.0, 1, "reset", 1), (10.0, 1, None, 1)]
    assert attrs.asdict(feed)["since"] == 11.0


def test_a_source_may_report_the_end_before_it_returns():
    """The pause is counted from the end, and a connection that follows is another one."""
    feed = FeedState()
    feed.start(1.0)
    feed.connect(2.0)
    feed.fail(3.0, "reset")
    feed.fail(4.0, "bug", bug=True)
    assert (feed.state, feed.since, feed.last_error, feed.bugs) == ("backing off", 3.0, "bug", 1)
    assert feed.connect(5.0)
    assert (feed.state, feed.since, feed.reconnects) == ("connected", 5.0, 1)
