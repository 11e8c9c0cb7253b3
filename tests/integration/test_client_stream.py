"""The client's reader of the stream, with a service that the test plays: events, and reconnects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import pytest
import trio
from raw_server import json_answer, raw_server, silent

from marketflow.client import stream as client_stream
from marketflow.client.errors import NotUnderstood, Refused, Unreachable
from marketflow.client.stream import LivePrice, follow

KNOWN = json_answer('{"symbols":["BTCUSDT","ETHUSDT","X"]}')
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\nretry: 1000\n\n"
PROBLEM = "application/problem+json"


def event(symbol: str, price: float, kind: str = "price") -> bytes:
    data = f'{{"symbol":"{symbol}","exchange":"e","price":{price},"timestamp":5,"source":"memory"}}'
    return f": heartbeat\n\nevent: {kind}\nid: 1\ndata: {data}\n\n".encode()


@attrs.define
class Played:
    """A service that answers one request after the other, each on a new connection."""

    script: Iterator[bytes | None]
    """The answers in order; None is silence."""
    targets: list[str] = attrs.field(factory=list)
    """The requested targets."""

    async def __call__(self, head: bytes, stream: trio.abc.Stream) -> None:
        self.targets.append(head.decode().split()[1])
        answer = next(self.script, None)
        if answer is not None:
            await stream.send_all(answer)
        else:
            await silent(head, stream)


@attrs.define
class Heard:
    """A Listener that records its calls, and notices when it has heard enough."""

    enough: int
    told: list[str] = attrs.field(factory=list)
    done: trio.Event = attrs.field(factory=trio.Event)

    def connected(self, symbols: Sequence[str]) -> None:
        self._add(f"connected {' '.join(symbols)}")

    async def arrived(self, prices: Sequence[LivePrice]) -> None:
        for each in prices:
            assert f'"price":{each.price.price}' in each.text
            self._add(f"{each.price.symbol} {each.price.price}")

    def lost(self, reason: str) -> None:
        self._add(f"lost {reason}")

    def _add(self, words: str) -> None:
        self.told.append(words)
        if len(self.told) >= self.enough:
            self.done.set()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(client_stream, "RETRY_SECONDS", 0.01)


async def played(*script: bytes | None, enough: int, symbols=(), exchange=None) -> tuple[list[str], Played]:
    """The listener's calls, and the requests to the service."""
    service, heard = Played(iter(script)), Heard(enough)
    async with raw_server(service) as address, trio.open_nursery() as nursery:
        nursery.start_soon(follow, address, symbols, exchange, heard)
        with trio.fail_after(30):
            await heard.done.wait()
        nursery.cancel_scope.cancel()
    return heard.told, service


async def test_prices_are_told_as_they_come():
    """Prices of all symbols are passed on; events of other kinds are ignored."""
    body = event("BTCUSDT", 1.5) + event("X", 9.0, kind="other") + event("ETHUSDT", 2.5)

    told, service = await played(KNOWN, STREAM + body, enough=3)

    assert told == ["connected BTCUSDT ETHUSDT X", "BTCUSDT 1.5", "ETHUSDT 2.5"]
    assert service.targets == ["/symbols", "/stream"]


async def test_it_is_narrowed_by_the_service_or_here():
    """The service can filter by one symbol; for several the client filters."""
    told, service = await played(KNOWN, STREAM + event("X", 1.0), enough=2, symbols=["X"], exchange="e")
    assert service.targets[1] == "/stream?symbol=X&exchange=e"

    body = event("X", 1.0) + event("BTCUSDT", 2.0) + event("ETHUSDT", 3.0)
    told, service = await played(KNOWN, STREAM + body, enough=3, symbols=["ETHUSDT", "X"])
    assert service.targets[1] == "/stream"
    assert told == ["connected ETHUSDT X", "X 1.0", "ETHUSDT 3.0"]


async def test_a_connection_is_made_again_however_it_ended():
    """This holds for an orderly end, one within an event, and a service that is starting."""
    starting = json_answer('{"detail":"starting"}', status="503 Busy", kind=PROBLEM)
    chunked = STREAM.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n", 1)

    told, _ = await played(
        *[KNOWN, STREAM + event("X", 1.0)],
        *[starting],
        *[KNOWN, starting],
        *[KNOWN, chunked[: chunked.index(b"\r\n\r\n") + 4] + b"99\r\nhalf a chunk"],
        *[KNOWN, STREAM + event("X", 2.0), None],
        enough=9,
    )

    connected = "connected BTCUSDT ETHUSDT X"
    assert told == [
        *[connected, "X 1.0", "lost the service has ended it"],
        *["lost starting", "lost starting"],
        *[connected, "lost it closed the connection"],
        *[connected, "X 2.0"],
    ]


async def test_a_service_that_is_only_starting_is_waited_for():
    starting = json_answer('{"detail":"starting"}', status="503 Busy", kind=PROBLEM)

    told, _ = await played(starting, KNOWN, STREAM, enough=2)

    assert told == ["lost starting", "connected BTCUSDT ETHUSDT X"]


async def test_a_connection_that_says_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(client_stream, "SILENCE_LIMIT", 0.1)

    class Mute(Played):
        async def __call__(self, head: bytes, stream: trio.abc.Stream) -> None:
            await stream.send_all(KNOWN if b"/symbols" in head else STREAM)
            if b"/stream" in head:
                await silent(head, stream)

    heard = Heard(enough=3)
    async with raw_server(Mute(iter(()))) as address, trio.open_nursery() as nursery:
        nursery.start_soon(follow, address, (), None, heard)
        with trio.fail_after(30):
            await heard.done.wait()
        nursery.cancel_scope.cancel()

    connected, lost, again = heard.told
    assert lost.startswith("lost silent for")
    assert connected == again


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ([b""], Unreachable, "it closed the connection"),
        (
            [KNOWN, json_answer('{"detail":"no e"}', status="404 No", kind=PROBLEM)],
            Refused,
            "no e",
        ),
        ([KNOWN, json_answer("{}")], NotUnderstood, "no event stream"),
        ([KNOWN, STREAM + b"event: price\ndata: {}\n\n"], NotUnderstood, "missing required field"),
        ([KNOWN, STREAM + b"data: " + b"x" * 2_000_000], NotUnderstood, "more than 1048576 bytes"),
        ([json_answer("{}")], NotUnderstood, "missing required field"),
    ],
)
async def test_what_no_other_attempt_would_mend_is_an_error(script, error, words):
    with pytest.RaisesGroup(pytest.RaisesExc(error, match=words), flatten_subgroups=True):
        await played(*script, enough=99)


async def test_a_symbol_that_is_unknown_is_an_error():
    with pytest.RaisesGroup(
        pytest.RaisesExc(Refused, match="unknown symbol 'Y'; allowed: BTCUSDT, ETHUSDT, X"),
        flatten_subgroups=True,
    ):
        await played(KNOWN, enough=99, symbols=["X", "Y"])
