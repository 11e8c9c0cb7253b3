"""Shell completion, requested as shells do it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from serving import running
from structlog.testing import capture_logs

from marketflow import cli
from marketflow.commands import completion

LIMIT = 60


@pytest.fixture
def completed(monkeypatch, capsys):
    """The completions at a place of a command line, computed in this process."""

    def ask(words: str, at: int, url: str = "http://127.0.0.1:1") -> list[str]:
        for name, value in (
            ("COMP_WORDS", words),
            ("COMP_CWORD", str(at)),
            ("_MARKETFLOW_COMPLETE", "bash_complete"),
            ("MARKETFLOW_URL", url),
        ):
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        assert completion.completed(cli.commands) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return [line.removeprefix("plain,") for line in out.splitlines() if line]

    return ask


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [
        ("marketflow c", 1, ["candles", "check-exchange", "cluster", "completion", "config"]),
        ("marketflow prices ", 2, ["aggregate", "average", "highest", "latest", "lowest"]),
        ("marketflow candles X --interval 1", 4, ["1s", "15s", "1m", "15m", "1h", "1d", "1w"]),
        ("marketflow prices highest --period 5", 4, ["5s", "5m"]),
        ("marketflow mode ", 2, ["live", "test"]),
        ("marketflow serve --log-l", 2, ["--log-level"]),
        ("marketflow serve --log-level ", 3, ["debug", "info", "warning", "error"]),
        ("marketflow completion ", 2, ["bash", "zsh", "fish"]),
        ("marketflow watch ", 2, []),
    ],
)
def test_commands_and_values(completed, words, at, expected):
    """It also works without a service, but without the names that only the service knows."""
    assert completed(words, at) == expected


def test_without_a_command_it_is_a_command(completed):
    assert {"serve", "demo", "watch", "prices"} <= {*completed("marketflow ", 1)}


async def test_names_are_those_of_the_service(completed, settings, exchanges):
    with capture_logs():  # what the service logs goes elsewhere
        await check_names(completed, settings)


async def check_names(completed, settings):
    async with running(settings) as service:
        url = f"http://{service.client.address}"

        async def names(words: str, at: int) -> list[str]:
            return await trio.to_thread.run_sync(lambda: completed(words, at, url))

        assert await names("marketflow watch B", 2) == ["BTCUSDT"]
        assert await names("marketflow watch --exchange exchange", 3) == [
            "exchange1",
            "exchange2",
            "exchange3",
        ]
        first = await names("marketflow prices latest ", 3)
        assert {*settings.symbols, "exchange1", "test1"} < {*first}
        assert {*settings.symbols} == {*await names("marketflow prices latest exchange1 ", 4)}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash, which CI has")
def test_bash(tmp_path: Path):
    """It works in a real bash, set up as --help says."""
    program = tmp_path / "marketflow"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m marketflow "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(marketflow completion bash)"
        COMP_WORDS=(marketflow prices hi); COMP_CWORD=2
        "$(complete -p marketflow | sed 's/.*-F \\([^ ]*\\).*/\\1/')" marketflow
        echo "${COMPREPLY[@]}"
    """

    done = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("highest\n", "")


@pytest.mark.parametrize(
    ("shell", "sign"), [("zsh", "#compdef marketflow"), ("fish", "function _marketflow")]
)
def test_scripts_of_other_shells(capsys, shell, sign):
    assert cli.run(["completion", shell]) == 0
    assert capsys.readouterr().out.startswith(sign)
