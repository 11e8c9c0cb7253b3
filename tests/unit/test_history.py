from __future__ import annotations

from collections.abc import Callable

import pytest

from marketflow.app.share.history import History, HistoryState

UNREAD, DOUBTED, KNOWN = HistoryState.UNREAD, HistoryState.DOUBTED, HistoryState.KNOWN

STATES = {
    "unread": History(),
    "unread and doubted": History().doubt(doubted=True),
    "doubted": History().doubt(doubted=True).was_read(1),
    "known": History().was_read(1),
}
EVENTS: dict[str, Callable[[History], History]] = {
    "read again": lambda history: history.read_again(),
    "was read": lambda history: history.was_read(history.wanted),
    "an earlier reading was done": lambda history: history.was_read(history.wanted - 1),
    "doubt": lambda history: history.doubt(doubted=True),
    "rows have told": lambda history: history.doubt(doubted=False),
}
TABLE = {
    "read again": (UNREAD, UNREAD, UNREAD, UNREAD),
    "was read": (KNOWN, DOUBTED, DOUBTED, KNOWN),
    "an earlier reading was done": (UNREAD, UNREAD, DOUBTED, KNOWN),
    "doubt": (UNREAD, UNREAD, DOUBTED, DOUBTED),
    "rows have told": (UNREAD, UNREAD, KNOWN, KNOWN),
}


def test_the_table_is_whole():
    """It has every event in every state."""
    assert set(TABLE) == set(EVENTS)
    assert {history.state for history in STATES.values()} == set(HistoryState)


@pytest.mark.parametrize("event", TABLE)
@pytest.mark.parametrize("state", STATES)
def test_what_an_event_leads_to(state, event):
    after = EVENTS[event](STATES[state])
    assert after.state is TABLE[event][list(STATES).index(state)]
    assert after.read == (after.state is not UNREAD)
    assert after.known == (after.state is KNOWN)


def test_a_history_asked_for_while_it_is_read_is_read_again():
    """Otherwise data that another boot wrote in between would be missing."""
    history = History()
    reading = history.wanted
    history = history.read_again().was_read(reading)
    assert not history.read
    assert history.was_read(history.wanted).known


def test_doubt_outlives_a_reading():
    history = History().doubt(doubted=True).read_again().was_read(2)
    assert history.state is DOUBTED
