from __future__ import annotations

import pytest

from marketflow.adapters.db.usage import Usage

IDLE, USED, ENDING, OVER = Usage
EVENTS = {"begin": Usage.begin, "end": Usage.end, "give up": Usage.give_up}
TABLE = {
    "begin": (USED, USED, ENDING, OVER),
    "end": (IDLE, IDLE, OVER, OVER),
    "give up": (OVER, ENDING, ENDING, OVER),
}


def test_the_table_is_whole():
    """It has every event in every state."""
    assert set(TABLE) == set(EVENTS)
    assert {len(row) for row in TABLE.values()} == {len(Usage)}


@pytest.mark.parametrize("event", TABLE)
@pytest.mark.parametrize("state", Usage)
def test_what_an_event_leads_to(state, event):
    assert EVENTS[event](state) is TABLE[event][list(Usage).index(state)]


def test_what_was_given_up_is_never_wanted_again():
    for state in (ENDING, OVER):
        assert not state.wanted
        assert not any(event(state).wanted for event in EVENTS.values())
