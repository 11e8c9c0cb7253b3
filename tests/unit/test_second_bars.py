from __future__ import annotations

from builders import NOON, Sent, summary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from marketflow.app.share.rows import Due, Rows
from marketflow.app.share.second_bars import SecondBars, fuller
from marketflow.domain.bars import Bar
from marketflow.domain.packed_minute import by_minute
from marketflow.domain.periods import DAY, HOUR, MINUTE, SECOND, Span, floor_to

PAIR, OTHER = ("exchange1", "BTCUSDT"), ("exchange2", "BTCUSDT")
EVER = Span(0, 10**15)


def bars_of(*, boot="mine"):
    return SecondBars(boot=boot, interval=MINUTE)


def bar(timestamp, price=1.0, sequence=0):
    return Bar.of([timestamp], [price], sequence)


def add(bars, timestamp, price=1.0, sequence=0, pair=PAIR):
    bars.add(pair, floor_to(timestamp, SECOND), bar(timestamp, price, sequence))


def rows_of(bars, before=10**15):
    return {(row.end, row.pair): Rows(bars).aggregate(row, {}).bar for row in Rows(bars).take_due(before)}


def taken(bars, limit=10):
    return bars.take_unflushed(limit)[0]


# ---- bars by second ----


def test_of_each_field_the_fuller_bar_is_the_truer():
    one, two = Bar.of([1], [1.0]), Bar.of([1, 2], [1.0, 2.0])
    assert fuller({(0, "a"): one, (0, "b"): two}, {(0, "a"): two, (0, "b"): one, (1, "a"): one}) == {
        (0, "a"): two,
        (0, "b"): two,
        (1, "a"): one,
    }


def test_fields_are_those_of_seconds_that_start_in_the_span():
    bars = bars_of()
    for second in range(10):
        add(bars, NOON + second * SECOND + 500)
    found = bars.fields(PAIR, Span(NOON + 1_500, NOON + 4_000))
    assert sorted(found) == [(NOON + 2_000, "mine"), (NOON + 3_000, "mine")]
    assert len(bars.fields(PAIR, EVER)) == 10
    assert bars.fields(OTHER, EVER) == {}


def test_the_newest_is_known_after_its_bars_are_forgotten():
    bars = bars_of()
    add(bars, NOON + 5, 1.0, sequence=1)
    add(bars, NOON + 7, 2.0, sequence=2)
    add(bars, NOON + 6, 3.0, sequence=3)
    bars.prune(NOON + 3 * HOUR)
    assert bars.fields(PAIR, EVER) == {}
    assert bars.newest_bars.of(PAIR).close == 2.0


# ---- to Redis ----


def test_a_changed_bar_is_taken_again_and_no_other():
    bars = bars_of()
    for second in range(5):
        add(bars, NOON + second * SECOND)
    assert len(taken(bars, 3)) == 3
    assert bars.outbox.waiting
    assert len(taken(bars)) == 2
    assert not bars.outbox.waiting
    add(bars, NOON + SECOND, 7.0, sequence=9)
    ((_, field, again),) = taken(bars)
    assert (field, again.count, again.close) == ((NOON + SECOND, "mine"), 2, 7.0)


def test_what_the_store_lacks_or_holds_with_fewer_is_written_again():
    """This includes bars of other boots, under their own fields."""
    bars = bars_of()
    bars.adopt(PAIR, {(NOON, "theirs"): Bar.of([NOON, NOON], [1.0, 2.0])})
    add(bars, NOON)
    add(bars, NOON + SECOND)
    taken(bars)
    stored = {(NOON, "theirs"): bar(NOON), (NOON, "mine"): bar(NOON)}
    assert bars.mark_missing(PAIR, by_minute(stored)) == 2
    assert {field for _, field, _ in taken(bars)} == {(NOON, "theirs"), (NOON + SECOND, "mine")}


def test_bars_forgotten_are_written_no_more():
    bars = bars_of()
    add(bars, NOON)
    bars.prune(NOON + 3 * HOUR)
    assert taken(bars) == []
    assert not bars.outbox.waiting


# ---- to PostgreSQL ----


def test_rows_are_due_oldest_first_when_their_interval_has_ended():
    bars = bars_of()
    for minute in (3, 1, 2):
        add(bars, NOON + minute * MINUTE)
    add(bars, NOON + 2 * MINUTE, pair=OTHER)
    ends = [(row.end - NOON) // MINUTE for row in Rows(bars).take_due(NOON + 3 * MINUTE)]
    assert ends == [2, 3, 3]
    assert [Rows(bars).unwritten(NOON + minute * MINUTE) for minute in (1, 2, 3, 4)] == [0, 1, 3, 4]


def test_a_row_that_changed_while_it_was_written_stays_due():
    bars = bars_of()
    add(bars, NOON)
    due = Rows(bars).take_due(NOON + MINUTE)
    add(bars, NOON + 1, 2.0, sequence=1)
    Rows(bars).written(due)
    assert [row.end for row in Rows(bars).take_due(NOON + MINUTE)] == [NOON + MINUTE]
    Rows(bars).written(Rows(bars).take_due(NOON + MINUTE))
    assert Rows(bars).take_due(NOON + MINUTE) == []
    assert Rows(bars).unwritten(NOON + HOUR) == 0


def test_a_row_takes_in_what_only_the_store_knows_of_its_interval():
    bars = bars_of()
    add(bars, NOON)
    (due,) = Rows(bars).take_due(NOON + MINUTE)
    stored = {
        (NOON, "mine"): bar(NOON),
        (NOON, "theirs"): bar(NOON + 1, 5.0),
        (NOON + MINUTE, "theirs"): bar(NOON + MINUTE, 9.0),
    }
    row = Rows(bars).aggregate(due, stored)
    assert (row.bar.count, row.bar.max) == (2, 5.0)


def test_nothing_known_is_no_row():
    assert Rows(bars_of()).aggregate(Due(NOON, PAIR, 0), {}) is None


# ---- folding ----


def test_bars_folded_while_the_store_was_asked_do_not_count_twice():
    """They were read before they were folded, and merged after: from the store and from the fold."""
    bars = bars_of()
    bars.adopt(PAIR, {(NOON, "theirs"): bar(NOON, 2.0)})
    add(bars, NOON)
    (due,) = Rows(bars).take_due(NOON + MINUTE)
    stored = bars.fields(PAIR, EVER)
    bars.prune(NOON + 3 * HOUR)
    assert Rows(bars).aggregate(due, stored).bar.count == 2


def test_bars_folded_before_the_boot_do_not_count_twice():
    """They were spooled as a whole minute, and are also in a Redis that was away."""
    bars = bars_of()
    bars.adopt_folded(PAIR, NOON + MINUTE, "theirs", Bar.of([NOON, NOON + 1], [1.0, 2.0]))
    bars.adopt(PAIR, {(NOON, "theirs"): Bar.of([NOON, NOON + 1], [1.0, 2.0])})
    bars.adopt(PAIR, {(NOON, "others"): bar(NOON, 3.0)})
    ((_, row),) = rows_of(bars).items()
    assert (row.count, row.max) == (3, 3.0)
    assert bars.fields(PAIR, EVER).keys() == {(NOON, "others")}


def test_bars_written_and_forgotten_are_not_taken_over_again():
    bars = bars_of()
    bars.adopt(PAIR, {(NOON, "theirs"): bar(NOON)})
    Rows(bars).written(Rows(bars).take_due(NOON + MINUTE))
    bars.prune(NOON + 3 * HOUR)
    bars.adopt(PAIR, {(NOON, "theirs"): bar(NOON)})
    assert Rows(bars).take_due(10**15) == []


def test_pruning_says_what_it_forgot():
    bars = bars_of()
    add(bars, NOON)
    add(bars, NOON + 2 * HOUR)
    assert bars.prune(NOON + 30 * MINUTE) == []
    assert bars.prune(NOON + 2 * HOUR) == [(PAIR, (NOON, "mine"))]
    assert bars.prune(NOON + 2 * HOUR) == []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 200 * MINUTE)),
            st.tuples(st.just("adopt"), st.integers(0, 200 * MINUTE)),
            st.tuples(st.just("prune"), st.integers(0, 300 * MINUTE)),
            st.tuples(st.just("write"), st.integers(0, 300 * MINUTE)),
            st.tuples(st.just("adopt all again"), st.just(0)),
        ),
        max_size=60,
    )
)
@settings(max_examples=150, deadline=None)
def test_folding_loses_and_doubles_nothing(steps):
    """Rows written at that time are exact; unwritten bars are still known exactly."""
    bars = bars_of()
    sent, adopted, rows, horizon = [], {}, {}, 0
    for order, (step, ms) in enumerate(steps):
        timestamp = NOON + ms
        second = floor_to(timestamp, SECOND)
        match step:
            case "add" if timestamp >= horizon:
                sent.append(Sent(*PAIR, float(order + 1), timestamp, order))
                add(bars, timestamp, float(order + 1), order)
            case "adopt" if timestamp >= horizon and (second, f"boot{order}") not in adopted:
                sent.append(Sent(*PAIR, float(order + 1), timestamp, order))
                adopted[second, f"boot{order}"] = bar(timestamp, float(order + 1), order)
                bars.adopt(PAIR, {(second, f"boot{order}"): adopted[second, f"boot{order}"]})
            case "prune":
                bars.prune(timestamp)
                horizon = max(horizon, bars.pruned_to)
            case "write":
                due = Rows(bars).take_due(timestamp)
                rows.update({row.end: Rows(bars).aggregate(row, {}).bar for row in due})
                Rows(bars).written(due)
            case "adopt all again":
                bars.adopt_minutes(PAIR, by_minute(adopted).values())
    rows.update({end: row for (end, _), row in rows_of(bars).items()})
    groups = {}
    for update in sent:
        groups.setdefault(floor_to(update.timestamp, MINUTE) + MINUTE, []).append(update)
    assert rows.keys() == groups.keys()
    for end, row in rows.items():
        assert summary_of(groups[end]).says(row)
    for second, _ in bars.fields(PAIR, EVER):
        assert second >= bars.pruned_to


def test_bars_are_forgotten_also_after_a_step_back_of_all_clocks():
    """Otherwise they would pile up for the length of the step. Forgotten bars are not taken in again."""
    bars = bars_of()
    bars.prune(NOON + 3 * DAY)
    for minute in range(300):
        add(bars, NOON + minute * MINUTE, 1.0, minute)
        bars.prune(NOON + minute * MINUTE)
        assert len(bars.fields(PAIR, EVER)) <= 62
    assert sum(row.count for row in rows_of(bars).values()) == 300
    bars.adopt(PAIR, {(NOON, "other"): bar(NOON, 1.0, 0)})
    assert not bars.fields(PAIR, Span(NOON, NOON + MINUTE))
