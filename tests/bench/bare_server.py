"""The limits for requests: hypercorn with almost nothing behind it, and a Quart-Trio hello.

`python -m tests.bench.bare_server quart` (or `asgi`) prints its port, and serves until stdin ends.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart_trio import QuartTrio

from tests.bench.children import child

BODY = b'{"hello":"world"}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


@contextmanager
def bare_server(kind: str) -> Iterator[int]:
    """Serve in a separate process, `quart` or `asgi`; gives its port."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with child("tests.bench.bare_server", kind, **pipes) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


async def _asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


def _quart() -> QuartTrio:
    app = QuartTrio(__name__)

    @app.get("/")
    async def hello() -> dict[str, str]:
        return {"hello": "world"}

    return app


async def _main(kind: str) -> None:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    # By default it closes a connection after 1,000 requests.
    config.keep_alive_max_requests = sys.maxsize
    async with trio.open_nursery() as nursery:
        app: Any = _asgi if kind == "asgi" else _quart()
        urls = await nursery.start(serve, app, config)
        print(urls[0].rpartition(":")[2], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_main, sys.argv[1])
