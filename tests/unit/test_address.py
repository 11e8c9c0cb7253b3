from __future__ import annotations

import pytest

from marketflow.client.address import DEFAULT_URL, Address, parse_address
from marketflow.client.requests import Request


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (DEFAULT_URL, Address("127.0.0.1", 8080, secure=False, prefix="")),
        ("localhost:81", Address("localhost", 81, secure=False, prefix="")),
        ("host", Address("host", 80, secure=False, prefix="")),
        (" https://Host/ ", Address("host", 443, secure=True, prefix="")),
        ("https://host:8443/a/b/", Address("host", 8443, secure=True, prefix="/a/b")),
        ("http://[::1]:8080", Address("::1", 8080, secure=False, prefix="")),
    ],
)
def test_parse_address(text, address):
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no host"),
        ("http://", "no host"),
        ("ftp://host", "must begin with"),
        ("http://user:secret@host", "can only have a host, a port and a path"),
        ("http://host/?x=1", "can only have a host, a port and a path"),
        ("http://host/#x", "can only have a host, a port and a path"),
        ("http://ho st", "white space"),
        ("host:99999", "[Pp]ort"),
        ("host:x", "[Pp]ort"),
        ("http://[::1", "IPv6"),
    ],
)
def test_what_is_no_address_says_why(text, why):
    with pytest.raises(ValueError, match=why):
        parse_address(text)


@pytest.mark.parametrize(
    ("address", "authority"),
    [
        ("http://host:80", "host"),
        ("https://host", "host"),
        ("https://host:80", "host:80"),
        ("http://[::1]:1", "[::1]:1"),
    ],
)
def test_the_usual_port_is_not_named(address, authority):
    assert parse_address(address).authority == authority


def test_target_of_a_request():
    """Everything is quoted, and parameters without a value are left out."""
    request = Request(("prices", "a/b?c", "ü"), {"period": "5 m&", "exchange": None, "limit": 0})

    assert request.target == "/prices/a%2Fb%3Fc/%C3%BC?period=5+m%26&limit=0"
