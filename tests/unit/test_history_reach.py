from __future__ import annotations

import pytest

from marketflow.app.share.history import History
from marketflow.app.share.history_reach import NEVER, HistoryReach
from marketflow.domain.periods import MINUTE, SECOND, Span

NOON = 1_795_348_800_000
BEGAN = NOON + 12_345
NEWEST = Span(NOON - MINUTE, NOON + MINUTE)


def newest_read(history, span=NEWEST):
    return history.newest_read(history.wanted, span)


def reach(history, began_at=BEGAN):
    return HistoryReach(history, began_at, MINUTE)


READ = History().was_read(1)


@pytest.mark.parametrize(
    ("history", "known_from"),
    [
        pytest.param(History(), NOON + 13 * SECOND, id="unread: the first whole second of this boot"),
        pytest.param(newest_read(History()), NOON - MINUTE, id="the newest were read"),
        pytest.param(
            newest_read(History().database_ours()),
            NOON,
            id="rows have yet to tell: the interval that was open",
        ),
        pytest.param(
            newest_read(History().database_ours(), Span(NOON, NOON + MINUTE)), NOON, id="no more was read"
        ),
        pytest.param(READ, 0, id="all were read"),
        pytest.param(READ.database_ours(), NOON, id="all were read, and rows have yet to tell"),
        pytest.param(READ.database_ours().rows_told(), 0, id="rows have told"),
    ],
)
def test_from_when_on_the_bars_are_known(history, known_from):
    assert reach(history).known_from == known_from


def test_before_it_began_nothing_is_known():
    """Another boot may be running."""
    assert reach(newest_read(History()), None).known_from == NEVER
    assert reach(READ, None).known_from == 0


@pytest.mark.parametrize(
    ("began_at", "known_from"), [(NOON + 54_999, NOON - MINUTE), (NOON + 55_000, NOON + 55_000)]
)
def test_the_newest_bars_tell_nothing_if_this_boot_began_after_them(began_at, known_from):
    """The clock was behind when they were read: earlier boots may have later ones, up to 5 s ahead."""
    assert reach(newest_read(History()), began_at).known_from == known_from


def test_what_a_reading_under_way_can_add_to_is_not_complete():
    assert reach(History()).complete_from == NEVER
    assert reach(newest_read(History())).complete_from == NOON - MINUTE
    assert reach(READ).complete_from == 0
    again = READ.read_again()
    assert reach(again).known_from == 0, "what was read stays true"
    assert reach(again).complete_from == NEVER, "another boot may have written"
    assert reach(newest_read(again)).complete_from == NOON - MINUTE


def test_a_reading_that_is_not_wanted_any_more_tells_of_no_newest_bars():
    """Another boot may have written since."""
    history = newest_read(History()).read_again()
    assert reach(history).complete_from == NEVER
    assert reach(history.newest_read(1, NEWEST)).complete_from == NEVER
