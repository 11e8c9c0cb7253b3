"""The window of a term: a window like any other, until it has lost the fence. Then it writes nothing."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from functools import partial

import pytest
import redis
import test_window_contract as contract
import trio
from builders import until
from redis_filling import fields_of
from terms import EXCHANGE, TermsInMemory, TermsInRedis, Traffic, seal, sure
from test_window_contract import NOON, bar, edge, put, run_of

from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import Fenced, Flush, Sight, StoreAway, StoreRefuses, Term
from marketflow.app.share.fence import Fence, Held
from marketflow.domain.periods import MINUTE, SECOND, Span

PAIR = (EXCHANGE, "BTCUSDT")
KEYS = {b"prices:{exchange1}:BTCUSDT", b"bars:{exchange1}:BTCUSDT", b"marker:{exchange1}"}
KEYS |= {b"fence:{exchange1}", b"changes:{exchange1}"}
NEW = Term(EXCHANGE, 9, "t9")

CONTRACT = (
    "test_a_write_without_bars_leaves_them_as_they_are",
    "test_an_edge_is_the_bar_of_its_span",
    "test_nothing_there",
    "test_equal_updates_of_one_millisecond_are_all_held",
    "test_writing_again_changes_nothing",
    "test_boots_do_not_overwrite_each_other",
    "test_of_equal_timestamps_the_later_received_is_the_later",
    "test_many_updates_of_one_millisecond",
    "test_sequences_need_no_order_and_no_range",
    "test_pairs_are_kept_apart",
    "test_edges_agree_with_the_updates",
    "test_trimming_removes_what_is_older_and_no_more",
    "test_bars_come_back_bit_by_bit",
    "test_bars_are_absolute_values",
    "test_ids_of_the_newest_trades",
    "test_counts_and_prices_of_spans_in_the_order_asked",
    "test_only_the_fields_that_are_asked_for",
    "test_an_hour_of_bars_at_once",
    "test_the_bars_of_some_minutes",
    "test_members_tell_volumes_and_sides",
    "test_bars_that_no_boot_can_have_made_are_not_read",
)
"""What every window does. The rest is about leases and about several boots that write in turn."""
globals().update({name: getattr(contract, name) for name in CONTRACT})


@pytest.fixture(autouse=True)
def _one_exchange(monkeypatch):
    monkeypatch.setattr(contract, "OTHER", (EXCHANGE, "ETHUSDT"))


@pytest.fixture(params=["memory", "redis"])
def place(request):
    if request.param == "memory":
        return TermsInMemory()
    return TermsInRedis(request.getfixturevalue("redis_url"))


@pytest.fixture
async def window(place):
    async with place.open("t1") as window:
        yield window


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def terms(redis_url):
    return TermsInRedis(redis_url)


def state_of(client):
    """All that a Redis has."""
    return {key: client.dump(key) for key in client.keys("*")}


# ---- the fence ----


async def test_nothing_is_written_before_the_fence_was_looked_at(place):
    async with place.begin(NEW) as window:
        for call in (window.write, window.post):
            with pytest.raises(StoreAway, match="looked at"):
                await call(window.encode(Flush([run_of([NOON])], [])))
        assert await window.look() == Sight(None, None)
        with pytest.raises(StoreAway, match="looked at"):
            await put(window)
        assert await window.take(Sight(None, None))
        await put(window)
        assert await window.look() == Sight("9:t9", "t9:4" if isinstance(place, TermsInRedis) else "t9:1")


async def test_a_fence_is_taken_as_it_was_found_or_not_at_all(place, window):
    async with place.begin(Term(EXCHANGE, 5, "t5")) as second, place.begin(NEW) as third:
        seen = await second.look()
        assert seen.holder == "1:t1"
        assert await third.take(seen)
        assert not await second.take(seen)
        assert (await second.look()).holder == "9:t9"
        await window.release()
        assert (await second.look()).holder == "9:t9"


@pytest.mark.parametrize("posted", [False, True])
async def test_what_a_term_writes_that_has_lost_the_fence_has_no_effect(place, window, posted):
    """It may not know it yet, and its write may be the next after one that was acknowledged."""
    await put(window, run_of([NOON]), bars=[(PAIR, (NOON, "t1"), bar(NOON))])
    flush = window.encode(Flush([run_of([NOON + 1], first=1)], [(PAIR, (NOON, "t1"), bar(NOON, 7.0))]))
    if posted:
        await window.post(window.encode(Flush((), ())))
    async with place.begin(NEW) as other:
        await seal(other)
        with pytest.raises(StoreAway, match="changed"):
            await window.write(flush)
        for call in (window.write, window.post):
            with pytest.raises(StoreAway, match="looked at"):
                await call(flush)
        assert (await edge(other, NOON, NOON + SECOND)).bar.count == 1
        assert fields_of(await other.all_bars([PAIR])) == {PAIR: {(NOON, "t1"): bar(NOON)}}
        await put(other, run_of([NOON + 2]))
        assert (await window.look()).holder == "9:t9"
        with pytest.raises(StoreAway, match="looked at"):
            await window.write(flush)


async def test_a_fence_that_was_set_again_to_the_same_is_looked_at_again(terms, client):
    """Something has happened that the writer does not know."""
    async with terms.open("t1") as window:
        client.set("fence:{exchange1}", "1:t1")
        with pytest.raises(StoreAway, match="changed"):
            await put(window, run_of([NOON]))
        assert not client.exists("prices:{exchange1}:BTCUSDT")
        with pytest.raises(StoreAway, match="looked at"):
            await put(window)
        assert (await window.look()).holder == "1:t1"
        assert await put(window, run_of([NOON])) is False, "its first write"
        assert await put(window)


async def test_a_store_that_was_emptied_gets_nothing_until_it_is_sealed_again(place, window):
    await put(window)
    flush = window.encode(Flush([run_of([NOON])], []))
    assert await window.post(flush)
    place.empty()
    with pytest.raises(StoreAway, match="changed"):
        await window.write(flush)
    sight = await window.look()
    assert sight == Sight(None, None)
    with pytest.raises(StoreAway, match="looked at"):
        await window.write(flush)
    assert await window.take(sight)
    assert not await window.write(flush), "the marker was not there"
    assert await window.write(flush)
    assert (await edge(window, NOON, NOON + SECOND)).bar.count == 1


async def test_a_fence_that_was_moved_by_another_client_ends_with_the_use_case(place, window):
    """`Fence` and window together: a zombie is fenced, and says by whom."""
    state = StoreState("redis")
    fence = Fence(window, held=Held(Term(EXCHANGE, 1, "t1"), lambda: True), state=state)
    await fence.ensure()
    state.answered()
    await put(window)
    async with place.begin(NEW) as other:
        await seal(other)
    with pytest.raises(StoreAway) as caught:
        await put(window)
    state.failed(caught.value)
    with pytest.raises(Fenced, match="9:t9"):
        await fence.ensure()


async def test_each_post_waits_for_the_one_before(place, window):
    """It is acknowledged then, and has found its marker."""
    await put(window)
    for number in range(5):
        assert await window.post(window.encode(Flush([run_of([NOON + number], first=number)], [])))
    assert await window.collect()
    assert await window.collect()
    assert (await edge(window, NOON, NOON + SECOND)).bar.count == 5


# ---- Redis alone ----


async def test_keys_have_the_exchange_as_their_hash_tag_and_all_but_the_fence_expire(terms, client):
    async with terms.open("t1") as window:
        await put(window, run_of([NOON]), bars=[(PAIR, (NOON, "t1"), bar(NOON))])
        assert set(client.keys("*")) == KEYS
        assert client.get("fence:{exchange1}") == b"1:t1"
        assert client.get("marker:{exchange1}") == b"t1:1"
        assert client.ttl("fence:{exchange1}") == -1
        assert 60 < client.ttl("prices:{exchange1}:BTCUSDT") <= 65
        assert all(0 < client.ttl(key) <= 3_600 for key in KEYS - {b"fence:{exchange1}"})
        await put(window, run_of([NOON]), bars=[(PAIR, (NOON, "t1"), bar(NOON))])
        for key in ("bars:{exchange1}:BTCUSDT", "changes:{exchange1}"):
            client.persist(key)
        await window.write(window.encode_trim([PAIR], older_than=0, bars=[]))
        assert all(0 < client.ttl(key) <= 3_600 for key in KEYS - {b"fence:{exchange1}"})
        assert list(await window.pairs_with_bars()) == [PAIR]


async def test_pairs_with_bars_are_those_of_the_exchange(terms):
    async with terms.open("t1") as window:
        await put(window, bars=[((EXCHANGE, "GONEUSDT"), (NOON, "t1"), bar(NOON))])
        async with terms.node() as node:
            other = Term("exchange2", 1, "t2")
            async with node.window(other, sure) as second:
                await seal(second)
                await put(second, bars=[(("exchange2", "BTCUSDT"), (NOON, "t2"), bar(NOON))])
            assert list(await window.pairs_with_bars()) == [(EXCHANGE, "GONEUSDT")]
            both = {(EXCHANGE, "GONEUSDT"), ("exchange2", "BTCUSDT")}
            assert {
                pair for pair, some in (await node.reading.all_bars(sorted(both))).items() if some
            } == both


async def test_a_write_is_one_request(terms, client):
    """`WATCH` and `GET` for the next write go with it, so that it costs one round trip."""
    async with terms.open("t1") as window:
        await put(window)
        before = client.info("stats")["total_reads_processed"]
        for number in range(50):
            await put(window, run_of([NOON + number], first=number))
        # The second `INFO` counts, too; a busy server may read a request in two steps.
        assert client.info("stats")["total_reads_processed"] - before < 75


async def test_a_lost_connection_is_noticed_before_anything_is_sent(terms, client):
    """Nothing watches the fence on the next one."""
    async with terms.open("t1") as window:
        await put(window)
        client.client_kill_filter(skipme=True)
        with pytest.raises(StoreAway):
            await put(window, run_of([NOON]))
        with pytest.raises(StoreAway, match="looked at"):
            await put(window, run_of([NOON]))
        assert (await window.look()).holder == "1:t1"
        assert await put(window, run_of([NOON])), "nothing was lost"


async def test_a_server_that_was_killed_has_to_be_sealed_again(own_redis):
    terms = TermsInRedis(own_redis.url)
    async with terms.open("t1") as window:
        await put(window, run_of([NOON]))
        await window.post(window.encode(Flush((), ())))
        own_redis.kill()
        with pytest.raises(StoreAway):  # noqa: PT012 - one of them
            await window.collect()
            await put(window)
        with pytest.raises(StoreAway):
            await window.look()
        own_redis.start()
        with pytest.raises(StoreAway, match="looked at"):
            await put(window)
        await seal(window)
        assert not await put(window)
        assert await put(window)


async def test_a_refused_command_is_refused_with_all_others(terms, client):
    """`EXECABORT`: nothing was written, and the next write finds its marker."""
    async with terms.open("t1") as window:
        await put(window)
        before = state_of(client)
        bars = [(PAIR, (NOON, "t1"), bar(NOON))]
        client.execute_command("ACL", "SETUSER", "default", "-zadd")
        try:
            for send in (window.write, window.post):
                with pytest.raises(StoreRefuses, match="NOPERM"):  # noqa: PT012 - one of them
                    await send(window.encode(Flush([run_of([NOON])], bars)))
                    await window.collect()
                assert state_of(client) == before
                assert await put(window)
                before = state_of(client)
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+zadd")
        assert await put(window, run_of([NOON]), bars=bars)
        assert set(client.keys("*")) == KEYS


async def test_a_key_of_another_type_refuses_its_part_alone(terms, client):
    """That shows only while Redis executes the transaction."""
    async with terms.open("t1") as window:
        await put(window)
        client.set("prices:{exchange1}:BTCUSDT", "something")
        with pytest.raises(StoreRefuses, match="WRONGTYPE"):
            await put(window, run_of([NOON]), bars=[(PAIR, (NOON, "t1"), bar(NOON))])
        assert client.hlen("bars:{exchange1}:BTCUSDT") == 1
        client.delete("prices:{exchange1}:BTCUSDT")
        assert await put(window, run_of([NOON]))


async def test_a_redis_that_is_full_is_trimmed_all_the_same(own_redis):
    """The marker is refused with the rest of the transaction; what is too old goes without it."""
    terms = TermsInRedis(own_redis.url)
    with redis.Redis.from_url(own_redis.url) as client:
        async with terms.open("t1") as window:
            await put(window, run_of([NOON, NOON + 1]))
            client.config_set("maxmemory", 1)
            with pytest.raises(StoreRefuses, match="OOM"):
                await put(window, run_of([NOON + 2], first=2))
            with pytest.raises(StoreRefuses, match="OOM"):
                await window.write(window.encode_trim([PAIR], older_than=NOON + 1, bars=[]))
            assert client.zcard("prices:{exchange1}:BTCUSDT") == 1
            client.config_set("maxmemory", 0)
            assert await put(window, run_of([NOON + 2], first=2))
            assert client.zcard("prices:{exchange1}:BTCUSDT") == 2


class Cutting:
    """A proxy that ends a connection when a request contains certain bytes, before these are passed on."""

    def __init__(self, port):
        self.port = 0
        self.at: bytes | None = None
        self._target = port

    async def _serve(self, client):
        server = await trio.open_tcp_stream("127.0.0.1", self._target)
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(partial(self._pass_on, server, client, nursery.cancel_scope, cut=False))
            await self._pass_on(client, server, nursery.cancel_scope, cut=True)

    async def _pass_on(self, source, target, scope, *, cut):
        try:
            async for piece in source:
                place = piece.find(self.at) if cut and self.at else -1
                await target.send_all(piece if place < 0 else piece[:place])
                if place >= 0:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def cutting(port):
    made = Cutting(port)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        made.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, made._serve, [listener])
        yield made
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("at", [b"HSET", b"EXPIRE", b"*1\r\n$4\r\nEXEC"])
async def test_half_a_transaction_has_no_effect(redis_server, client, at):
    async with cutting(redis_server.port) as proxy:
        terms = TermsInRedis(f"redis://127.0.0.1:{proxy.port}/0")
        async with terms.open("t1") as window:
            await put(window)
            before = state_of(client)
            proxy.at = at
            with pytest.raises(StoreAway):
                await put(window, run_of([NOON]), bars=[(PAIR, (NOON, "t1"), bar(NOON))])
            proxy.at = None
            assert state_of(client) == before
            assert (await window.look()).holder == "1:t1"
            assert await put(window, run_of([NOON]), bars=[(PAIR, (NOON, "t1"), bar(NOON))])
            assert set(client.keys("*")) == KEYS


async def test_a_write_whose_answer_was_lost_shows_in_the_marker(redis_server, client):
    async with cutting(redis_server.port) as proxy:
        terms = TermsInRedis(f"redis://127.0.0.1:{proxy.port}/0")
        async with terms.open("t1") as window:
            await put(window)
            proxy.at = b"*2\r\n$5\r\nWATCH"  # behind EXEC
            with pytest.raises(StoreAway):
                await put(window, run_of([NOON]))
            proxy.at = None
            await until(lambda: client.exists("prices:{exchange1}:BTCUSDT"))
            await window.look()
            assert not await put(window, run_of([NOON]))
            assert client.zcard("prices:{exchange1}:BTCUSDT") == 1


async def test_a_write_ends_when_redis_hangs_and_is_not_taken_late(own_redis):
    """It is taken while the fence is still ours, or not at all."""
    terms = TermsInRedis(own_redis.url, timeout=0.5)
    with redis.Redis.from_url(own_redis.url) as client:
        async with terms.open("t1") as window:
            await put(window)
            own_redis.pause()
            try:
                with pytest.raises(StoreAway):
                    await put(window, run_of([NOON]))
            finally:
                own_redis.resume()
            client.set("fence:{exchange1}", "9:t9")
            with pytest.raises(StoreAway, match="looked at"):
                await put(window, run_of([NOON]))


@pytest.mark.parametrize("seed", range(3))
async def test_sustained_writes_are_what_a_model_says(terms, client, seed):
    """While connections break, the fence is set again, and other terms take over."""
    rng = random.Random(seed)
    models = []
    for epoch in range(1, 4):
        term = Term(EXCHANGE, epoch, f"{'abc'[epoch - 1] * 8}")
        model = Traffic(term.id, seed * 10 + epoch, start=NOON)
        models.append(model)
        async with terms.begin(term) as window:
            await seal(window)
            unsure = []
            for _ in range(80):
                flush, written = model.flush()
                unsure.append((window.encode(flush), written))
                match rng.randrange(12):
                    case 0:
                        client.client_kill_filter(skipme=True)
                    case 1:
                        client.set("fence:{exchange1}", f"{epoch}:{term.id}")
                if rng.random() < 0.4:
                    await write_all(window, unsure)
            await write_all(window, unsure)
    expected = {}
    for model in models:
        for pair, some in model.members.items():
            expected.setdefault(pair, set()).update(some)
    merged = Traffic("", 0, start=NOON)
    merged.members = expected
    merged.check(client)
    async with terms.node() as node:
        found = fields_of(await node.reading.all_bars(list(expected)))
        for pair in expected:
            assert found[pair] == {
                field: whole for model in models for field, whole in model.bars.get(pair, {}).items()
            }
        assert await node.reading.counts([(pair, Span(NOON, NOON + MINUTE)) for pair in expected]) == [
            len(some) for some in expected.values()
        ]


async def write_all(window, unsure):
    """Write until everything is acknowledged, in order and again after each failure, as the flusher does."""
    while unsure:
        try:
            for encoded, _ in unsure:
                await window.post(encoded)
            await window.collect()
        except StoreAway:
            assert (await window.look()).holder is not None
        else:
            for _, written in unsure:
                written()
            unsure.clear()
