"""The switch of the mode: who may do it, and that an incomplete request does not."""

from __future__ import annotations

import pytest
import trio
from test_http_fakes import eventually, serving

from marketflow.adapters.http import app as http_app
from marketflow.adapters.http import asgi

TOKEN = "s3cret-ä"  # noqa: S105


async def test_a_switch_tells_whether_it_changed_anything(questions):
    client = questions.app().test_client()
    answers = []
    for method, path in [
        ("GET", "/mode"),
        ("POST", "/mode/test"),
        ("POST", "/mode/test"),
        ("GET", "/mode"),
        ("POST", "/mode/live"),
    ]:
        response = await client.open(path, method=method)
        assert response.status_code == 200
        answers.append(await response.get_json())
    assert answers == [
        {"mode": "live", "changed": False},
        {"mode": "test", "changed": True},
        {"mode": "test", "changed": False},
        {"mode": "test", "changed": False},
        {"mode": "live", "changed": True},
    ]


@pytest.mark.parametrize("presented", [f"Bearer {TOKEN}", f"bearer   {TOKEN}"])
async def test_the_token_opens(questions, presented):
    async with serving(questions.app(token=TOKEN)) as server, await server.connect() as client:
        headers = [("Authorization", presented.encode())]
        answer = await client.request("POST", "/mode/test", headers=headers)
    assert answer.status == 200
    assert questions.modes.mode == "test"


@pytest.mark.parametrize(
    "presented", [None, "", "Bearer", "Bearer ", "Bearer s3cret", "Basic " + TOKEN, TOKEN, f"Bearer {TOKEN}2"]
)
async def test_without_the_token_nothing_is_switched(questions, presented):
    client = questions.app(token=TOKEN).test_client()
    headers = {} if presented is None else {"Authorization": presented}
    response = await client.post("/mode/test", headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert response.content_type == "application/problem+json"
    assert questions.modes.switches == []


async def test_an_empty_token_locks_rather_than_opens(questions):
    client = questions.app(token="").test_client()
    assert (await client.post("/mode/test", headers={"Authorization": "Bearer "})).status_code == 401


async def test_reading_the_mode_wants_no_token(questions):
    assert (await questions.app(token=TOKEN).test_client().get("/mode")).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://127.0.0.1:8080", 200),
        ("https://127.0.0.1:8080", 200),
        ("http://127.0.0.1:9", 403),
        ("http://127.0.0.1", 403),
        ("http://evil.example", 403),
        ("http://127.0.0.1:8080.evil.example", 403),
        ("null", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
async def test_pages_of_other_sites_may_not_switch(questions, origin, status):
    client = questions.app().test_client()
    headers = {"Host": "127.0.0.1:8080"} | ({} if origin is None else {"Origin": origin})
    response = await client.post("/mode/test", headers=headers)
    assert response.status_code == status
    assert questions.modes.switches == (["test"] if status == 200 else [])


HALF = b"POST /mode/test HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n12345"


async def test_half_a_post_switches_nothing_when_the_client_leaves(questions):
    async with serving(questions.app()) as server, await server.connect() as client:
        await client.stream.send_all(HALF)
        await client.stream.send_eof()
        assert (await client.read_to_end()).startswith(b"HTTP/1.1 400 ")
    assert questions.modes.switches == []


async def test_half_a_post_switches_nothing_when_the_rest_never_comes(questions, monkeypatch):
    monkeypatch.setattr(http_app, "BODY_TIMEOUT", 0.2)
    monkeypatch.setattr(asgi, "LINGER", 0.1)
    async with serving(questions.app()) as server, await server.connect() as client:
        await client.stream.send_all(HALF)
        answer = await client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/request-timeout" in answer
    assert questions.modes.switches == []


async def test_the_second_half_completes_the_post(questions):
    async with serving(questions.app()) as server, await server.connect() as client:
        await client.stream.send_all(HALF)
        await trio.sleep(0.05)
        assert questions.modes.switches == []
        await client.stream.send_all(b"67890")
        await eventually(lambda: questions.modes.switches == ["test"])


@pytest.mark.parametrize("size", [16 * 1024 + 1, 4_000_000])
async def test_a_body_too_large_is_refused_and_the_client_learns_it(questions, size):
    """The answer must not be lost to a reset while the client still sends."""
    async with serving(questions.app()) as server, await server.connect() as client:
        answer = await client.request("POST", "/mode/test", body=b"x" * size)
    assert answer.status == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert questions.modes.switches == []


async def test_a_chunked_body_too_large_is_refused(questions):
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    async with serving(questions.app()) as server, await server.connect() as client:
        head = b"POST /mode/test HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.stream.send_all(head + chunk + b"0\r\n\r\n")
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 413 ")
    assert questions.modes.switches == []


async def test_a_small_body_does_no_harm(questions):
    async with serving(questions.app()) as server, await server.connect() as client:
        answer = await client.request("POST", "/mode/test", body=b'{"any": "thing"}')
    assert answer.json == {"mode": "test", "changed": True}
