from __future__ import annotations

import pytest

from marketflow.adapters.exchange.websocket.proxy import Proxy


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy:3128", Proxy("proxy", 3128)),
        ("http://[::1]:3128/", Proxy("::1", 3128)),
        ("http://user:p%40ss%3A@proxy:3128", Proxy("proxy", 3128, "user:p@ss:")),
        ("http://user@proxy:3128", Proxy("proxy", 3128, "user:")),
    ],
)
def test_a_url_is_parsed(url, proxy):
    assert Proxy.parsed(url) == proxy


@pytest.mark.parametrize(
    "url",
    [
        "https://u:secret@proxy:1",
        "socks5://u:secret@proxy:1",
        "proxy:1",
        "http://u:secret@proxy",
        "http://:1",
        "http://u:secret@proxy:1/path",
        "http://u:secret@proxy:1?q",
        "http://u:secret@proxy:port",
        "http://u:secret@proxy:99999",
        "http://[u:secret@proxy:1",
    ],
)
def test_a_bad_url_is_refused_without_its_password(url):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words differ
        Proxy.parsed(url)
    assert "secret" not in str(caught.value)


def test_the_password_is_only_in_the_header():
    proxy = Proxy.parsed("http://user:secret@proxy:1")
    assert "secret" not in repr(proxy)
    assert proxy.authorization == "Basic dXNlcjpzZWNyZXQ="
    assert Proxy("proxy", 1).authorization is None
