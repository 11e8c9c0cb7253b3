from __future__ import annotations

from collections.abc import Callable

import pytest

from marketflow.app.share.history import History, HistoryState

UNREAD, DOUBTED, KNOWN = HistoryState.UNREAD, HistoryState.DOUBTED, HistoryState.KNOWN

STATES = {
    "unread": History(),
    "unread and doubted": History().database_ours(),
    "doubted": History().database_ours().was_read(1),
    "known": History().was_read(1),
    "unread, rows have told": History().rows_told().database_ours(),
    "known, rows have told": History().rows_told().database_ours().was_read(1),
}
EVENTS: dict[str, Callable[[History], History]] = {
    "read again": lambda history: history.read_again(),
    "was read": lambda history: history.was_read(history.wanted),
    "an earlier reading was done": lambda history: history.was_read(history.wanted - 1),
    "database ours": lambda history: history.database_ours(),
    "database away": lambda history: history.database_away(),
    "another has the database": lambda history: history.another_has_database(),
    "rows have told": lambda history: history.rows_told(),
}
TABLE = {
    "read again": (UNREAD, UNREAD, DOUBTED, KNOWN, UNREAD, KNOWN),
    "was read": (KNOWN, DOUBTED, DOUBTED, KNOWN, KNOWN, KNOWN),
    "an earlier reading was done": (UNREAD, UNREAD, DOUBTED, KNOWN, UNREAD, KNOWN),
    "database ours": (UNREAD, UNREAD, DOUBTED, DOUBTED, UNREAD, KNOWN),
    "database away": (UNREAD, UNREAD, KNOWN, KNOWN, UNREAD, KNOWN),
    "another has the database": (UNREAD, UNREAD, KNOWN, KNOWN, UNREAD, KNOWN),
    "rows have told": (UNREAD, UNREAD, KNOWN, KNOWN, UNREAD, KNOWN),
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
    assert history.read
    assert not history.up_to_date
    assert history.was_read(history.wanted).up_to_date


def test_a_reading_that_ends_late_does_not_undo_a_later_one():
    history = History().read_again().was_read(2).was_read(1)
    assert history.up_to_date


def test_doubt_outlives_a_reading():
    history = History().database_ours().read_again().was_read(2)
    assert history.state is DOUBTED


def test_rows_of_another_boot_tell_nothing_until_its_bars_were_read():
    """Another one had the database before rows were compared for the first time."""
    history = History().was_read(1)
    assert not history.read_again().database_ours().unsure
    history = history.another_has_database()
    assert not history.unsure, "there is nothing to compare yet"
    history = history.was_read(1).read_again().database_ours()
    assert history.unsure
    assert not history.rows_told().unsure
    assert not history.was_read(history.wanted).unsure
    assert not history.was_read(history.wanted).read_again().unsure
