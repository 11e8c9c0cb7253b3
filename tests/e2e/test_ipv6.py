"""IPv6 addresses in brackets, as in URLs: for listening, for requests, and in printed URLs."""

from __future__ import annotations

import socket

import pytest
from program import program

from marketflow.client.address import parse_address


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 here")

NOWHERE = 9
"""A port on which nothing listens."""


@pytest.mark.parametrize("host", ["[::1]", "::1"])
async def test_a_service_an_exchange_and_a_command(tmp_path, host):
    """Each accepts an address in brackets, and prints URLs with brackets."""
    directories = [tmp_path / name for name in ("exchange", "service", "command", "another")]
    for directory in directories:
        directory.mkdir()
    exchange_at, service_at, command_at, another_at = directories
    simulated = "exchange", "--host", host, "--port", "0", "--log-format", "json"
    async with program(exchange_at, *simulated) as exchange:
        listening = await exchange.logged("exchange listening")
        settings = {
            "EXCHANGES": [{"name": "exchange1", "host": host, "port": listening["port"]}],
            "REDIS__PORT": NOWHERE,
            "POSTGRES__PORT": NOWHERE,
            "STATE_DIR": str(tmp_path / "state"),
        }
        served = "serve", "--host", host, "--port", "0", "--log-format", "json"
        async with program(service_at, *served, environment=settings) as service:
            url = (await service.logged("serving"))["url"]
            port = parse_address(url).port
            assert url == f"http://[::1]:{port}"
            await service.logged("connected")
            async with program(command_at, "mode", "test", "--url", url) as command:
                assert await command.ended(within=30) == 0
                assert command.stdout == "switched to test\n"
            taken = "serve", "--host", host, "--port", str(port)
            async with program(another_at, *taken, environment=settings) as another:
                assert await another.ended(within=30) == 1
                assert another.stderr.splitlines()[-1] == f"marketflow: port {port} is in use on ::1"
