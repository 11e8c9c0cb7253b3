"""No output contains a password or the token: not the log, answers or errors, in any failure.

The real program runs in its own process with the most verbose log: at the level debug, with tracebacks.
"""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import os
import re
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import attrs
import pytest
from servers import TcpRedis

from marketflow.adapters.http import guard as http_guard

REDIS, POSTGRES, TOKEN = "Redis-5ecret/!", "Postgres-5ecret/!", "Token-5ecret/!"
SECRETS = (REDIS, POSTGRES, TOKEN)
LIMIT = 30.0
"""Seconds that a program may take."""
SERVING = re.compile(r"http://127\.0\.0\.1:(\d+)")


def forms(secret: str) -> list[str]:
    """The encodings in which a secret could appear, whole or truncated."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return [secret, quote(secret, safe=""), quote(secret), secret[:8], encoded]


def check_silent(place: str, *texts: str) -> None:
    """Check that none of the texts contains a secret."""
    for text in texts:
        for form in (form for secret in SECRETS for form in forms(secret)):
            assert form not in text, f"{place}: {text[max(0, text.index(form) - 300) :][:600]}"


@attrs.frozen
class Answer:
    status: int
    text: str
    """Head and body."""


class Program:
    """`marketflow`, with all secrets, and with only the variables of our environment that it needs."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self.directory = directory
        self._log = directory / "log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")}
        usual = {"HTTP__PORT": "0", "HTTP__TOKEN": TOKEN, "STATE_DIR": str(directory / "state")}
        given = {f"MARKETFLOW_{name}": value for name, value in (usual | dict(settings)).items()}
        self.environment = kept | given | {"HOME": str(directory)}
        self.port = 0

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run it to its end; returns the exit code and all output."""
        done = subprocess.run(
            [sys.executable, "-m", "marketflow", *arguments],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    @contextmanager
    def serving(self, style: str = "text") -> Iterator[None]:
        """Serve until the end of the block; it must have stopped in order then."""
        command = [sys.executable, "-m", "marketflow", "serve", "--log-level", "debug", "--log-format", style]
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.wait(lambda: "serving" in self.said and SERVING.search(self.said))
            found = SERVING.search(self.said)
            assert found is not None
            self.port = int(found[1])
            yield
            process.terminate()
            assert process.wait(LIMIT) == 0, self.said
        finally:
            process.kill()
            process.wait()

    @property
    def said(self) -> str:
        """Its output so far."""
        return self._log.read_text(errors="replace")

    def wait(self, condition) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline, self.said[-2_000:]
            time.sleep(0.02)

    def ask(self, method: str, path: str, authorization: bytes | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            headers = {} if authorization is None else {"Authorization": authorization}
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, f"{response.headers}{response.read().decode()}")
        finally:
            connection.close()


# ---- stores that do not let us in ----


class EchoingRedis(TcpRedis):
    """Does not know AUTH, and repeats the command's words in its error, as Redis does."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--rename-command", "AUTH", ""]


class EchoingPostgres(socketserver.BaseRequestHandler):
    """Asks for the password, and repeats it in its refusal."""

    def handle(self) -> None:
        while True:
            size, code = struct.unpack("!ii", self.request.recv(8, socket.MSG_WAITALL))
            self.request.recv(size - 8, socket.MSG_WAITALL) if size > 8 else b""
            if code >> 16 == 3:
                break
            self.request.sendall(b"N")  # neither TLS nor GSSAPI
        self.request.sendall(b"R" + struct.pack("!ii", 8, 3))
        _, size = struct.unpack("!ci", self.request.recv(5, socket.MSG_WAITALL))
        password = self.request.recv(size - 4, socket.MSG_WAITALL)[:-1]
        fields = b"SFATAL\0C28P01\0Mno user has the password " + password + b"\0\0"
        self.request.sendall(b"E" + struct.pack("!i", len(fields) + 4) + fields)


@pytest.fixture
def echoing_redis(server_directory: Path) -> Iterator[TcpRedis]:
    with EchoingRedis(server_directory) as server:
        yield server


@pytest.fixture
def echoing_postgres() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), EchoingPostgres) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        yield server.server_address[1]
        server.shutdown()


def settings_at(redis_port: int, postgres_port: int, form: str) -> dict[str, str]:
    """The addresses of the stores, in each form of setting."""
    redis_password, postgres_password = quote(REDIS, safe=""), quote(POSTGRES, safe="")
    match form:
        case "addresses":
            return {
                "REDIS__URL": f"redis://:{redis_password}@127.0.0.1:{redis_port}/0",
                "POSTGRES__DSN": f"postgresql://someone:{postgres_password}@127.0.0.1:{postgres_port}/d",
            }
        case "words":
            return {
                "REDIS__URL": f"redis://127.0.0.1:{redis_port}/0?password={redis_password}&username=someone",
                "POSTGRES__DSN": f"host=127.0.0.1 port={postgres_port} user=someone password='{POSTGRES}'",
            }
        case _:
            return {
                "REDIS__PORT": str(redis_port),
                "REDIS__PASSWORD": REDIS,
                "POSTGRES__PORT": str(postgres_port),
                "POSTGRES__PASSWORD": POSTGRES,
            }


QUESTIONS = [
    *[
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/mode",
        "/symbols",
        "/exchanges",
        "/prices/latest",
    ],
    *["/prices/latest/BTCUSDT", "/prices/highest/BTCUSDT?period=1h", "/prices/average/BTCUSDT?period=7d"],
    *[
        "/candles/BTCUSDT",
        "/candles/BTCUSDT?limit=x",
        "/openapi.json",
        "/docs",
        "/",
        "/nowhere",
        "/problems/unauthorized",
    ],
]
PRESENTED = [
    *[b"Bearer wrong", b"Bearer ", b"Bearer", b"", b"Basic " + base64.b64encode(b":" + TOKEN.encode())],
    *[b"Bearer " + TOKEN.encode()[:-1], b"Bearer " + TOKEN.encode() + b"x", TOKEN.encode()],
    *[
        b"Bearer " + TOKEN.lower().encode(),
        b"Bearer " + b"x" * 8_000,
        b"Bearer \xe4\xf6\xfc",
        b"Bearer \xff\xfe",
    ],
    *["Bearer тайна".encode(), b"Bearer " + TOKEN.encode() + b"\xc3\xa4", b"Bearer " + TOKEN.encode() * 2],
]


@pytest.mark.parametrize("form", ["addresses", "words", "parts"])
@pytest.mark.parametrize("style", ["text", "json"])
def test_a_service_that_no_store_lets_in(
    echoing_redis: TcpRedis, echoing_postgres: int, tmp_path: Path, form: str, style: str
) -> None:
    """The stores' errors repeat the passwords, and a wrong token contains a part of the right one."""
    program = Program(tmp_path, settings_at(echoing_redis.port, echoing_postgres, form))
    with program.serving(style):
        program.wait(lambda: program.said.count("store away") >= 2)
        answers = [program.ask("GET", path) for path in QUESTIONS]
        refused = [program.ask("POST", "/mode/test", presented) for presented in PRESENTED]
        done = program.ask("POST", "/mode/test", b"Bearer " + TOKEN.encode())
        health = json.loads(answers[0].text.partition("\n\n")[2])
    assert {answer.status for answer in refused} == {401}
    assert done.status == 200
    assert "AUTH" in health["redis"]["error"]
    assert "no user has the password" in health["postgres"]["error"]
    check_silent("answers", *(answer.text for answer in [*answers, *refused, done]))
    check_silent("log", program.said)


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A presented token of any form and length is only compared by `compare_digest`."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(presented: bytes, wanted: bytes) -> bool:
        compared.append((presented, wanted))
        return verdict

    monkeypatch.setattr(hmac, "compare_digest", compare)
    tokens = [each for each in PRESENTED if each.startswith(b"Bearer ") and each.strip() != b"Bearer"]
    for verdict in (False, True):
        compared.clear()
        for each in tokens:
            assert http_guard._is_bearer(each.decode("latin-1"), TOKEN) is verdict
        assert compared == [(each.removeprefix(b"Bearer "), TOKEN.encode()) for each in tokens]


# ---- commands that end at once ----

COMMANDS = [
    "serve",
    "exchange",
    "demo",
    "config",
    "prices",
    "candles",
    "symbols",
    "exchanges",
    "mode",
    "health",
]
COMMANDS += ["watch", "completion"]
WRONG = [
    {"REDIS__URL": f"rdis://:{REDIS}@127.0.0.1"},
    {"REDIS__URL": f"redis://:{REDIS}@127.0.0.1:port"},
    {"REDIS__HOST": f"redis://:{REDIS}@127.0.0.1"},
    {"REDIS__PASWORD": REDIS},
    {"REDIS": f'{{"password": "{REDIS}", "port": "u:{REDIS}@h"}}'},
    {"POSTGRES__DSN": f"postgresql://u:{POSTGRES}@127.0.0.1:port/d"},
    {"POSTGRES__DSN": f"host=127.0.0.1 password={POSTGRES} {POSTGRES}"},
    {"POSTGRES__DSN": f"host=127.0.0.1 colour=red password={POSTGRES}"},
    {"POSTGRES__PORT": f"u:{POSTGRES}@127.0.0.1"},
    {"HTTP__TOKEN": f"{TOKEN} {TOKEN}"},
    {"HTTP__TOKEN": f"{TOKEN}\N{LATIN SMALL LETTER A WITH DIAERESIS}"},
    {"HTTP": f'{{"token": "{TOKEN}", "port": 0, "tokn": "{TOKEN}"}}'},
]


@pytest.mark.parametrize("wrong", WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_wrong_settings(tmp_path: Path, wrong: dict[str, str]) -> None:
    """Errors name wrong settings and do not show them, with every command."""
    program = Program(tmp_path, wrong)
    for command in (["config"], ["serve", "--log-level", "debug"]):
        code, said = program.run(*command)
        assert code == 2, said
        assert next(iter(wrong)).partition("__")[0].lower() in said.lower()
        check_silent(command[0], said)


def test_settings_are_shown_without(tmp_path: Path) -> None:
    """`config` shows no secret, from any source, and neither does the help of any command."""
    for form in ("addresses", "words", "parts"):
        program = Program(tmp_path, settings_at(1, 1, form))
        code, said = program.run("config")
        assert code == 0
        assert said.count("***") >= 3
        check_silent("config", said)
    program.environment["MARKETFLOW_TOKEN"] = TOKEN
    for command in COMMANDS:
        code, said = program.run(command, "--help")
        assert code == 0
        check_silent(command, said)


def test_files_that_are_broken(tmp_path: Path) -> None:
    """`config.toml` and `.env` may contain secrets, so errors about unreadable ones do not quote them."""
    program = Program(tmp_path, {})
    (tmp_path / "config.toml").write_text(f'[redis]\npassword = "{REDIS}\n[http]\ntoken = {TOKEN}\n')
    code, said = program.run("serve", "--log-level", "debug")
    assert code == 2
    check_silent("config.toml", said)
    (tmp_path / "config.toml").write_text(f'[redis]\nurl = "redis://:{quote(REDIS, safe="")}@h"\nprot = 1\n')
    (tmp_path / ".env").write_text(
        f"MARKETFLOW_POSTGRES__PASSWORD='{POSTGRES}\nMARKETFLOW_HTTP__TOKEN={TOKEN}\n"
    )
    code, said = program.run("config")
    assert code == 2
    check_silent(".env", said)


def test_whoever_asks_with_a_token(tmp_path: Path) -> None:
    """A missing service, an address with a password, and an invalid answer give errors without the secret."""
    program = Program(tmp_path, {})
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    for url in (
        f"http://127.0.0.1:{port}",
        f"http://u:{REDIS}@127.0.0.1:{port}",
        f"ftp://u:{REDIS}@h",
        f"http://u:{TOKEN}℀@h",
    ):
        for command in (["mode", "test", "--token", TOKEN], ["health"], ["watch"]):
            code, said = program.run(*command, "--url", url)
            assert code in (1, 2), said
            check_silent(" ".join(command), said)
    for token in (f"{TOKEN}\n", f"{TOKEN}\N{CYRILLIC SMALL LETTER A}", f"{TOKEN} {TOKEN}"):
        code, said = program.run("mode", "test", "--token", token, "--url", f"http://127.0.0.1:{port}")
        assert code in (1, 2), said
        assert "Traceback" not in said
        assert "internal" not in said
        check_silent("token", said)
