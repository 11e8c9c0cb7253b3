"""A source of WebSocket messages from attempt to end, over streams in memory and on a virtual clock."""

from __future__ import annotations

import json
import math
import random
from collections import deque
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from structlog.testing import capture_logs

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.pacing import LITTLE, Pace
from marketflow.adapters.exchange.venues.venue import Rate
from marketflow.adapters.exchange.websocket.budget import Budget
from marketflow.adapters.exchange.websocket.codec import VenueDecoder
from marketflow.adapters.exchange.websocket.opening import Opener
from marketflow.adapters.exchange.websocket.source import WebSocketSource
from marketflow.adapters.exchange.websocket.turns import Turns
from marketflow.app.ingest.backoff import Backoff
from marketflow.app.ingest.feeds import Feed
from marketflow.app.instruments.clocks import Beat
from tests.websocket_exchange import Exchange, Peer, PlainVenue, accepts, silent

NAMES = {f"{letter}-usd": f"{letter.upper()}USD" for letter in "abcdef"}
NOW = 1_795_343_351_549


class FixedClock:
    def now(self):
        return NOW


class Longest(random.Random):
    """Always gives the longest pause."""

    def uniform(self, _a, b):
        return b


@attrs.define(eq=False)
class Running:
    """A feed with its source, and the exchange on the other side."""

    source: WebSocketSource
    feed: Feed
    exchange: Exchange
    stopping: trio.Event
    ids: list[int] = attrs.field(factory=list)
    """Of all trades that have come, in their order."""
    chunks: int = 0
    pause: float = 0.0
    """Seconds that a worker takes for a chunk."""

    @property
    def peer(self) -> Peer:
        return self.exchange.peers[-1]


@asynccontextmanager
async def running(
    venue=None, *, names=NAMES, budget=None, room=math.inf, beat=None, entropy=None, **settings
):
    """Runs until the end of the block, and stops then. `beat`: seconds between two; None: no pauses."""
    venue = PlainVenue() if venue is None else venue
    checks = Checks(frozenset(names.values()), 60_000, 120_000)
    async with trio.open_nursery() as nursery:
        exchange = Exchange(nursery, **settings)
        entropy = random.Random(1) if entropy is None else entropy
        source = WebSocketSource(
            "exchange1",
            venue,
            names,
            VenueDecoder(venue, names, checks),
            opener=Opener(connect=exchange.connect, pace=Pace([(LITTLE, Beat(beat))] if beat else ())),
            budget=Budget.of(venue.rules) if budget is None else budget,
            clock=FixedClock(),
            entropy=entropy,
        )
        feed = Feed(
            source,
            backoff=Backoff(*source.pauses, entropy),
            idle_timeout=math.inf,
            last_well=lambda: source.well_at,
        )
        send, receive = trio.open_memory_channel(room)
        run = Running(source, feed, exchange, trio.Event())

        async def work():
            async for chunk in receive:
                run.chunks += 1
                await trio.sleep(run.pause)
                for updates in feed.decode(chunk.payload).updates:
                    run.ids += map(int, updates.columns.ids)

        nursery.start_soon(work)
        nursery.start_soon(feed.run, send, run.stopping)
        yield run
        run.stopping.set()
        before = trio.current_time()
        await until(lambda: feed.state.state == "stopped")
        assert trio.current_time() - before < 2
        nursery.cancel_scope.cancel()


async def until(condition, seconds=2_000.0):
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - a test polls
            await trio.sleep(0.05)


def trades(*ids, symbol="a-usd"):
    return {"trades": [[symbol, 100.5, NOW, number] for number in ids]}


async def live(run):
    await until(lambda: run.source.activity == "live")


async def test_trades_come_through(autojump_clock):
    async with running(PlainVenue(batch=4)) as run:
        assert run.source.activity == "waiting for an attempt"
        await live(run)
        assert run.feed.connected
        assert [message.get("ask") for message in run.peer.received] == [
            ["a-usd", "b-usd", "c-usd", "d-usd"],
            ["e-usd", "f-usd"],
        ]
        assert run.peer.received[0]["now"] == NOW
        await run.peer.say(trades(1, 2), {"alive": True}, trades(3))
        await until(lambda: run.ids == [1, 2, 3])
        assert run.chunks == 1  # one receive is one payload
        assert run.source.heard_at == pytest.approx(trio.current_time(), abs=0.1)
    assert run.peer.close_code == 1000


async def test_trades_that_come_at_any_time_are_received_together_at_the_beat(autojump_clock):
    async with running(beat=0.05) as run:
        await live(run)
        for number in range(200):
            await run.peer.say(trades(number))
            await trio.sleep(0.005)
        await until(lambda: run.ids == [*range(200)])
        assert 15 < run.chunks <= 22


async def test_a_stop_ends_the_pause_and_takes_what_has_come(autojump_clock):
    """`running` checks that it takes a moment only."""
    async with running(PlainVenue(silence=10_000.0), beat=1_000.0) as run:
        await live(run)
        await run.peer.say(trades(1))
        await trio.sleep(0.1)
        assert run.ids == []
    assert run.ids == [1]


async def test_after_a_stop_there_is_no_pause(autojump_clock):
    """What has come while the workers were behind is taken at once."""
    async with running(PlainVenue(silence=10_000.0), beat=1_000.0, room=0) as run:
        await live(run)
        run.pause = 5_000.0
        for number in range(3):
            await trio.sleep_until(1_000 * number + 500)
            await run.peer.say(trades(number))
        await trio.sleep_until(5_999.5)  # one is with the worker, one on its way to it, one in the socket
        assert run.chunks == 1
        run.pause = 0.0
    assert run.ids == [0, 1, 2]


async def test_pings_are_answered_at_the_beat(autojump_clock):
    async with running(beat=0.05) as run:
        await live(run)
        for number in range(20):
            await run.peer.ping(b"%d" % number)
            await trio.sleep(0.06)
            assert run.peer.pongs[-1] == b"%d" % number


async def test_the_time_until_the_beat_counts_as_silence(autojump_clock):
    """Data that waits in the socket until the beat would show life; a connection without any is dead."""
    async with running(PlainVenue(silence=5.0), beat=1.0) as run:
        await live(run)
        heard_at = trio.current_time()
        await run.peer.say({"alive": True})
        await until(lambda: run.peer.gone)
        assert trio.current_time() - heard_at < 5.0 + 1.5
        assert "no sign of life for 5 s" in run.feed.state.last_error


async def test_a_stop_in_each_state_ends_soon(autojump_clock):
    """`running` checks the time of it."""
    async with running(budget=Budget(Turns(Rate(1, 1_000.0)))) as run:
        await run.source._maker.door.budget.attempts.turn()
        await trio.sleep(5)
        assert run.source.activity == "waiting for an attempt"
    async with running() as run:

        async def never(_host, _port):
            await trio.sleep_forever()

        object.__setattr__(run.source._maker.door.opener, "connect", never)
        await until(lambda: run.source.activity == "connecting")
    async with running(PlainVenue(waits_for_welcome=True)) as run:
        await until(lambda: run.source.activity == "connecting")
        await trio.sleep(1)
        assert run.peer.received == []
    async with running(answers=silent) as run:
        await until(lambda: run.source.activity == "subscribing 0 of 6")
    async with running() as run:
        await live(run)
    async with running(PlainVenue(lifetime=100.0, most_pause=10.0, silence=10_000.0)) as run:
        await live(run)
        run.exchange.answers = silent
        await until(lambda: run.source.activity == "renewing the connection")
    assert len(run.exchange.peers) == 2
    async with running() as run:
        run.exchange.refused.append(OSError("no"))
        await until(lambda: run.feed.state.state == "backing off")


async def test_subscriptions_keep_to_the_limit_also_over_reconnects(autojump_clock):
    rate = Rate(3, 10.0)
    async with running(PlainVenue(batch=1, requests=rate, ping_every=7.0, pongs_are_requests=True)) as run:
        await until(lambda: len(run.peer.received) == 2 if run.exchange.peers else False)
        await run.peer.close(1001)
        await until(lambda: len(run.exchange.peers) == 2)
        for number in range(60):
            await trio.sleep(0.7)
            await run.peer.ping(b"%d" % number)
        await trio.sleep(30)
        assert run.source.activity == "live"
        times = [each for peer in run.exchange.peers for each in peer.times]
        assert len(run.peer.pongs) >= 3
        assert run.peer.pongs[-1] == b"59"  # only the newest ping is answered
    assert len(times) > 15
    for start in times:
        assert len([each for each in times if start <= each < start + rate.seconds]) <= rate.most


async def test_a_limit_over_a_long_span_is_one_of_each_connection(autojump_clock):
    """Otherwise some reconnects would leave the source without subscriptions for the rest of the hour."""
    async with running(PlainVenue(batch=3, requests=Rate(2, 3_600.0))) as run:
        for number in range(1, 5):
            await until(lambda count=number: len(run.exchange.peers) == count, 200)
            await live(run)
            await run.peer.close(1001)


async def test_pongs_wait_for_nothing_if_they_do_not_count(autojump_clock):
    async with running(PlainVenue(requests=Rate(1, 1_000.0))) as run:
        await until(lambda: run.exchange.peers and run.peer.received)
        for number in range(3):
            await run.peer.ping(b"%d" % number)
            await trio.sleep(1)
        assert run.peer.pongs == [b"0", b"1", b"2"]


async def test_attempts_of_all_sources_of_a_kind_share_their_limit(autojump_clock):
    budget = Budget(Turns(Rate(2, 100.0)))
    async with running(budget=budget) as one, running(budget=budget) as other:
        await until(lambda: one.exchange.attempts and other.exchange.attempts)
        began = trio.current_time()
        await one.peer.close(1001)
        await other.peer.close(1001)
        await trio.sleep(90)
        assert one.source.activity == "waiting for an attempt"
        await until(lambda: len(one.exchange.attempts) + len(other.exchange.attempts) == 4)
        assert trio.current_time() - began >= 99


async def test_messages_of_an_address_share_their_limit_where_the_venue_counts_them_so(autojump_clock):
    """Also over reconnects, and with a limit over a long span."""
    for rate in (Rate(3, 10.0), Rate(3, 100.0)):
        venue = PlainVenue(batch=1, requests=rate, requests_by_address=True, silence=10_000.0)
        budget = Budget.of(venue.rules)
        async with running(venue, budget=budget) as one, running(venue, budget=budget) as other:
            await until(lambda: one.exchange.peers and one.peer.received)
            await one.peer.close(1001)
            await live(one)
            await live(other)
            peers = [*one.exchange.peers, *other.exchange.peers]
            times = [time for peer in peers for time in peer.times]
        assert len(times) >= 13
        for start in times:
            assert len([each for each in times if start <= each < start + rate.seconds]) <= rate.most


async def test_one_bad_symbol_in_a_batch_does_not_cost_the_others(autojump_clock):
    def answers(peer, message):
        if "b-usd" in message["ask"]:
            return [{"no": "unknown pair", "for": [], "id": message["id"]}]
        return accepts(peer, message)

    with capture_logs() as lines:
        async with running(answers=answers) as run:
            await live(run)
            assert run.source.rejected_symbols == {"BUSD": "unknown pair"}
            await run.peer.say(trades(1, symbol="f-usd"))
            await until(lambda: run.ids == [1])
            await run.peer.close(1001)
            await until(lambda: len(run.exchange.peers) == 2)
            await live(run)
            run.exchange.answers = accepts
            await run.peer.close(1001)
            await until(lambda: len(run.exchange.peers) == 3)
            await live(run)
            assert run.source.rejected_symbols == {}
    told = [(line["event"], line["log_level"]) for line in lines if "symbol" in line["event"]]
    assert told == [("symbol rejected", "warning"), ("symbol accepted", "info")]  # once each
    rejected = next(line for line in lines if line["event"] == "symbol rejected")
    assert (rejected["symbol"], rejected["reason"]) == ("BUSD", "unknown pair")


async def test_an_exchange_that_does_not_answer_is_read_and_reported_once(autojump_clock):
    with capture_logs() as lines:
        async with running(answers=silent, venue=PlainVenue(silence=1_000.0)) as run:
            await until(lambda: run.exchange.peers and run.peer.received)
            await run.peer.say(trades(1))
            await until(lambda: run.ids == [1])
            await live(run)
            await run.peer.close(1001)
            await trio.sleep(100)
            assert len(run.exchange.peers) == 2
            assert run.source.activity == "live"
    unanswered = [line for line in lines if line["event"] == "subscriptions unanswered"]
    assert [line["symbols"] for line in unanswered] == ["AUSD, BUSD, CUSD, DUSD, EUSD, FUSD"]


async def test_nothing_is_sent_before_the_welcome(autojump_clock):
    async with running(PlainVenue(waits_for_welcome=True, ping_every=5.0)) as run:
        await trio.sleep(2)
        assert run.peer.received == []
        assert not run.feed.connected
        await run.peer.say({"welcome": True})
        await live(run)
        assert run.feed.connected
        await run.peer.say({"welcome": True})
        await trio.sleep(4)
        assert run.peer.received[-1] == {"ping": 2}


async def test_a_missing_welcome_ends_the_connection(autojump_clock):
    async with running(PlainVenue(waits_for_welcome=True)) as run:
        await until(lambda: run.feed.state.state == "backing off")
        assert run.feed.state.last_error == "no welcome within 10 s"


# ---- signs of life ----


async def test_silence_ends_the_connection(autojump_clock):
    async with running(PlainVenue(silence=5.0)) as run:
        await live(run)
        await trio.sleep(4)
        await run.peer.say({"alive": True})
        heard = trio.current_time()
        await until(lambda: not run.feed.connected)
        assert 5 <= trio.current_time() - heard < 5.3
        assert run.feed.state.last_error == "no sign of life for 5 s"
        assert run.feed.state.bugs == 0
        await until(lambda: run.feed.connected)


@pytest.mark.parametrize("shows_life", [True, False])
async def test_pings_show_life_where_they_are_the_heartbeat(autojump_clock, shows_life):
    async with running(PlainVenue(silence=5.0, pings_show_life=shows_life)) as run:
        await live(run)
        for _ in range(10):
            await trio.sleep(1)
            await run.exchange.peers[0].ping()
        assert (len(run.exchange.peers) == 1) == shows_life


def refuses(_peer, message):
    return [{"no": "unknown pair", "for": message["ask"], "id": message["id"]}] if "ask" in message else []


@pytest.mark.parametrize(
    ("answers", "heartbeats", "is_well"),
    [(accepts, 10, True), (accepts, 3, False), (silent, 10, False), (refuses, 10, False)],
    ids=["quiet", "short", "unanswered", "all refused"],
)
async def test_a_quiet_connection_that_was_well_ends_the_outage(autojump_clock, answers, heartbeats, is_well):
    """Subscribed and with heartbeats for 5 s: that no trade came is no fault of the exchange."""
    failed = deque([OSError("no")] * 8)
    async with running(PlainVenue(silence=100.0), entropy=Longest(1), answers=answers, refused=failed) as run:
        await until(lambda: run.exchange.peers)
        await live(run)
        for _ in range(heartbeats):
            await trio.sleep(1)
            await run.peer.say({"alive": True})
        await trio.sleep(0.1)
        await run.peer.close(1001)
        closed = trio.current_time()
        await until(lambda: len(run.exchange.attempts) == 10)
        pause = run.exchange.attempts[-1] - closed
        assert pause == pytest.approx(1.0 if is_well else 60.0, abs=0.2)


async def test_time_in_which_the_workers_are_behind_is_no_silence(autojump_clock):
    """Nobody listens then, so nobody can hear."""
    async with running(PlainVenue(silence=5.0), room=0) as run:
        await live(run)
        run.pause = 60.0
        await run.peer.say(trades(1))
        await trio.sleep(1)
        await run.peer.say(trades(2))  # it is received, and waits
        await until(lambda: run.ids == [1], 70)
        await trio.sleep(4)
        assert len(run.exchange.peers) == 1
        await until(lambda: len(run.exchange.peers) == 2, 5)


# ---- renewal ----


async def test_a_connection_is_renewed_before_its_end_without_a_gap(autojump_clock):
    with capture_logs() as lines:
        async with running(PlainVenue(lifetime=100.0, most_pause=10.0, silence=10_000.0)) as run:
            await live(run)
            first, began = run.peer, trio.current_time()
            sent = 0
            overlap = 0
            while len(run.exchange.peers) < 2 or not first.gone:
                sent += 1
                present = [peer for peer in run.exchange.peers if peer.asked and not peer.gone]
                overlap += len(present) == 2
                for peer in present:
                    await peer.say(trades(sent))
                await trio.sleep(0.1)
                assert trio.current_time() < began + 100
            assert trio.current_time() > began + 89
            assert first.close_code == 1000
            await trio.sleep(1)
            assert set(run.ids) == set(range(1, sent + 1))
            assert len(run.ids) == sent + overlap
            assert run.source.activity == "live"
            assert run.feed.reconnects == 0
    assert [line["event"] for line in lines] == ["connected", "connection renewed"]


async def test_what_is_on_its_way_when_a_connection_retires_is_received(autojump_clock):
    async with running(PlainVenue(lifetime=100.0, most_pause=10.0, silence=10_000.0)) as run:
        await live(run)
        run.peer.last_words = json.dumps(trades(77)).encode()
        await until(lambda: run.exchange.peers[0].gone)
        await trio.sleep(1)
        assert run.ids == [77]


async def test_an_announced_end_leads_to_a_renewal(autojump_clock):
    with capture_logs() as lines:
        async with running(PlainVenue(most_pause=20.0)) as run:
            await live(run)
            await run.peer.say({"leave": "upgrade"}, {"leave": "upgrade"})
            await trio.sleep(1)
            assert (len(run.exchange.peers), run.exchange.peers[0].gone) == (2, True)
            await run.peer.say({"leave": "upgrade"})  # at once: no storm
            await trio.sleep(15)
            assert len(run.exchange.peers) == 2
            await trio.sleep(10)
            assert len(run.exchange.peers) == 3
    events = [line["event"] for line in lines]
    assert events == ["connected", *["leave announced", "connection renewed"] * 2]


async def test_a_renewal_that_fails_is_tried_again_while_the_present_connection_goes_on(autojump_clock):
    with capture_logs() as lines:
        async with running(
            PlainVenue(lifetime=100.0, most_pause=10.0, silence=10_000.0, least_pause=3.0)
        ) as run:
            await live(run)
            run.exchange.refused.extend([OSError("no"), OSError("no")])
            first = run.exchange.peers[0]
            await until(lambda: len(run.exchange.attempts) == 3)
            assert not first.gone
            assert run.source.activity == "live"
            await until(lambda: len(run.exchange.attempts) == 4)
            pauses = [
                b - a for a, b in zip(run.exchange.attempts[1:], run.exchange.attempts[2:], strict=False)
            ]
            assert min(pauses) >= 3
            await until(lambda: first.gone)
            assert run.feed.connected
    failed = [line for line in lines if line["event"] == "renewal failed"]
    assert [line["error"] for line in failed] == ["exchange.test: no"] * 2


async def test_the_next_connection_takes_over_if_the_present_one_ends_meanwhile(autojump_clock):
    """It subscribes already, so the exchange is connected."""
    with capture_logs() as lines:
        async with running(PlainVenue(lifetime=100.0, most_pause=10.0, silence=10_000.0)) as run:
            await live(run)
            run.exchange.answers = silent
            await until(lambda: len(run.exchange.peers) == 2 and run.peer.received)
            await run.exchange.peers[0].close(1001, "bye")
            await trio.sleep(0.5)
            assert run.feed.connected
            assert run.source.activity == "subscribing 0 of 6"
            await run.peer.say(trades(1))
            await until(lambda: run.ids == [1])
            assert len(run.exchange.attempts) == 2
            assert run.feed.state.last_error == "closed by the exchange: 1001 bye"
    assert [line["event"] for line in lines] == ["connected", "disconnected", "connected"]


async def test_the_end_of_the_next_connection_is_no_end_of_the_present_one(autojump_clock):
    """The exchange stays connected, although the next one was open and closes."""
    with capture_logs() as lines:
        async with running(
            PlainVenue(lifetime=100.0, most_pause=10.0, silence=10_000.0, least_pause=3.0)
        ) as run:
            await live(run)
            run.exchange.answers = silent
            await until(lambda: len(run.exchange.peers) == 2 and run.peer.received)
            await run.peer.close(1001, "bye")
            await trio.sleep(0.5)
            assert run.feed.connected
            await run.exchange.peers[0].say(trades(1))
            await until(lambda: run.ids == [1])
    assert [line["event"] for line in lines] == ["connected", "renewal failed"]


async def test_it_takes_over_also_if_it_is_not_open_yet(autojump_clock):
    """It waits for an attempt, and is the next attempt of the feed then."""
    venue = PlainVenue(lifetime=100.0, most_pause=10.0, silence=10_000.0, attempts=Rate(1, 98.0))
    async with running(venue) as run:
        await until(lambda: run.source.activity == "renewing the connection")
        await run.peer.close(1001, "bye")
        await trio.sleep(0.5)
        assert not run.feed.connected
        assert run.source.activity == "waiting for an attempt"
        await live(run)
        assert run.feed.connected
        assert trio.current_time() == pytest.approx(98, abs=0.1)


# ---- ends ----


async def test_the_exchange_says_why_it_closes_and_nothing_before_is_lost(autojump_clock):
    async with running() as run:
        await live(run)
        run.peer.protocol.send_text(json.dumps(trades(1, 2)).encode())
        await run.peer.close(1008, "too many requests")
        await until(lambda: run.feed.state.last_error is not None)
        assert run.feed.state.last_error == "closed by the exchange: 1008 too many requests"
        await until(lambda: run.ids == [1, 2])
        assert run.exchange.peers[0].close_code == 1008


async def test_the_end_is_reported_at_once_even_if_the_workers_are_behind(autojump_clock):
    with capture_logs() as lines:
        async with running(room=0) as run:
            await live(run)
            run.pause = 20.0
            await run.peer.say(trades(1))
            await trio.sleep(1)
            run.peer.protocol.send_text(json.dumps(trades(2)).encode())
            await run.peer.close(1001)
            await trio.sleep(1)
            assert (run.ids, run.feed.state.state) == ([], "backing off")
            await until(lambda: run.ids == [1, 2])
            await until(lambda: run.feed.connected)
    assert [line["event"] for line in lines] == ["connected", "disconnected", "connected"]


async def test_a_bug_in_a_venue_is_a_bug_of_the_source(autojump_clock):
    class Buggy(PlainVenue):
        def read(self, _frame):
            raise ZeroDivisionError

    with capture_logs() as lines:
        async with running(Buggy()) as run:
            await until(lambda: run.feed.bugs == 2)
            assert len(run.exchange.peers) == 2
    assert "source failed" in {line["event"] for line in lines}


async def test_notices_are_logged_now_and_then(autojump_clock):
    with capture_logs() as lines:
        async with running() as run:
            await live(run)
            await run.peer.say(*[{"notice": f"note {number}"} for number in range(5)])
            await trio.sleep(1)
            assert run.feed.connected
    assert [line["text"] for line in lines if line["event"] == "notice of exchange"] == ["note 0"]


def test_too_many_symbols_are_refused():
    with pytest.raises(ValueError, match="plain gives at most 1000 symbols on a connection, not 1001"):
        WebSocketSource(
            "exchange1",
            PlainVenue(),
            {str(number): str(number) for number in range(1_001)},
            None,
            opener=Opener(),
            budget=Budget.of(PlainVenue().rules),
            clock=FixedClock(),
            entropy=random.Random(1),
        )
