from __future__ import annotations

import pytest

from marketflow.adapters.http.hosts import (
    Authority,
    authority_in,
    canonical_host,
    is_loopback,
    is_origin_of,
    parse_authority,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Prices.Example", "prices.example"),
        ("prices.example.", "prices.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("[2001:DB8::0:1]", "2001:db8::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("", None),
        (".", None),
        ("a..b", None),
        ("x" * 300, None),
    ],
)
def test_one_spelling_for_each_host(text, canonical):
    assert canonical_host(text) == canonical


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "localhost.example",
        "0.0.0.0",
        "::",
        "10.0.0.1",
        "127.0.0.1.example",
        "127.1",
        "notlocalhost",
        "2130706433",
    ],
)
def test_not_loopback(host):
    """Names that look like loopback may be registered by anybody."""
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("h", Authority("h", None)),
        ("h:", Authority("h", None)),
        ("h:8080", Authority("h", 8080)),
        ("H.:80", Authority("h", 80)),
        ("[::1]", Authority("::1", None)),
        ("[::1]:8080", Authority("::1", 8080)),
        ("[fe80::1%25eth0]:1", Authority("fe80::1", 1)),
        ("::1", None),
        ("[::1", None),
        ("[::1]x", None),
        ("h:65536", None),
        ("h:-1", None),
        ("h:x", None),
        ("h h", None),
        ("h, localhost", None),
        ("user@h", None),
        ("evil.example@localhost", None),
        ("localhost#evil.example", None),
        ("localhost/evil.example", None),
        ("localhost\\evil.example", None),
        ("http://h", None),
        ("", None),
        (":80", None),
    ],
)
def test_a_host_and_its_port(text, authority):
    assert parse_authority(text) == authority


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://h", "h", True),
        ("http://h", "h:80", True),
        ("http://h:80", "h", True),
        ("https://h", "h:443", True),
        ("https://h", "h", True),
        ("https://h:443", "h", True),
        ("https://h", "h:80", False),
        ("http://h", "h:443", False),
        ("http://h:8080", "h:8080", True),
        ("https://h:8080", "h:8080", True),
        ("http://h:8080", "h", False),
        ("http://h", "h:8080", False),
        ("HTTP://H.", "h", True),
        ("http://[::1]:8080", "[0:0::1]:8080", True),
        ("http://h.example", "h", False),
        ("http://h/", "h", False),
        ("http://h?", "h", False),
        ("http://user@h", "h", False),
        ("ftp://h", "h", False),
        ("file://", "h", False),
        ("null", "h", False),
        ("", "h", False),
        ("http://", "h", False),
        ("http://[", "h", False),
        ("http://h http://h", "h", False),
        ("h", "h", False),
    ],
)
def test_the_origin_of_a_page(origin, host, same):
    assert is_origin_of(origin, parse_authority(host)) is same


@pytest.mark.parametrize(
    ("target", "authority"),
    [
        ("/mode/test", None),
        ("*", None),
        ("", None),
        ("/x?u=http://h", None),
        ("http://h/mode/test", "h"),
        ("http://h:1?x", "h:1"),
        ("HTTPS://[::1]", "[::1]"),
        ("http:///x", ""),
    ],
)
def test_a_target_that_names_its_host(target, authority):
    assert authority_in(target) == authority
