"""The client's HTTP with servers of all kinds, on real sockets."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trustme
from raw_server import json_answer, raw_server, silent, with_bytes

from marketflow.client import questions, transport
from marketflow.client.address import parse_address
from marketflow.client.errors import NotUnderstood, Refused, Unreachable
from marketflow.client.questions import ask
from marketflow.client.requests import HEALTH, SYMBOLS, Request


async def test_the_request_as_it_is_sent():
    """The request is one that every proxy understands, and its connection is not kept."""
    got = []

    async def answer(head: bytes, stream: trio.abc.Stream) -> None:
        got.append(head.decode().split("\r\n"))
        await stream.send_all(json_answer("1"))

    async with raw_server(answer) as address:
        corner = attrs.evolve(address, prefix="/corner")
        wish = Request(("mode", "test"), method="POST", headers={"Authorization": "Bearer x"})
        assert await ask(corner, wish) == b"1"
        assert await ask(address, SYMBOLS) == b"1"

    posted, asked = got
    assert posted[0] == "POST /corner/mode/test HTTP/1.1"
    assert {f"Host: {address.authority}", "Connection: close", "Authorization: Bearer x"} < {*posted}
    assert "Content-Length: 0" in posted
    assert asked[0] == "GET /symbols HTTP/1.1"


@pytest.mark.parametrize(
    "pieces",
    [
        [json_answer("[1,2]")],
        [bytes([byte]) for byte in json_answer("[1,2]")],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n", b"3\r\n,2]\r\n0\r\n\r\n"],
        [b"HTTP/1.0 200 OK\r\n\r\n[1", b",2]"],
        [b"HTTP/1.1 103 Early Hints\r\n\r\n", json_answer("[1,2]")],
    ],
    ids=["whole", "bytes", "chunked", "to the end", "after hints"],
)
async def test_every_way_to_send_a_body(pieces):
    async with raw_server(with_bytes(*pieces)) as address:
        assert await ask(address, SYMBOLS) == b"[1,2]"


# ---- nobody answers ----


async def test_nobody_listens():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(Unreachable) as raised:
            await ask(parse_address(url), SYMBOLS)

    assert str(raised.value) == (
        f"no marketflow answers at {url} (connection refused): "
        "start one with 'marketflow serve', or say where it is with --url"
    )


async def test_there_is_no_such_host():
    with pytest.raises(Unreachable, match="not a valid host name"):
        await ask(parse_address("http://a..b"), SYMBOLS)


@pytest.mark.parametrize(
    "pieces",
    [[], [b"HTTP/1.1 200 OK\r\nContent-"], [json_answer("[1,2]")[:-1]]],
    ids=["at once", "in the head", "in the body"],
)
async def test_who_hangs_up_too_early_has_not_answered(pieces):
    async with raw_server(with_bytes(*pieces)) as address:
        with pytest.raises(Unreachable, match=r"it closed the connection|connection reset"):
            await ask(address, SYMBOLS)


async def test_silence_is_no_answer(monkeypatch):
    monkeypatch.setattr(transport, "HEAD_LIMIT", 0.05)
    async with raw_server(silent) as address:
        with pytest.raises(Unreachable, match="no answer in"):
            await ask(address, SYMBOLS)


async def test_half_an_answer_and_silence_is_none(monkeypatch):
    monkeypatch.setattr(questions, "BODY_LIMIT", 0.05)

    async def answer(head: bytes, stream: trio.abc.Stream) -> None:
        await stream.send_all(json_answer("[1,2]")[:-1])
        await silent(head, stream)

    async with raw_server(answer) as address:
        with pytest.raises(Unreachable, match="no end of the answer in"):
            await ask(address, SYMBOLS)


async def test_garbage_is_not_http():
    async with raw_server(with_bytes(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")) as address:
        with pytest.raises(NotUnderstood, match=f"the server at {address} is not marketflow.*not HTTP"):
            await ask(address, SYMBOLS)


async def test_an_answer_without_an_end_is_not_kept(monkeypatch):
    monkeypatch.setattr(questions, "LARGEST_BODY", 100_000)

    async def answer(_: bytes, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send_all(bytes(10_000))

    async with raw_server(answer) as address:
        with pytest.raises(NotUnderstood, match="without an end"):
            await ask(address, SYMBOLS)


# ---- errors ----

PROBLEM = "application/problem+json"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            json_answer('{"detail":"no X","allowed":["A","B"]}', status="404 Not Found", kind=PROBLEM),
            "no X; allowed: A, B",
        ),
        (
            json_answer('{"detail":"starting"}', status="503 Busy", kind=PROBLEM, head="Retry-After: 1\r\n"),
            "starting; try again in 1 s",
        ),
        (
            json_answer('{"title":"Unauthorized"}', status="401 No", kind=f"{PROBLEM}; charset=utf-8"),
            "Unauthorized; give the token with --token or MARKETFLOW_TOKEN",
        ),
        (json_answer("<p>", status="502 Bad Gateway", kind="text/html"), "URL answered 502 Bad Gateway"),
        (json_answer("<p>", status="599 Odd", kind="text/html"), "URL answered 599"),
        (
            json_answer("", status="301 Moved", kind="text/html", head="Location: https://h/\r\n"),
            "URL answered 301 Moved Permanently; it is at https://h/ now",
        ),
    ],
)
async def test_errors_say_what_to_do(answer, words):
    async with raw_server(with_bytes(answer)) as address:
        with pytest.raises(Refused) as raised:
            await ask(address, SYMBOLS)

    assert str(raised.value) == words.replace("URL", str(address))


async def test_the_health_of_a_service_that_is_unavailable_is_an_answer():
    """But a 503 of a proxy is an error."""
    report = json_answer('{"status":"unavailable"}', status="503 Service Unavailable")
    async with raw_server(with_bytes(report)) as address:
        assert await ask(address, HEALTH) == b'{"status":"unavailable"}'

    for body, kind, words in (('{"detail":"down"}', PROBLEM, "down"), ("<p>", "text/html", "answered 503")):
        proxy = json_answer(body, status="503 Service Unavailable", kind=kind)
        async with raw_server(with_bytes(proxy)) as address:
            with pytest.raises(Refused, match=words):
                await ask(address, HEALTH)


# ---- TLS ----


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """The CA of this machine's certificate, as `ca.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """TLS for a server on this machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_tls(authority, tls, tmp_path, monkeypatch):
    """It works with a certificate that the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with raw_server(with_bytes(json_answer("1")), tls=tls) as address:
        assert str(address).startswith("https://")
        assert await ask(address, SYMBOLS) == b"1"


async def test_a_certificate_that_nobody_trusts(tls):
    async with raw_server(with_bytes(json_answer("1")), tls=tls) as address:
        with pytest.raises(Unreachable, match="its certificate is not trusted: "):
            await ask(address, SYMBOLS)


async def test_tls_where_there_is_none():
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with pytest.raises(Unreachable, match="no TLS: "):
            await ask(parse_address(f"https://127.0.0.1:{port}"), SYMBOLS)
        nursery.cancel_scope.cancel()
