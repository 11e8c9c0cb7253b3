"""The contract of the changes of bars: the twin in memory and Redis behave alike."""

from __future__ import annotations

import pytest
import redis
from structlog.testing import capture_logs
from terms import EXCHANGE, TermsInMemory, TermsInRedis, seal
from test_window_contract import NOON, bar, put, run_of

from marketflow.adapters.cache import change_log
from marketflow.app.ports import START, Change, Flush, StoreAway, Term
from marketflow.domain.periods import SECOND

PAIR = (EXCHANGE, "BTCUSDT")
OTHER = (EXCHANGE, "ETHUSDT")


@pytest.fixture(params=["memory", "redis"])
def place(request):
    if request.param == "memory":
        return TermsInMemory()
    return TermsInRedis(request.getfixturevalue("redis_url"))


@pytest.fixture
async def changes(place):
    async with place.changes() as changes:
        yield changes


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


def some_bars(number, term="t1"):
    second = NOON + number * SECOND
    return [(pair, (second, term), bar(second, number + 1.0)) for pair in (PAIR, OTHER)]


async def after(changes, place):
    return list(await changes.after(EXCHANGE, place))


async def test_there_are_none_at_first(changes):
    assert await changes.end(EXCHANGE) == START
    assert await after(changes, START) == []


async def test_each_write_with_bars_is_a_change(place, changes):
    """Others are not, and neither are removals. Numbers have no holes."""
    async with place.open("t1") as window:
        await put(window, run_of([NOON]), bars=some_bars(0))
        await put(window, run_of([NOON + 1], first=1))
        await window.write(window.encode_trim([PAIR], older_than=NOON, bars=[(PAIR, (NOON, "t1"))]))
        await window.post(window.encode_trim([PAIR], older_than=NOON, bars=[]))
        both = [*some_bars(1), *some_bars(2)]
        await put(window, bars=both)
    found = await after(changes, START)
    assert [(each.term, each.place) for each in found] == [("t1", "1-1"), ("t1", "1-2")]
    assert list(found[0].bars) == some_bars(0)
    assert sorted(found[1].bars, key=str) == sorted(both, key=str)
    assert await after(changes, found[0].place) == found[1:]
    assert await changes.end(EXCHANGE) == found[1].place
    assert await after(changes, found[1].place) == []


async def test_a_later_term_goes_on_behind_the_one_before(place, changes):
    async with place.open("t1") as window:
        await put(window, bars=some_bars(0))
        await put(window, bars=some_bars(1))
    end = await changes.end(EXCHANGE)
    async with place.open("t2") as window:
        await put(window, bars=some_bars(0, "t2"))
    (change,) = await after(changes, end)
    assert (change.term, change.place, list(change.bars)) == ("t2", "2-1", some_bars(0, "t2"))
    assert [each.term for each in await after(changes, START)] == ["t1", "t1", "t2"]


async def test_a_write_that_had_no_effect_is_no_change(place, changes):
    async with place.open("t1") as window:
        await put(window, bars=some_bars(0))
        end = await changes.end(EXCHANGE)
        async with place.open("t2"):
            with pytest.raises(StoreAway):
                await put(window, bars=some_bars(1))
        assert await after(changes, end) == []


async def test_a_write_that_failed_leaves_a_hole(place, changes):
    """It may have been written, and a place must never have two changes."""
    async with place.open("t1") as window:
        await put(window, bars=some_bars(0))
        place.forget_fence()
        with pytest.raises(StoreAway):
            await put(window, bars=some_bars(1))
        await seal(window)
        await put(window, bars=some_bars(1))
    assert [each.place for each in await after(changes, START)] == ["1-3"]


async def test_a_store_that_was_emptied_goes_on_behind_the_place_of_a_reader(place, changes):
    """The clock of the store has no part in it."""
    async with place.open("t1") as window:
        for number in range(3):
            await put(window, bars=some_bars(number))
        end = await changes.end(EXCHANGE)
        place.empty()
        assert await after(changes, end) == []
        await seal(window)
        await put(window, bars=some_bars(3))
        (change,) = await after(changes, end)
        assert change.term == "t1"
        assert int(change.place.removeprefix("1-")) > 3
        assert list(change.bars) == some_bars(3)


@pytest.mark.parametrize("lost", ["all", "the fence"])
async def test_a_reader_notices_an_epoch_that_is_smaller(place, changes, lost):
    """Both stores have forgotten. Its place is behind all that comes from now on."""
    async with place.begin(Term(EXCHANGE, 7, "t7")) as window:
        await seal(window)
        await put(window, bars=some_bars(0))
        end = await changes.end(EXCHANGE)
        if lost == "all":
            place.empty()
        else:
            place.forget_fence()
    async with place.begin(Term(EXCHANGE, 2, "t2")) as window:
        await seal(window)
        await put(window, bars=some_bars(1, "t2"))
        await put(window, bars=some_bars(2, "t2"))
    assert [(each.term, each.place) for each in await after(changes, end)] == [("t2", "2-1"), ("t2", "2-2")]


# ---- Redis alone ----


@pytest.fixture
async def reading(redis_url):
    async with TermsInRedis(redis_url).changes() as changes:
        yield changes


async def test_only_the_newest_are_kept(monkeypatch, redis_url, client, reading):
    """By number, and by bytes: a large window is restored in large writes."""
    monkeypatch.setattr(change_log, "MOST_CHANGES", 200)
    async with TermsInRedis(redis_url).open("t1") as window:
        for number in range(600):
            await window.post(window.encode(Flush((), some_bars(number))))
        await window.collect()
        # Redis removes whole nodes, of up to 100 entries.
        assert 200 <= client.xlen("changes:{exchange1}") <= 300
        found = await after(reading, START)
        assert [each.place for each in found] == [f"1-{number}" for number in range(601 - len(found), 601)]
        monkeypatch.setattr(change_log, "MOST_BYTES", 50_000)
        large = [(PAIR, (NOON + n * SECOND, "t1"), bar(NOON + n * SECOND)) for n in range(400)]
        for _ in range(10):
            await put(window, bars=large)
        assert client.xlen("changes:{exchange1}") <= 5
        assert client.memory_usage("changes:{exchange1}") < 200_000
        await put(window, bars=some_bars(1))
        assert client.xlen("changes:{exchange1}") <= 6


async def test_a_reader_gets_all_that_redis_still_has(redis_url, client, reading):
    """Redis keeps more than it has to. A reader that got a part would take itself for up to date."""
    number = change_log.MOST_CHANGES + 5
    async with TermsInRedis(redis_url).open("t1") as window:
        for second in range(number):
            await window.post(window.encode(Flush((), some_bars(second))))
        await window.collect()
    assert client.xlen("changes:{exchange1}") == number
    assert [each.place for each in await after(reading, START)] == [f"1-{n}" for n in range(1, number + 1)]


@pytest.mark.parametrize(
    "foreign",
    [
        {"something": "else"},
        {"term": "t1", "BTCUSDT": "", "7:t1": "no bar"},
        {"term": "t1", "BTCUSDT": "", "monday:t1": "x"},
        {b"term": b"\xff"},
        {b"term": b"t1", b"\xff": b""},
    ],
    ids=str,
)
async def test_what_is_no_change_is_a_hole(redis_url, client, reading, foreign):
    async with TermsInRedis(redis_url).open("t1") as window:
        await put(window, bars=some_bars(0))
        client.xadd("changes:{exchange1}", foreign, id="1-2")
        await put(window)
    client.xadd("changes:{exchange1}", {"term": "t1"}, id="1-3")
    with capture_logs() as logs:
        found = await after(reading, START)
    assert [each.place for each in found] == ["1-1", "1-3"]
    assert found[1] == Change("1-3", "t1", [])
    assert {each["event"] for each in logs} == {"foreign change ignored"}
    assert {each["key"] for each in logs} == {"changes:{exchange1}"}


async def test_a_redis_that_is_away(own_redis):
    async with TermsInRedis(own_redis.url).changes() as changes:
        assert await after(changes, START) == []
        own_redis.kill()
        for call in (lambda: changes.end(EXCHANGE), lambda: changes.after(EXCHANGE, START)):
            with pytest.raises(StoreAway):
                await call()


async def test_a_key_of_another_type_is_away(client, reading):
    client.set("changes:{exchange1}", "something")
    with pytest.raises(StoreAway, match="WRONGTYPE"):
        await reading.after(EXCHANGE, START)
