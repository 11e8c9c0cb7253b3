from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator

import pytest
import trio
import trustme
from servers import TcpRedis
from test_http_fakes import Questions
from tls_front import HOST, tls_front


@pytest.fixture
def questions():
    """Fakes of the ports that the HTTP application uses."""
    return Questions()


@pytest.fixture
def client(questions):
    """A test client of the application with these fakes, without a server."""
    return questions.app().test_client()


@pytest.fixture(scope="session")
def tls_redis_url(redis_server: TcpRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Redis of all tests behind TLS, which the embedded one has not; in a thread of its own."""
    authority, trusted = trustme.CA(), tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    ports: list[int] = []
    serving, ending = threading.Event(), trio.Event()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def serve() -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        async with tls_front(redis_server.port, context) as front:
            ports.append(front.port)
            serving.set()
            await ending.wait()

    thread = threading.Thread(target=trio.run, args=[serve])
    thread.start()
    assert serving.wait(10)
    yield f"rediss://{HOST}:{ports[0]}/0?ssl_ca_certs={trusted}"
    tokens[0].run_sync_soon(ending.set)
    thread.join()
