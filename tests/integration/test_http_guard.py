"""Which requests may switch the mode without a token: none that a page of another site has sent."""

from __future__ import annotations

import pytest
from test_http_fakes import serving

HOSTS = ("0.0.0.0", "Prices.Example", "2001:db8::1")
SAME = {"Sec-Fetch-Site": "same-origin"}


async def status_of(questions, headers, *, token=None, path="/mode/test") -> int:
    client = questions.app(token=token, hosts=HOSTS).test_client()
    response = await client.post(path, headers=headers)
    if response.status_code == 403:
        body = await response.get_json()
        assert response.content_type == "application/problem+json"
        assert body["type"] == "/problems/cross-site-request"
        assert "http.allowed_hosts" in body["detail"]
        assert "http.token" in body["detail"]
    assert questions.modes.switches == (["test"] if response.status_code == 200 else [])
    return response.status_code


@pytest.mark.parametrize(
    "host",
    [
        *[
            "localhost",
            "localhost:8080",
            "LOCALHOST.:8080",
            "127.0.0.1:8080",
            "127.1.2.3",
            "[::1]:8080",
            "[::1]",
        ],
        *["0.0.0.0:8080", "prices.example", "PRICES.example.", "prices.example:8443", "[2001:db8::1]:8080"],
    ],
)
async def test_a_program_that_asks_for_a_host_that_is_known(questions, host):
    """It sends no Origin."""
    assert await status_of(questions, {"Host": host}) == 200


@pytest.mark.parametrize(
    "host",
    [
        *[
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
        ],
        *[
            "",
            "localhost:x",
            "localhost, evil.example",
            "evil.example@localhost",
            "prices.example.evil",
            "::1",
        ],
    ],
)
@pytest.mark.parametrize("origin", [None, "http://{host}", "https://{host}", "null"])
async def test_a_rebound_name_does_not_pass(questions, host, origin):
    """To the browser its page and the service are one site: Origin and Host are equal."""
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin.format(host=host)})
    headers |= {"X-Forwarded-Host": "localhost", "Forwarded": "host=localhost"}
    assert await status_of(questions, headers) == 403


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8080", "http://localhost:8080", 200),
        ("localhost", "http://localhost:80", 200),
        ("localhost:80", "http://localhost", 200),
        ("[::1]:8080", "http://[::1]:8080", 200),
        ("prices.example", "https://prices.example", 200),
        ("prices.example", "https://prices.example:443", 200),
        ("prices.example:443", "https://prices.example", 200),
        ("prices.example:8443", "https://PRICES.example:8443", 200),
        ("127.0.0.1:8080", "http://localhost:8080", 403),
        ("127.0.0.1:8080", "http://127.0.0.1:3000", 403),
        ("127.0.0.1:8080", "http://127.0.0.1", 403),
        ("127.0.0.1:8080", "https://prices.example", 403),
        ("127.0.0.1:8080", "http://evil.example", 403),
        ("prices.example", "http://127.0.0.1:8080", 403),
        ("prices.example", "http://prices.example.evil", 403),
        ("prices.example", "null", 403),
        ("prices.example", "", 403),
    ],
)
async def test_a_page_may_only_if_it_is_of_the_host_that_it_asks(questions, host, origin, status):
    assert await status_of(questions, {"Host": host, "Origin": origin}) == status


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "backend", "h:x", ""])
@pytest.mark.parametrize("origin", [None, "https://public.example", "null"])
async def test_the_browser_says_that_it_is_our_own_page(questions, host, origin):
    """It works behind a proxy that replaces Host. Browsers send the header over https and to loopback."""
    headers = {"Host": host} | SAME | ({} if origin is None else {"Origin": origin})
    assert await status_of(questions, headers) == 200


@pytest.mark.parametrize(
    "site", ["cross-site", "same-site", "none", "", "Same-Origin", "same-origin, same-origin"]
)
async def test_no_other_word_of_the_browser_is_enough(questions, site):
    headers = {"Host": "127.0.0.1:8080", "Origin": "https://public.example", "Sec-Fetch-Site": site}
    assert await status_of(questions, headers) == 403


async def test_two_of_a_header_are_as_good_as_none(questions):
    headers = [("Host", "127.0.0.1"), ("Origin", "http://127.0.0.1"), ("Origin", "http://evil.example")]
    assert await status_of(questions, headers) == 403
    headers = [("Host", "h"), ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")]
    assert await status_of(questions, headers) == 403


@pytest.mark.parametrize("headers", [{"Host": "evil.example", "Origin": "http://evil.example"}, SAME, {}])
async def test_with_a_token_the_token_alone_decides(questions, headers):
    token = {"Authorization": "Bearer secret"}
    assert await status_of(questions, headers, token="secret") == 401  # noqa: S106
    assert await status_of(questions, headers | {"Authorization": "Bearer x"}, token="secret") == 401  # noqa: S106
    assert await status_of(questions, headers | token, token="secret") == 200  # noqa: S106


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /mode/test HTTP/1.0\r\n", 403),
        (b"POST /mode/test HTTP/1.1\r\n", 400),
        (b"POST /mode/test HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n", 400),
        (b"POST /mode/test HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n", 400),
        (b"POST /mode/test HTTP/1.1\r\nHost: 127.0.0.1\r\n folded\r\n", 403),
        (b"POST http://evil.example/mode/test HTTP/1.1\r\nHost: 127.0.0.1\r\n", 403),
        (b"POST http://127.0.0.1/mode/test HTTP/1.1\r\nHost: evil.example\r\n", 200),
        (b"POST http://evil.example@127.0.0.1/mode/test HTTP/1.1\r\nHost: 127.0.0.1\r\n", 403),
        (b"POST /mode/test HTTP/1.1\r\nHost: \xff\r\n", 403),
        (b"POST /mode/test HTTP/1.1\r\nHost:\t127.0.0.1:8080 \r\n", 200),
    ],
)
async def test_as_it_comes_over_the_wire(questions, head, status):
    async with serving(questions.app(hosts=HOSTS)) as server, await server.connect() as client:
        await client.stream.send_all(head + b"Connection: close\r\n\r\n")
        assert (await client.read_to_end())[9:12] == b"%d" % status
    assert questions.modes.switches == (["test"] if status == 200 else [])
