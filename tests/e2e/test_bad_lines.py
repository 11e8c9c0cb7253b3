"""Each bad line is counted once, and affects no good line, no connection and no process."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import redis
import trio
from asking import adds_up, eventually
from exchange_server import ExchangeServer
from serving import running
from traffic import NAMES, Sent, any_lines, line, lines, now

from marketflow.config import Settings

LIMIT = 65_536
"""The most bytes of a line, without its end."""


def padded(at: int, size: int, end: bytes) -> bytes:
    """A good line of so many bytes."""
    bare = line("BTCUSDT", 1.5, at).rstrip()[:-1]
    return bare + b',"pad":"' + b"x" * (size - len(bare) - 10) + b'"}' + end


def bad_lines(at: int) -> dict[str, list[bytes]]:
    """Bad lines by reason, each without its line end."""

    def with_price(text: str) -> bytes:
        return f'{{"symbol":"BTCUSDT","price":{text},"timestamp":{at}}}'.encode()

    def with_time(text: str) -> bytes:
        return f'{{"symbol":"BTCUSDT","price":1.5,"timestamp":{text}}}'.encode()

    good = line("BTCUSDT", 1.5, at).rstrip()
    return {
        "malformed": [
            *[b"x", b"null", b"1", b'"BTCUSDT"', b"true", b"[]", b"{}", b"[%b]" % good],
            *[b"GET / HTTP/1.1", b"\x00" * 50, b"\xff\xfe", b"\x16\x03\x01\x02\x00", bytes(range(128, 256))],
            # Half an object, one and a half, two on a line.
            *[good[:-1], good[:20], good[20:], good + good, good + b" " + good, good + b",", b"{" + good],
            *[good + b"x", b"x" + good, b"\xef\xbb\xbf" + good, good.decode().encode("utf-16"), b"#" + good],
            *[with_price(text) for text in ("null", '"1.5"', "true", "[1.5]", "{}", "", "NaN", "Infinity")],
            *[with_price(text) for text in ("-Infinity", "1e400", "1.", ".5", "01", "+1", "0x10", "1,5")],
            with_price("9" * 400),
            *[with_time(text) for text in ("null", f'"{at}"', "true", f"{at}.0", f"{at}.5", "1e3", "1.0")],
            *[with_time(text) for text in ("[]", "", "-", "NaN", f"{at}n")],
            b'{"price":1.5,"timestamp":%d}' % at,
            b'{"symbol":"BTCUSDT","timestamp":%d}' % at,
            b'{"symbol":"BTCUSDT","price":1.5}',
            b'{"Symbol":"BTCUSDT","Price":1.5,"Timestamp":%d}' % at,
            *[line(symbol, 1.5, at).rstrip() for symbol in (None, 1, True, ["BTCUSDT"], {"BTCUSDT": 1})],
            b'{"symbol":"BTC\xffUSDT","price":1.5,"timestamp":%d}' % at,
            good.replace(b'"', b"'"),
            good[:-1] + b',"deep":' + b"[" * 5_000 + b"}",
            good[:-1] + b',"unknown":\xff}',
            good[:-1] + b",}",
        ],
        "symbol": [
            line(symbol, price, time).rstrip()
            for symbol in ("XRPUSDT", "", "btcusdt", "BTCUSDT ", "BTCUSDT\x00", "B\u0422CUSDT", "X" * 60_000)
            # The first applicable reason counts.
            for price, time in ((1.5, at), (0, at), (1.5, at + 60_000), (1.5, 0))
        ],
        "price": [
            *[with_price(text) for text in ("0", "-1", "-0.0", "0.0", "1e-400", "-5e-324", "-" + "9" * 300)],
            *[line("BTCUSDT", -1.5, time).rstrip() for time in (at + 60_000, 0)],
        ],
        "future": [with_time(str(time)) for time in (at + 60_000, at * 1_000, 10**18, 10**41, 2**63, 2**64)],
        "late": [with_time(str(time)) for time in (at - 200_000, at // 1_000, 0, -1, -at, -(10**18))],
        "oversized": [
            *[b"x" * (LIMIT + 1), padded(at, LIMIT + 1, b""), b" " * 70_000, b"\x00" * (3 * LIMIT)],
            b"x" * LIMIT + b"\r" + b"x",
        ],
    }


async def test_exactly_the_good_lines_are_accepted(
    settings: Settings, exchanges: dict[str, ExchangeServer], window: redis.Redis, rng: random.Random
) -> None:
    """Of 10,000 lines in pieces of any size, of which 1,000 are bad, 9,000 are accepted on one connection."""
    at = now()
    ways = bad_lines(at)
    bad = [(reason, text) for reason, texts in ways.items() for text in texts]
    small = [(reason, text) for reason, text in bad if len(text) < 1_000]
    bad += rng.choices(small, k=1_000 - len(bad))
    good = any_lines(rng, "exchange1", 8_998, earliest=at - 50_000, latest=at)
    longest = [Sent("exchange1", "BTCUSDT", 1.5, at)] * 2
    ends: Callable[[], bytes] = lambda: rng.choice([b"\n", b"\r\n"])  # noqa: E731
    wire = [
        *[each.line[:-1] + ends() for each in good],
        *[text + ends() for _, text in bad],
        padded(at, LIMIT, b"\n"),
        padded(at, LIMIT, b"\r\n"),
        *[b"\n", b"\r\n", b"  \n"] * 50,  # heartbeats
    ]
    rng.shuffle(wire)
    data = b"".join(wire)

    async with running(settings) as service:

        async def send_in_pieces() -> None:
            rest = memoryview(data)
            while rest:
                size = rng.choice([1, 7, 100, 5_000, 65_536, 200_000])
                await exchanges["exchange1"].send(bytes(rest[:size]))
                rest = rest[size:]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_in_pieces)
        await eventually(lambda: service.report().updates.received >= 10_000)
        await eventually(lambda: service.report().updates.pending == 0)
        report = await service.client.health()
        assert report["updates"]["rejected"] == Counter(reason for reason, _ in bad)
        assert report["updates"]["accepted"] == 9_000
        assert report["updates"]["received"] == 10_000
        assert adds_up(report["updates"])
        assert report["exchanges"]["exchange1"]["status"] == "connected"
        assert exchanges["exchange1"].connections == 1
    wanted = Counter((each.symbol, each.price, each.timestamp) for each in [*good, *longest])
    found = Counter(
        (key.decode().split(":")[2], float(member.split(b":")[0]), int(score))
        for key in window.keys("prices:*")
        for member, score in window.zrange(key, 0, -1, withscores=True)
    )
    assert found == wanted


async def test_each_bad_line_between_two_good_ones(
    settings: Settings, exchanges: dict[str, ExchangeServer]
) -> None:
    """A bad line of any kind costs only itself, even if both neighbours are received with it."""
    at = now()
    every = [(reason, text) for reason, texts in bad_lines(at).items() for text in texts]
    good = Sent("exchange1", "ETHUSDT", 3_000.5, at).line
    async with running(settings) as service:
        for number, (reason, text) in enumerate(every, start=1):
            await exchanges["exchange1"].send(good + text + b"\n" + good)
            await eventually(lambda number=number: service.report().updates.received >= 3 * number)
            updates = service.report().updates
            told = (reason, text[:80])
            assert updates.rejected == Counter(reason for reason, _ in every[:number]), told
            assert updates.accepted == 2 * number, told


async def test_garbage_from_one_exchange_costs_the_others_nothing(
    settings: Settings, exchanges: dict[str, ExchangeServer], rng: random.Random
) -> None:
    """Endless bytes without a newline, and half lines before each close, do not affect other exchanges."""
    at = now()
    sent = {
        name: any_lines(rng, name, 500, earliest=at - 1_000, latest=at)
        for name in NAMES
        if name != "exchange2"
    }
    async with running(settings) as service:
        mad = exchanges["exchange2"]
        await mad.send(rng.randbytes(300_000).replace(b"\n", b"\r"))
        for name, good in sent.items():
            await exchanges[name].send(lines(good))
        for count in range(1, 4):
            await mad.connected(count)
            await mad.send(b'{"symbol":"BTCUSDT","pri')
            mad.close()
        await mad.connected(4)
        await eventually(lambda: service.report().updates.accepted >= 1_000)

        report = service.report()
        assert report.updates.accepted == 1_000
        # The first half line ended the oversized one.
        assert report.exchanges["exchange2"].updates.rejected == {"oversized": 1, "malformed": 2}
        for name in sent:
            assert report.exchanges[name].updates.received == 500
            assert exchanges[name].connections == 1
