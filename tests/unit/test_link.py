from __future__ import annotations

from collections.abc import Callable

import pytest

from marketflow.app.share.link import Link, LinkState, Task

STARTING, AWAY, JOINING, WHOLE = LinkState
MARK, WRITE, READ, TRIM = Task.MARK, Task.WRITE, Task.READ, Task.TRIM

STATES = {
    STARTING: Link(),
    AWAY: Link().failed(MARK),
    JOINING: Link().failed(MARK).worked(MARK),
    WHOLE: Link().worked(MARK).made_whole(0),
}

EVENTS: dict[str, Callable[[Link], Link]] = {
    "mark worked": lambda link: link.worked(MARK),
    "read worked": lambda link: link.worked(READ),
    "mark failed": lambda link: link.failed(MARK),
    "trim failed": lambda link: link.failed(TRIM),
    "write refused": lambda link: link.failed(WRITE, refused=True),
    "tried": lambda link: link.tried_once(),
    "emptied": lambda link: link.emptied(),
    "outdated": lambda link: link.outdated(),
    "replayed": lambda link: link.replayed_all(link.epoch),
    "made whole": lambda link: link.made_whole(link.epoch),
    "made whole for an earlier epoch": lambda link: link.made_whole(link.epoch - 1),
}

TABLE = {
    #                                   starting  away     joining  whole
    "mark worked": (STARTING, JOINING, JOINING, WHOLE),
    "read worked": (STARTING, AWAY, JOINING, WHOLE),
    "mark failed": (AWAY, AWAY, AWAY, AWAY),
    "trim failed": (AWAY, AWAY, AWAY, AWAY),
    "write refused": (AWAY, AWAY, AWAY, AWAY),
    "tried": (JOINING, AWAY, JOINING, WHOLE),
    "emptied": (STARTING, AWAY, JOINING, JOINING),
    "outdated": (STARTING, AWAY, JOINING, JOINING),
    "replayed": (STARTING, AWAY, JOINING, WHOLE),
    "made whole": (WHOLE, AWAY, WHOLE, WHOLE),
    "made whole for an earlier epoch": (STARTING, AWAY, JOINING, WHOLE),
}


def test_the_table_is_whole():
    """It has every event in every state."""
    assert set(TABLE) == set(EVENTS)
    assert {state: link.state for state, link in STATES.items()} == {state: state for state in LinkState}


@pytest.mark.parametrize("event", TABLE)
@pytest.mark.parametrize("state", LinkState)
def test_what_an_event_leads_to(state, event):
    after = EVENTS[event](STATES[state])
    assert after.state is TABLE[event][list(LinkState).index(state)]
    assert after.epoch == STATES[state].epoch + (event in {"emptied", "write refused"})
    assert after.tried == (after.state is not STARTING)
    assert after.up == (after.state is WHOLE and not after.failing)


@pytest.mark.parametrize(
    ("link", "answers", "up", "dropping"),
    [
        (STATES[STARTING], False, False, False),
        (STATES[STARTING].worked(MARK), True, False, False),
        (STATES[AWAY], False, False, True),
        (STATES[JOINING], True, False, False),
        (STATES[WHOLE], True, True, False),
    ],
)
def test_what_is_derived(link, answers, up, dropping):
    assert (link.answers, link.up, link.dropping) == (answers, up, dropping)


def test_it_is_up_once_all_that_failed_has_worked():
    """A full Redis accepts the marker but refuses to be trimmed: it stays away, although it can be whole."""
    link = STATES[WHOLE].failed(TRIM).worked(MARK).worked(WRITE).made_whole(0)
    assert link.whole
    assert not link.up
    assert link.dropping
    assert link.worked(TRIM).up


def test_only_refused_writes_show_that_what_was_written_is_gone():
    whole = STATES[WHOLE]
    assert whole.failed(WRITE, refused=True).replay_due
    assert not whole.failed(WRITE).replay_due
    assert not whole.failed(READ, refused=True).replay_due


def test_updates_are_replayed_once_for_each_time_it_was_emptied():
    link = STATES[WHOLE].emptied()
    assert link.replay_due
    assert link.replayed_all(0).replay_due  # emptied again meanwhile
    assert not link.replayed_all(1).replay_due
    assert not link.replayed_all(1).failed(MARK).replay_due
    assert link.replayed_all(1).emptied().replay_due


def test_what_changes_nothing_returns_the_same_link():
    """The hot path compares by identity."""
    link = STATES[WHOLE]
    assert link.worked(WRITE) is link
    assert link.tried_once() is link
