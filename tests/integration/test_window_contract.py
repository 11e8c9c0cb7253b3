"""The contract of every window: the one in memory, the simulated one and Redis behave alike."""

from __future__ import annotations

import random
import time
from contextlib import asynccontextmanager
from operator import attrgetter

import msgspec
import pytest
import redis
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_filling import fields_of
from slow_machine import answered, within
from structlog.testing import capture_logs

from marketflow.adapters.cache.bar_fields import field_name
from marketflow.adapters.cache.lock import LOCK, MARKER
from marketflow.adapters.cache.members import SEQUENCE_DIGITS
from marketflow.adapters.cache.memory import MemoryShelf, MemoryWindow
from marketflow.adapters.cache.redis import open_redis_window
from marketflow.app.ports import Flush, Sight, StoreAway, StoreRefuses, Written
from marketflow.app.share.foreign_bars import MOST_A_SECOND
from marketflow.app.share.sequences import MOST
from marketflow.domain.bars import Bar
from marketflow.domain.columns import Columns
from marketflow.domain.periods import HOUR, MINUTE, SECOND, Span, floor_to
from marketflow.domain.prices import PriceUpdate
from tests.simulation.stores import Link, SimulatedRedis, SimulatedWindow

PAIR = ("exchange1", "BTCUSDT")
OTHER = ("exchange2", "BTCUSDT")
NOON = floor_to(1_795_343_351_549, HOUR)
FIRST = NOON * 1_000
"""A sequence of the size that the service uses: 16 digits."""
TIMEOUT = 0.5
"""The time limit in seconds of tests that wait for it."""

prices = st.floats(min_value=5e-324, max_value=1.7976931348623157e308)


class InMemory:
    """One store in memory, and windows on it for several boots."""

    def __init__(self):
        self._shelf = MemoryShelf()

    @asynccontextmanager
    async def open(self, boot):
        yield MemoryWindow(boot=boot, shelf=self._shelf)

    def empty(self):
        self._shelf.empty()

    @asynccontextmanager
    async def refusing_updates(self, window):
        window.refused = {"updates"}
        yield
        window.refused = set()


class Simulated(InMemory):
    """The store of the simulation, without faults."""

    def __init__(self):
        self._server = SimulatedRedis()
        self._shelf = self._server.shelf

    @asynccontextmanager
    async def open(self, boot):
        link = Link(self._server, random.Random(boot), timeout=10)
        yield SimulatedWindow(boot=boot, link=link, server=self._server)


class InRedis:
    """A Redis, and windows on it for several boots."""

    def __init__(self, url, timeout=10.0):
        self.url = url
        self._timeout = timeout

    @asynccontextmanager
    async def open(self, boot):
        async with open_redis_window(
            self.url, boot=boot, window_length=MINUTE, timeout=self._timeout
        ) as window:
            yield window

    def empty(self):
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    @asynccontextmanager
    async def refusing_updates(self, _):
        with redis.Redis.from_url(self.url) as client:
            client.execute_command("ACL", "SETUSER", "default", "-zadd")
            yield
            client.execute_command("ACL", "SETUSER", "default", "+zadd")


@pytest.fixture(params=["memory", "simulated", "redis", "redis-unix", "redis-tls"])
def place(request):
    match request.param:
        case "memory":
            return InMemory()
        case "simulated":
            return Simulated()
    url = request.getfixturevalue("redis_url")  # empty
    match request.param:
        case "redis-unix":
            url = request.getfixturevalue("redis_server").unix_url
        case "redis-tls":
            url = request.getfixturevalue("tls_redis_url")
    return InRedis(url)


@pytest.fixture
async def window(place):
    async with place.open("boot1") as window:
        yield window


@pytest.fixture
def client(redis_url):
    """A client to look into the Redis and to change it."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def redis_window(redis_url):
    async with InRedis(redis_url).open("boot1") as window:
        yield window


def run_of(timestamps, prices=None, *, first=0, pair=PAIR):
    """Updates in the order of receipt."""
    prices = [float(n + 1) for n in range(len(timestamps))] if prices is None else prices
    sequences = range(FIRST + first, FIRST + first + len(timestamps))
    return Written(*pair, sequences, Columns(list(timestamps), list(prices)))


async def put(window, *runs, bars=()):
    return await write(window, window.encode(Flush(list(runs), list(bars))))


async def write(window, flush):
    return await window.write(flush)


async def trim(window, pairs, *, older_than, bars):
    await write(window, window.encode_trim(pairs, older_than=older_than, bars=bars))


async def edge(window, start, end, pair=PAIR):
    ((found,),) = (await window.edges([pair], [Span(start, end)])).values()
    return found


def bar(timestamp, price=1.0, sequence=FIRST):
    return Bar.of([timestamp], [price], sequence)


# ---- the marker ----


async def test_the_marker_tells_what_became_of_what_was_written_before(place, window):
    """It detects that a store was emptied, even if the connection stays."""
    assert not await put(window)
    assert await put(window)
    assert await put(window, run_of([NOON]))
    place.empty()
    assert not await put(window)
    assert await put(window)


async def test_each_post_tells_of_those_before_it(place, window):
    """Flushes are acknowledged in order, by the next post, a write or `collect`."""
    flushes = [window.encode(Flush([run_of([NOON + n], first=n)], [])) for n in range(6)]
    await put(window)
    for flush in flushes[:3]:
        assert await window.post(flush)
    assert await window.collect()
    assert (await edge(window, NOON, NOON + SECOND)).bar.count == 3
    place.empty()
    assert await window.post(flushes[3])
    assert not await window.post(flushes[4])
    assert await window.write(flushes[5])
    assert await window.collect()
    assert (await edge(window, NOON, NOON + SECOND)).bar.count == 3
    place.empty()
    assert await window.post(flushes[0])
    assert not await window.write(flushes[1])
    assert await window.write(flushes[2])


async def test_another_boot_starts_over(place, window):
    await put(window)
    async with place.open("boot2") as other:
        assert not await put(other)
        assert await put(other)


async def test_a_write_without_bars_leaves_them_as_they_are(window):
    """A replay is old, and the bars have changed since."""
    field = (NOON, "boot1")
    flush = window.encode(Flush([run_of([NOON])], [(PAIR, field, bar(NOON))]))
    await write(window, flush)
    newer = Bar.of([NOON, NOON], [1.0, 2.0], FIRST)
    await put(window, bars=[(PAIR, field, newer)])
    await write(window, flush.without_bars())
    assert fields_of(await window.all_bars([PAIR])) == {PAIR: {field: newer}}
    assert 0 < flush.without_bars().size <= flush.size


# ---- the hold ----


async def test_one_boot_holds_it_until_it_gives_it_back(place, window):
    async with place.open("boot2") as other:
        nobody = await window.look()
        assert nobody == Sight(None, None)
        assert await window.take(nobody)
        assert not await other.take(nobody)
        assert await other.look() == Sight("boot1", None)
        await other.release()
        await put(window)
        assert await other.look() == Sight("boot1", "boot1:1")
        await window.release()
        # There is no marker, which shows that nobody writes any more.
        assert await other.look() == Sight(None, None)
        assert await other.take(nobody)


async def test_a_hold_is_taken_over_as_it_was_seen_or_not_at_all(place, window):
    """Two boots may want the lease at once, and its holder may be alive after all."""
    await window.take(await window.look())
    await put(window)
    async with place.open("boot2") as second, place.open("boot3") as third:
        seen = await second.look()
        await put(window)
        assert not await second.take(seen)
        seen = await second.look()
        assert await second.take(seen)
        assert not await third.take(seen)
        assert (await third.look()).holder == "boot2"
        await window.release()
        assert (await third.look()).holder == "boot2"


async def test_a_write_tells_who_holds_it_and_whose_marker_it_has_found(place, window):
    await window.take(await window.look())
    await put(window)
    assert window.met == Sight("boot1", None)
    async with place.open("boot2") as other:
        await put(other)
        assert other.met == Sight("boot1", "boot1:1")
        await put(window)
        assert window.met == Sight("boot1", "boot2:1")
        await put(window)
        assert window.met == Sight("boot1", None)
        # This also holds for several writes that are acknowledged together.
        await put(other)
        await window.post(window.encode(Flush((), ())))
        await put(window)
        assert window.met == Sight("boot1", "boot2:2")
    place.empty()
    await put(window)
    assert window.met == Sight(None, None)


async def test_what_was_refused_has_still_set_the_marker(place, window):
    """The rest of a write takes effect, so the next write does not find a wrong marker."""
    await put(window)
    async with place.refusing_updates(window):
        for send in (window.write, window.post):
            with pytest.raises(StoreAway):  # noqa: PT012 - one of them, as the case may be
                await send(window.encode(Flush([run_of([NOON])], ())))
                await window.collect()
            assert await put(window)
        await window.post(window.encode(Flush([run_of([NOON])], ())))
        with pytest.raises(StoreAway):
            await window.post(window.encode(Flush((), ())))
        assert await put(window)
        place.empty()
        with pytest.raises(StoreAway):
            await put(window, run_of([NOON]))
        assert not await put(window), "that it was emptied is not forgotten"
    assert await put(window, run_of([NOON]))


# ---- raw updates ----


async def test_an_edge_is_the_bar_of_its_span(window):
    """Left-closed, right-open, with the counts of the whole seconds that it touches."""
    times = [NOON + ms for ms in (0, 999, 1_000, 1_500, 2_000, 2_500, 3_000)]
    await put(window, run_of(times))
    found = await edge(window, NOON + 999, NOON + 2_500)
    assert found.bar == Bar.of(times[1:5], [2.0, 3.0, 4.0, 5.0], FIRST + 1)
    assert found.seconds == {NOON: 2, NOON + 1_000: 2, NOON + 2_000: 2}


async def test_nothing_there(window):
    found = await edge(window, NOON, NOON + 1)
    assert (found.bar, found.seconds) == (None, {NOON: 0})
    assert fields_of(await window.all_bars([PAIR])) == {PAIR: {}}
    assert await window.bars({PAIR: [(NOON, "boot1")]}) == {PAIR: {}}
    assert await window.bars({PAIR: []}) == {PAIR: {}}
    assert await window.edges([PAIR], []) == {PAIR: []}


async def test_equal_updates_of_one_millisecond_are_all_held(window):
    await put(window, run_of([NOON] * 5, [7.0] * 5))
    assert (await edge(window, NOON, NOON + 1)).bar.count == 5


async def test_writing_again_changes_nothing(window):
    """A retry or a replay sends the same bytes."""
    flush = window.encode(
        Flush([run_of([NOON, NOON, NOON + 5], [7.0, 7.0, 9.0])], [(PAIR, (NOON, "b"), bar(NOON))])
    )
    for _ in range(3):
        await write(window, flush)
    found = await edge(window, NOON, NOON + SECOND)
    assert (found.bar.count, found.seconds) == (3, {NOON: 3})
    assert fields_of(await window.all_bars([PAIR])) == {PAIR: {(NOON, "b"): bar(NOON)}}


async def test_boots_do_not_overwrite_each_other(place, window):
    """This holds even with the same sequences, prices and timestamps."""
    await put(window, run_of([NOON], [7.0]), bars=[(PAIR, (NOON, "boot1"), bar(NOON))])
    async with place.open("boot2") as other:
        await put(other, run_of([NOON], [7.0]), bars=[(PAIR, (NOON, "boot2"), bar(NOON))])
    assert (await edge(window, NOON, NOON + 1)).bar.count == 2
    assert set(fields_of(await window.all_bars([PAIR]))[PAIR]) == {(NOON, "boot1"), (NOON, "boot2")}


async def test_pairs_with_bars_are_found_whichever_they_are(window):
    """This includes symbols and exchanges of earlier boots that are not configured now."""
    assert list(await window.pairs_with_bars()) == []
    pairs = [PAIR, OTHER, ("old-exchange_7", "GONEUSDT")]
    await put(window, run_of([NOON], pair=("exchange3", "BTCUSDT")))
    await put(window, bars=[(pair, (NOON, "boot1"), bar(NOON)) for pair in pairs])
    assert sorted(await window.pairs_with_bars()) == sorted(pairs)
    await trim(window, [], older_than=0, bars=[(OTHER, (NOON, "boot1"))])
    assert sorted(await window.pairs_with_bars()) == sorted([PAIR, pairs[2]])


@pytest.mark.parametrize("order", [[9.0, 100.0], [100.0, 9.0], [2e-07, 1.5, 1e308], [1e308, 1.5, 2e-07]])
async def test_of_equal_timestamps_the_later_received_is_the_later(window, order):
    """This holds in any order of their texts: 100.0 sorts before 9.0."""
    await put(window, run_of([NOON] * len(order), order))
    found = (await edge(window, NOON, NOON + 1)).bar
    assert (found.open, found.close) == (order[0], order[-1])
    assert (found.open_sequence, found.close_sequence) == (FIRST, FIRST + len(order) - 1)


@pytest.mark.parametrize("count", [3, 20_000])
async def test_many_updates_of_one_millisecond(window, count):
    """All of them are stored, and the last received is the last."""
    rng = random.Random(count)
    order = [rng.choice([9.0, 10.0, 100.0, 2e-07]) for _ in range(count)]
    await put(window, run_of([NOON - 1], [5.0], first=count))
    await put(window, run_of([NOON] * count, order))
    found = await edge(window, NOON, NOON + 1)
    assert (found.bar.count, found.seconds[NOON]) == (count, count)
    assert (found.bar.open, found.bar.close) == (order[0], order[-1])
    assert (found.bar.open_sequence, found.bar.close_sequence) == (FIRST, FIRST + count - 1)


async def test_sequences_need_no_order_and_no_range(window):
    """Such sequences remain of a run of which some updates were too old."""
    await put(window, Written(*PAIR, [FIRST + 4, FIRST + 9, FIRST + 7], Columns([NOON] * 3, [1.0, 2.0, 3.0])))
    found = (await edge(window, NOON, NOON + 1)).bar
    assert (found.open, found.close) == (1.0, 2.0)


async def test_pairs_are_kept_apart(window):
    await put(window, run_of([NOON], [1.0]), run_of([NOON], [2.0], pair=OTHER))
    found = await window.edges([OTHER, PAIR], [Span(NOON, NOON + 1), Span(NOON + 1, NOON + 2)])
    assert [[each.bar and each.bar.open for each in found[pair]] for pair in (PAIR, OTHER)] == [
        [1.0, None],
        [2.0, None],
    ]


@given(st.lists(st.tuples(st.integers(0, 3_000), prices), min_size=1, max_size=30), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
async def test_edges_agree_with_the_updates(place, updates, data):
    """This holds for any order of timestamps, any cut into flushes, and any price."""
    place.empty()
    cut = data.draw(st.integers(0, len(updates)))
    start = data.draw(st.integers(0, 3_000))
    end = data.draw(st.integers(start, 3_001))
    async with place.open("boot1") as window:
        first = 0
        for part in (updates[:cut], updates[cut:]):
            if part:
                await put(
                    window, run_of([NOON + ms for ms, _ in part], [price for _, price in part], first=first)
                )
                first += len(part)
        found = await edge(window, NOON + start, NOON + end)
        inside = sorted((ms, n, price) for n, (ms, price) in enumerate(updates) if start <= ms < end)
        if not inside:
            assert found.bar is None
        else:
            values = [price for *_, price in inside]
            assert (found.bar.count, found.bar.min, found.bar.max) == (len(values), min(values), max(values))
            assert (found.bar.open, found.bar.close) == (values[0], values[-1])
            assert (found.bar.open_time, found.bar.close_time) == (NOON + inside[0][0], NOON + inside[-1][0])
            sequences = FIRST + inside[0][1], FIRST + inside[-1][1]
            assert (found.bar.open_sequence, found.bar.close_sequence) == sequences
        assert found.seconds == {
            second: sum(second <= NOON + ms < second + SECOND for ms, _ in updates)
            for second in range(floor_to(NOON + start, SECOND), NOON + end, SECOND)
        }


async def test_trimming_removes_what_is_older_and_no_more(window):
    await put(
        window,
        run_of([NOON - 1, NOON, NOON + 1]),
        run_of([NOON - 1], pair=OTHER),
        bars=[(PAIR, (NOON + n * SECOND, "boot1"), bar(NOON + n * SECOND)) for n in range(3)],
    )
    await trim(window, [PAIR], older_than=NOON, bars=[(PAIR, (NOON, "boot1")), (OTHER, (NOON, "none"))])
    assert (await edge(window, NOON - 5, NOON + 5)).bar.count == 2
    assert (await edge(window, NOON - 5, NOON + 5, OTHER)).bar.count == 1
    assert sorted(fields_of(await window.all_bars([PAIR]))[PAIR]) == [
        (NOON + n * SECOND, "boot1") for n in (1, 2)
    ]


# ---- bars ----


@given(prices, prices, st.integers(1, MOST_A_SECOND), st.integers(0, MOST - 2))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
async def test_bars_come_back_bit_by_bit(place, low, high, count, sequence):
    low, high = min(low, high), max(low, high)
    whole = Bar(count, low, low, high, high, NOON + 1, sequence, low, NOON + 999, sequence + 1)
    async with place.open("boot1") as window:
        await put(window, bars=[(PAIR, (NOON, "boot1"), whole)])
        assert await window.bars({PAIR: [(NOON, "boot1")]}) == {PAIR: {(NOON, "boot1"): whole}}


async def test_bars_are_absolute_values(window):
    """The last written bar is stored."""
    for price in (1.0, 2.0):
        await put(window, bars=[(PAIR, (NOON, "boot1"), bar(NOON, price))])
    assert fields_of(await window.all_bars([PAIR]))[PAIR] == {(NOON, "boot1"): bar(NOON, 2.0)}


async def test_ids_of_the_newest_trades(window):
    """The oldest first; updates without an id are left out, and count as some of the newest."""
    whole = Columns(
        [NOON, NOON + 2, NOON + 1, NOON + 3, NOON + 4],
        [1.0] * 5,
        [0.5, None, None, 2.0, 3.0],
        ["buy", None, None, "sell", "buy"],
        ["1", "5", "x-2", "7", None],
    )
    await put(window, Written(*PAIR, range(FIRST, FIRST + 5), whole), run_of([NOON], pair=OTHER))
    assert dict(await window.ids([PAIR, OTHER], 4)) == {PAIR: ["x-2", "5", "7"], OTHER: []}
    assert dict(await window.ids([PAIR], 100)) == {PAIR: ["1", "x-2", "5", "7"]}
    assert dict(await window.ids([], 4)) == {}


async def test_updates_of_spans_in_the_order_asked(window):
    """Whole, with what their sources told, and equal ones as often as they came."""
    whole = Columns(
        [NOON, NOON, NOON + 1, NOON + 999],
        [2e-07, 2e-07, 100150.75492142327, 1.0],
        [0.5, None, None, 2.0],
        ["buy", None, None, None],
        ["1", None, "x-2", None],
    )
    await put(window, Written(*PAIR, range(FIRST, FIRST + 4), whole), run_of([NOON], pair=OTHER))
    asked = [
        (PAIR, Span(NOON, NOON + 999)),
        (OTHER, Span(NOON + 1, NOON + 2)),
        (PAIR, Span(NOON + 999, 2**53)),
    ]
    first, second, third = [
        sorted(found, key=attrgetter("sequence")) for found in await window.updates(asked)
    ]
    assert first == [
        PriceUpdate(*PAIR, 2e-07, NOON, FIRST, 0.5, "buy", "1"),
        PriceUpdate(*PAIR, 2e-07, NOON, FIRST + 1),
        PriceUpdate(*PAIR, 100150.75492142327, NOON + 1, FIRST + 2, id="x-2"),
    ]
    assert (second, third) == ([], [PriceUpdate(*PAIR, 1.0, NOON + 999, FIRST + 3, 2.0)])
    assert list(await window.updates([])) == []


async def test_counts_and_prices_of_spans_in_the_order_asked(window):
    await put(window, run_of([NOON, NOON, NOON + 1, NOON + 999]), run_of([NOON + 5], pair=OTHER))
    asked = [
        (PAIR, Span(NOON, NOON + 1)),
        (OTHER, Span(NOON, NOON + 1_000)),
        (PAIR, Span(NOON, NOON + 999)),
        (PAIR, Span(NOON + 1, NOON + 1_000)),
        (PAIR, Span(NOON + 2, NOON + 2)),
    ]
    assert list(await window.counts(asked)) == [2, 1, 3, 2, 0]
    prices = [sorted(found) for found in await window.prices(asked)]
    assert prices == [[1.0, 2.0], [1.0], [1.0, 2.0, 3.0], [3.0, 4.0], []]
    assert list(await window.counts([])) == list(await window.prices([])) == []


async def test_only_the_fields_that_are_asked_for(window):
    fields = [(NOON + n * SECOND, boot) for n in range(5) for boot in ("boot1", "boot2")]
    await put(window, bars=[(PAIR, field, bar(field[0])) for field in fields])
    asked = {PAIR: [fields[3], (NOON, "none"), fields[0]], OTHER: [fields[0]]}
    assert await window.bars(asked) == {
        PAIR: {field: bar(field[0]) for field in (fields[0], fields[3])},
        OTHER: {},
    }


async def test_an_hour_of_bars_at_once(window):
    """They are more than fit into one command."""
    fields = [(NOON + n * SECOND, "boot1") for n in range(3_600)]
    await put(window, bars=[(PAIR, field, bar(field[0])) for field in fields])
    assert len((await window.bars({PAIR: fields}))[PAIR]) == 3_600
    assert len(fields_of(await window.all_bars([PAIR]))[PAIR]) == 3_600
    await trim(window, [PAIR], older_than=0, bars=[(PAIR, field) for field in fields[:3_000]])
    assert len(fields_of(await window.all_bars([PAIR]))[PAIR]) == 600


@pytest.mark.parametrize("first", [0, 20, 40, 59], ids=lambda first: f"from minute {first}")
async def test_the_bars_of_some_minutes(place, window, first):
    """Of all boots, and no others, wherever a hundred or a thousand seconds begin."""
    fields = [(NOON + n * SECOND, "boot1") for n in range(3_600)]
    await put(window, bars=[(PAIR, field, bar(field[0])) for field in fields])
    span = Span(NOON + first * MINUTE, NOON + (first + 3) * MINUTE)
    async with place.open("boot2") as other:
        await put(other, bars=[(PAIR, (span.start + SECOND, "boot2"), bar(span.start + SECOND))])
    expected = {(second, boot) for second, boot in fields if second in span} | {
        (span.start + SECOND, "boot2")
    }
    found = fields_of(await window.bars_within([PAIR, OTHER], span))
    assert set(found[PAIR]) == expected
    assert not found[OTHER]


async def test_foreign_fields_do_not_hide_the_bars_of_some_minutes(redis_window, client):
    await put(redis_window, bars=[(PAIR, (NOON, "boot1"), bar(NOON))])
    client.hset("bars:exchange1:BTCUSDT", field_name((NOON, "later")), b"\x04anything")
    client.hset("bars:exchange1:BTCUSDT", b"%d:" % (NOON // SECOND), b"anything")
    found = await redis_window.bars_within([PAIR], Span(NOON, NOON + MINUTE))
    assert fields_of(found) == {PAIR: {(NOON, "boot1"): bar(NOON)}}


async def test_a_user_who_may_not_search_hashes_is_refused(redis_window, client):
    """All bars can still be read."""
    await put(redis_window, bars=[(PAIR, (NOON, "boot1"), bar(NOON))])
    client.execute_command("ACL", "SETUSER", "default", "-hscan")
    try:
        with pytest.raises(StoreRefuses):
            await redis_window.bars_within([PAIR], Span(NOON, NOON + MINUTE))
        assert fields_of(await redis_window.all_bars([PAIR])) == {PAIR: {(NOON, "boot1"): bar(NOON)}}
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+hscan")


# ---- Redis alone: what others may rely on ----


async def test_the_hold_expires_unless_it_is_renewed(redis_window, client):
    await redis_window.take(await redis_window.look())
    assert 4_000 < client.pttl(LOCK) <= 5_000
    client.pexpire(LOCK, 100)
    await put(redis_window)
    assert 4_000 < client.pttl(LOCK) <= 5_000


async def test_members_and_keys_are_as_promised(redis_window, client):
    """Score = timestamp; a member begins with the price as text and a colon; every key expires."""
    order = [100150.75492142327, 2e-07, 0.3, 5e-324, 1.7976931348623157e308]
    await put(redis_window, run_of([NOON] * 5, order), bars=[(PAIR, (NOON, "boot1"), bar(NOON))])
    held = client.zrange("prices:exchange1:BTCUSDT", 0, -1, withscores=True)
    assert sorted(float(member.split(b":")[0]) for member, _ in held) == sorted(order)
    assert {score for _, score in held} == {float(NOON)}
    assert client.hkeys("bars:exchange1:BTCUSDT") == [b"%d:boot1" % (NOON // SECOND)]
    keys = set(client.keys("*"))
    assert keys == {b"prices:exchange1:BTCUSDT", b"bars:exchange1:BTCUSDT", MARKER}
    assert 60 < client.ttl("prices:exchange1:BTCUSDT") <= 65
    assert all(0 < client.ttl(key) <= 3_600 for key in keys)


async def test_keys_that_were_ended_expire_again(redis_window, client):
    """They may have ended by removing all members, by another client, or during a write without answer."""
    first, second = "prices:exchange1:BTCUSDT", "bars:exchange1:BTCUSDT"
    bars = [(PAIR, (NOON, "boot1"), bar(NOON))]
    written = redis_window.encode(Flush([run_of([NOON])], bars))

    async def check():
        await write(redis_window, written)
        assert client.ttl(first) > 60
        assert client.ttl(second) > 3_500

    await check()
    await trim(redis_window, [PAIR], older_than=NOON + 1, bars=[(PAIR, (NOON, "boot1"))])
    assert client.keys("*") == [MARKER]
    await check()
    client.flushall()
    # The next write notices it, and later ones set all expiries again, also for repeated flushes.
    await write(redis_window, redis_window.encode(Flush((), ())))
    await check()
    await redis_window.post(written)
    client.flushall()
    client.client_kill_filter(skipme=True)
    # The first answer may have arrived before the connection broke, the second has not.
    with pytest.raises(StoreAway):
        await write(redis_window, written)
    await check()
    for end in (lambda: client.delete(first, second), client.flushall):
        end()
        await write(redis_window, written)
        # No more updates are written to them, but removals continue.
        await trim(redis_window, [PAIR], older_than=0, bars=[])
        assert client.ttl(first) > 60
        assert client.ttl(second) > 3_500


async def test_equal_prices_of_one_millisecond_come_in_the_order_of_receipt(redis_window, client):
    await put(redis_window, run_of([NOON] * 20, [7.0] * 20))
    held = client.zrange("prices:exchange1:BTCUSDT", 0, -1)
    assert [int(member.split(b":")[1], 36) for member in held] == list(range(FIRST, FIRST + 20))


async def test_what_others_wrote_into_our_keys_is_ignored(redis_window, client):
    """It is logged, not counted, and neither replaces nor hides data of ours."""
    junk = [b"", b"7", b"a:b:c", b"1.0:2", b"1:2:3:4", b"\xff:\xff:\xff", b"1.0:x:boot1"]
    await put(redis_window, run_of([NOON, NOON + 5], [1.0, 2.0]), bars=[(PAIR, (NOON, "boot1"), bar(NOON))])
    client.zadd("prices:exchange1:BTCUSDT", {member: NOON + n for n, member in enumerate(junk)})
    client.zadd("prices:exchange1:BTCUSDT", {b"fraction": NOON + 999.5, b"next": NOON + SECOND})
    client.zadd("prices:exchange1:BTCUSDT", {b"infinite": "inf", b"1.0:2:boot1": "inf"})
    for n, name in enumerate(junk):
        client.hset("bars:exchange1:BTCUSDT", name, b"[1]")
        client.hset("bars:exchange1:BTCUSDT", b"%d:boot1" % n, name)
    with capture_logs() as logs:
        found = await edge(redis_window, NOON, NOON + 2 * SECOND)
        assert found.bar == Bar.of([NOON, NOON + 5], [1.0, 2.0], FIRST)
        assert found.seconds == {NOON: 2, NOON + SECOND: 0}
        assert fields_of(await redis_window.all_bars([PAIR])) == {PAIR: {(NOON, "boot1"): bar(NOON)}}
        assert await redis_window.bars({PAIR: [(0, "boot1"), (NOON, "boot1")]}) == {
            PAIR: {(NOON, "boot1"): bar(NOON)}
        }
    assert {each["event"] for each in logs} == {"foreign update ignored", "foreign bar ignored"}


async def test_members_tell_volumes_and_sides(window):
    """Also beside members that tell none, and in any number of commands."""
    rng = random.Random(1)
    count = 2_500
    columns = Columns(
        [NOON + place * SECOND // count for place in range(count)],
        [rng.uniform(1e-7, 1e5) for _ in range(count)],
        [rng.choice([None, 0.0, rng.uniform(1e-9, 1e6)]) for _ in range(count)],
    )
    sides = [volume and rng.choice(["buy", "sell", None]) for volume in columns.volumes]
    columns = msgspec.structs.replace(columns, sides=[side or None for side in sides])
    plain = Columns([NOON + SECOND + 5], [7.0])
    await put(
        window,
        Written(*PAIR, range(FIRST, FIRST + count), columns),
        Written(*PAIR, range(FIRST + count, FIRST + count + 1), plain),
    )
    found = await edge(window, NOON, NOON + 2 * SECOND)
    right = Bar.of([*columns.timestamps, *plain.timestamps], [*columns.prices, *plain.prices], FIRST)
    assert (found.bar.count, found.bar.min, found.bar.close) == (right.count, right.min, right.close)
    traded, expected = found.bar.traded, columns.traded
    assert traded.updates == expected.updates == sum(volume is not None for volume in columns.volumes)
    for name in ("volume", "quote", "buy", "sell"):
        assert getattr(traded, name) == pytest.approx(getattr(expected, name), rel=1e-9)
    (prices,) = await window.prices([(PAIR, Span(NOON, NOON + 2 * SECOND))])
    assert sorted(prices) == sorted([*columns.prices, 7.0])


@pytest.mark.parametrize(
    "told", [b"2", b"2:", b"2:x", b"2:-1", b"2:nan", b"2:1:up", b"2:1:buy:x", b"x:1", b""]
)
async def test_what_no_update_tells_is_foreign(redis_window, client, told):
    await put(redis_window, run_of([NOON, NOON + 5], [1.0, 2.0]))
    client.zadd("prices:exchange1:BTCUSDT", {b"7.5:%b:them:%b" % (b"0" * SEQUENCE_DIGITS, told): NOON + 9})
    with capture_logs() as logs:
        found = await edge(redis_window, NOON, NOON + SECOND)
    assert found.bar == Bar.of([NOON, NOON + 5], [1.0, 2.0], FIRST)
    assert [each["event"] for each in logs] == ["foreign update ignored"]


async def test_bars_of_the_form_before_are_read_beside_ours(redis_window, client):
    """Version 0.1 wrote JSON. After an upgrade both are there, and even in one hash."""
    old, new = bar(NOON), bar(NOON + SECOND)
    await put(redis_window, bars=[(PAIR, (NOON + SECOND, "boot1"), new)])
    value = msgspec.json.encode(msgspec.structs.astuple(old)[:10])
    client.hset("bars:exchange1:BTCUSDT", field_name((NOON, "old")), value)
    both = {(NOON, "old"): old, (NOON + SECOND, "boot1"): new}
    with capture_logs() as logs:
        assert fields_of(await redis_window.all_bars([PAIR])) == {PAIR: both}
        assert await redis_window.bars({PAIR: list(both)}) == {PAIR: both}
        assert list(await redis_window.pairs_with_bars()) == [PAIR]
    assert logs == []


async def test_what_a_later_version_wrote_is_left_alone_and_told(redis_window, client):
    """It neither counts nor hides what is ours, and stays where it is."""
    await put(redis_window, run_of([NOON, NOON + 5], [1.0, 2.0]), bars=[(PAIR, (NOON, "boot1"), bar(NOON))])
    later = b"7.5:%b:late:4:0.25:buy" % (b"0" * SEQUENCE_DIGITS)
    client.zadd("prices:exchange1:BTCUSDT", {later: NOON + 9})
    client.hset("bars:exchange1:BTCUSDT", field_name((NOON, "late")), b"\x04anything")
    client.hset("bars:exchange2:BTCUSDT", field_name((NOON, "late")), b"\x04anything")
    with capture_logs() as logs:
        found = await edge(redis_window, NOON, NOON + SECOND)
        assert found.bar == Bar.of([NOON, NOON + 5], [1.0, 2.0], FIRST)
        assert found.seconds == {NOON: 2}
        assert fields_of(await redis_window.all_bars([PAIR])) == {PAIR: {(NOON, "boot1"): bar(NOON)}}
        assert sorted(await redis_window.pairs_with_bars()) == [PAIR, ("exchange2", "BTCUSDT")]
    assert {each["event"] for each in logs} == {
        "update of a later version ignored",
        "bar of a later version ignored",
    }
    assert client.zscore("prices:exchange1:BTCUSDT", later)
    assert client.hlen("bars:exchange1:BTCUSDT") == 2


@pytest.mark.parametrize(
    "wrong", [{"count": 0}, {"min": 2.0}, {"close_time": NOON + SECOND}, {"open_sequence": MOST}], ids=str
)
async def test_bars_that_no_boot_can_have_made_are_not_read(window, wrong):
    """No later part checks them again."""
    bad = msgspec.structs.replace(bar(NOON), **wrong)
    await put(window, bars=[(PAIR, (NOON, "other"), bad), (PAIR, (NOON, "boot1"), bar(NOON))])
    assert fields_of(await window.all_bars([PAIR])) == {PAIR: {(NOON, "boot1"): bar(NOON)}}
    fields = [(NOON, "other"), (NOON, "boot1")]
    assert await window.bars({PAIR: fields}) == {PAIR: {(NOON, "boot1"): bar(NOON)}}


async def test_foreign_data_has_one_line_a_minute(redis_window, client):
    """Each question finds it again."""
    client.zadd("prices:exchange1:BTCUSDT", {b"%d" % number: NOON for number in range(20)})
    client.hset("bars:exchange1:BTCUSDT", mapping={b"%d" % number: b"[1]" for number in range(10)})
    span = Span(NOON, NOON + SECOND)
    with capture_logs() as logs:
        for _ in range(5):
            await redis_window.edges([PAIR], [span])
            await redis_window.prices([(PAIR, span)])
            await redis_window.all_bars([PAIR])
            await redis_window.bars({PAIR: [(0, "boot1")]})
    assert sorted((each["event"], each["others_since"]) for each in logs) == [
        ("foreign bar ignored", 9),
        ("foreign update ignored", 19),
    ]


@pytest.mark.parametrize("price", [b"nan", b"inf", b"-inf", b"-1.0", b"0.0", b"1e999"])
async def test_prices_that_no_update_has_are_ignored(redis_window, client, price):
    """They would make an average, a lowest or a highest price that is none."""
    await put(redis_window, run_of([NOON, NOON + 5], [1.0, 2.0]))
    member = price + b":" + b"0" * SEQUENCE_DIGITS + b":them"
    for timestamp in (NOON, NOON + 2, NOON + 9):
        client.zadd("prices:exchange1:BTCUSDT", {member: timestamp})
        found = await edge(redis_window, NOON, NOON + SECOND)
        assert found.bar == Bar.of([NOON, NOON + 5], [1.0, 2.0], FIRST)
        assert found.seconds == {NOON: 2}
        (prices,) = await redis_window.prices([(PAIR, Span(NOON, NOON + SECOND))])
        assert sorted(prices) == [1.0, 2.0]


async def test_bars_of_others_make_no_pairs(redis_window, client):
    """Keys of other types, names and contents, among thousands of foreign keys, are ignored."""
    await put(redis_window, bars=[(PAIR, (NOON, "boot1"), bar(NOON))])
    with client.pipeline() as pipeline:
        for n in range(5_000):
            pipeline.set(f"other:{n}", n)
        pipeline.execute()
    field, value = client.hgetall("bars:exchange1:BTCUSDT").popitem()
    for name in (
        "bars:exchange2:BTC-USDT",
        "bars:a:b:BTCUSDT",
        "bars:BTCUSDT",
        "bars::BTCUSDT",
        "xbars:a:BTC",
    ):
        client.hset(name, field, value)
    client.set("bars:exchange3:BTCUSDT", value)
    client.rpush("bars:exchange4:BTCUSDT", value)
    client.hset("bars:exchange5:BTCUSDT", "monday", value)
    client.hset("bars:exchange6:BTCUSDT", field, "closed")
    client.hset("bars:exchange7:BTCUSDT", mapping=dict.fromkeys(range(10_001), value))
    assert list(await redis_window.pairs_with_bars()) == [PAIR]


async def test_where_scan_is_forbidden_only_the_configured_are_known(redis_window, client):
    """That is logged, and nothing else fails."""
    client.execute_command("ACL", "SETUSER", "default", "-scan")
    try:
        with capture_logs() as logs:
            assert list(await redis_window.pairs_with_bars()) == []
            await put(redis_window, bars=[(PAIR, (NOON, "boot1"), bar(NOON))])
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+scan")
    assert [each["event"] for each in logs] == ["search for old symbols failed"]


async def test_a_store_that_came_back_older_is_noticed(redis_window, client):
    """Started from a snapshot, it has a marker of ours, but not the last one."""
    await put(redis_window)
    older = client.get(MARKER)
    assert await put(redis_window)
    client.set(MARKER, older)
    assert not await put(redis_window)
    assert await put(redis_window)


# ---- away ----


def every_call(window):
    """All calls of the port."""
    return [
        lambda: put(window, run_of([NOON], [7.0])),
        lambda: trim(window, [PAIR], older_than=NOON, bars=[]),
        lambda: window.all_bars([PAIR]),
        lambda: window.bars({PAIR: [(NOON, "boot1")]}),
        lambda: window.bars_within([PAIR], Span(NOON, NOON + MINUTE)),
        lambda: window.edges([PAIR], [Span(NOON, NOON + 1)]),
        lambda: window.counts([(PAIR, Span(NOON, NOON + 1))]),
        lambda: window.prices([(PAIR, Span(NOON, NOON + 1))]),
        lambda: window.updates([(PAIR, Span(NOON, NOON + 1))]),
        window.look,
        lambda: window.take(Sight(None, None)),
        lambda: window.take(Sight("boot2", "boot2:1")),
        window.release,
    ]


async def check_away(window, *, seconds):
    """Check that every call fails in time."""
    for call in every_call(window):
        with within(seconds), pytest.raises(StoreAway):
            await call()


async def test_a_server_that_stops_is_away_and_comes_back(own_redis):
    async with InRedis(own_redis.url).open("boot1") as window:
        for call in every_call(window):
            await call()
        own_redis.kill()
        await check_away(window, seconds=TIMEOUT)
        own_redis.start()
        assert not await put(window)
        for call in every_call(window):
            await call()


async def test_a_server_that_hangs_is_away_within_the_time_limit(own_redis):
    """Connections stay open without answers; afterwards no answer is mistaken for another call's."""
    async with InRedis(own_redis.url, TIMEOUT).open("boot1") as window:
        await answered(lambda: put(window, run_of([NOON], [7.0])))
        own_redis.pause()
        try:
            await check_away(window, seconds=3 * TIMEOUT)
            # Calls do not wait for each other's time limits.
            with within(3 * TIMEOUT):
                async with trio.open_nursery() as nursery:
                    for _ in range(12):
                        nursery.start_soon(fails, window)
        finally:
            own_redis.resume()
        # Without an answer it is unknown what those writes found.
        assert not await answered(lambda: put(window, run_of([NOON], [7.0])))
        # A write that is away on a slow machine makes the next one uncertain again.
        while not await answered(lambda: put(window)):
            pass
        assert (await answered(lambda: edge(window, NOON, NOON + 1))).bar == bar(NOON, 7.0)


async def fails(window):
    with pytest.raises(StoreAway):
        await edge(window, NOON, NOON + 1)


async def test_nobody_listens_there():
    async with InRedis("redis://127.0.0.1:1/0").open("boot1") as window:
        await check_away(window, seconds=TIMEOUT)


async def test_error_replies_are_away(own_redis):
    """Out of memory: reads go on, no write counts as done, and afterwards everything works."""
    async with InRedis(own_redis.url).open("boot1") as window:
        await put(window, run_of([NOON], [7.0]))
        with redis.Redis.from_url(own_redis.url) as client:
            client.config_set("maxmemory", "1")
            with pytest.raises(StoreAway, match="memory"):
                await put(window, run_of([NOON + 1]))
            assert (await edge(window, NOON, NOON + 2)).bar == bar(NOON, 7.0)
            with pytest.raises(StoreAway, match="memory"):  # refused in part, but the removals take effect
                await trim(window, [PAIR], older_than=NOON + 1, bars=[])
            assert (await edge(window, NOON, NOON + 2)).bar is None
            client.config_set("maxmemory", "0")
        await put(window, run_of([NOON + 1], [8.0]))
        assert (await edge(window, NOON, NOON + 2)).bar == bar(NOON + 1, 8.0)


async def test_a_key_of_another_kind_is_away(redis_window, client):
    client.set("prices:exchange1:BTCUSDT", "mine")
    with pytest.raises(StoreAway):
        await put(redis_window, run_of([NOON]))


async def test_a_write_is_not_abandoned_by_a_cancellation(own_redis):
    """It must not take effect after its caller got an error."""
    async with InRedis(own_redis.url, TIMEOUT).open("boot1") as window:
        await answered(lambda: put(window))
        own_redis.pause()
        began = time.monotonic()
        try:
            with within(3 * TIMEOUT), trio.move_on_after(0.1):
                await put(window, run_of([NOON]))
        except StoreAway:
            pass  # The time limit came first, which is also correct.
        finally:
            own_redis.resume()
        assert time.monotonic() - began > TIMEOUT * 0.8


async def test_an_eviction_policy_is_warned_of_once(own_redis):
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    async with InRedis(own_redis.url).open("boot1") as window:
        with capture_logs() as logs:
            await window.all_bars([PAIR])
            await window.all_bars([PAIR])
    assert [each["event"] for each in logs] == ["eviction enabled in Redis"]


async def test_a_url_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="redis"):
        async with InRedis("http://127.0.0.1").open("boot1"):
            pass
