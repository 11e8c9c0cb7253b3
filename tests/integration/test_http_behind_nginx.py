"""The switch of the mode behind a real nginx, if there is one: by default, and configured as documented."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from test_http_fakes import Client, eventually, serving

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")

CONFIGURATION = """
daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{upstream}; {more} }}
    }}
}}
"""
PASSING_ON = "proxy_set_header Host $http_host;"

pytestmark = pytest.mark.skipif(NGINX is None, reason="there is no nginx here")


@asynccontextmanager
async def nginx(directory: Path, upstream: int, more: str = "") -> AsyncIterator[int]:
    """An nginx in front of the port; gives its own port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = directory / "nginx.conf"
    file.write_text(CONFIGURATION.format(directory=directory, port=port, upstream=upstream, more=more))
    command = [str(NGINX), "-p", str(directory), "-c", str(file), "-e", str(directory / "error.log")]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stderr=subprocess.DEVNULL)
        await nursery.start(run)
        await eventually(partial(_listens, port), within=10)
        yield port
        nursery.cancel_scope.cancel()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def switched(port: int, host: str, **headers: str) -> int:
    """The status of a switch, requested through nginx."""
    async with Client(await trio.open_tcp_stream("127.0.0.1", port)) as client:
        named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        request = f"POST /mode/test HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{named}"
        await client.stream.send_all(request.encode() + b"Connection: close\r\n\r\n")
        return int((await client.read_to_end())[9:12])


async def test_by_default_nginx_replaces_the_host(questions, tmp_path):
    """The page passes by the header that browsers send over https; without it the page does not."""
    async with serving(questions.app()) as server, nginx(tmp_path, server.port) as port:
        public = partial(switched, port, "public.example")
        assert await public(Origin="https://public.example", Sec_Fetch_Site="same-origin") == 200
        assert await public() == 200  # a program
        assert await public(Origin="http://public.example") == 403
        assert await public(Origin="https://evil.example", Sec_Fetch_Site="cross-site") == 403
        assert await switched(port, "evil.example", Origin="http://evil.example") == 403
    assert questions.modes.switches == ["test"] * 2


async def test_with_the_host_passed_on_and_allowed(questions, tmp_path):
    """It works without https, and in old browsers."""
    app = questions.app(hosts=["public.example"])
    async with serving(app) as server, nginx(tmp_path, server.port, PASSING_ON) as port:
        public = partial(switched, port, "public.example")
        assert await public(Origin="http://public.example") == 200
        assert await public(Origin="https://public.example", Sec_Fetch_Site="same-origin") == 200
        assert await public() == 200
        assert await public(Origin="http://evil.example") == 403
        assert await switched(port, "evil.example", Origin="http://evil.example") == 403
        assert await switched(port, "evil.example") == 403
    assert questions.modes.switches == ["test"] * 3


async def test_with_a_token(questions, tmp_path):
    """It works with any treatment of names by nginx. The page asks for the token after a 401."""
    async with serving(questions.app(token="secret")) as server, nginx(tmp_path, server.port) as port:  # noqa: S106
        public = partial(switched, port, "public.example", Origin="http://public.example")
        assert await public() == 401
        assert await public(Authorization="Bearer secret") == 200
