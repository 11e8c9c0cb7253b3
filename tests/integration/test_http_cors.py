"""Pages of other sites read answers only if they are allowed to, and switch nothing."""

from __future__ import annotations

import pytest

SITE = "https://example.com"


def client_of(questions, *origins, token=None):
    return questions.app(origins=origins, token=token).test_client()


@pytest.mark.parametrize("path", ["/prices/latest/BTCUSDT", "/prices/latest/NOSUCH", "/nowhere", "/health"])
@pytest.mark.parametrize(
    ("origins", "asking", "allowed"),
    [
        ((), SITE, None),
        ((SITE,), SITE, SITE),
        ((SITE,), "HTTPS://Example.com", "HTTPS://Example.com"),
        ((SITE,), "https://example.com.evil.org", None),
        ((SITE,), "http://example.com", None),
        ((SITE,), "null", None),
        ((SITE,), None, None),
        ((SITE, "https://b.org"), "https://b.org", "https://b.org"),
        (("*",), SITE, "*"),
        (("*",), "null", "*"),
    ],
)
async def test_an_allowed_page_may_read_the_answer(questions, path, origins, asking, allowed):
    headers = {} if asking is None else {"Origin": asking}
    answer = await client_of(questions, *origins).get(path, headers=headers)
    assert answer.headers.get("Access-Control-Allow-Origin") == allowed
    assert ("Origin" in answer.headers.get("Vary", "")) == (origins not in {(), ("*",)})
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "allowed"), [("GET", True), ("HEAD", True), ("POST", False), ("DELETE", False)]
)
async def test_a_preflight_allows_only_questions(questions, method, allowed):
    headers = {"Origin": SITE, "Access-Control-Request-Method": method}
    answer = await client_of(questions, SITE).options("/mode/test", headers=headers)
    methods = answer.headers.get("Access-Control-Allow-Methods", "")
    assert (methods == "GET, HEAD") == allowed
    assert "POST" not in methods
    assert "DELETE" not in methods


async def test_a_page_of_an_allowed_site_switches_nothing(questions):
    client = client_of(questions, SITE)
    answer = await client.post("/mode/test", headers={"Origin": SITE, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers
