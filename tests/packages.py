"""Checks what `nox -s build` has made: the packages' files, and that the program runs without the checkout.

It is not a pytest test, since pytest has no packages: `python tests/packages.py DIST DIRECT PYTHON`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "marketflow" / "adapters" / "http" / "dashboard"
BUILT = ("index.html", "licenses.md", "assets/")

DEMO_SECONDS = 8
START_LIMIT = 120
"""Seconds until the demo prints its address; a first start creates a database."""


def check_files(dist: Path, direct: Path) -> None:
    """Check that the wheel has only the program and the built dashboard, in both ways of building it.

    Args:
        dist: has the sdist, and the wheel that was made of it.
        direct: has the wheel that was made of the checkout.
    """
    (wheel,), (same,), (sdist,) = dist.glob("*.whl"), direct.glob("*.whl"), dist.glob("*.tar.gz")
    assert wheel.read_bytes() == same.read_bytes(), "the sdist makes another wheel than the checkout"

    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {str(path.relative_to(ROOT)) for path in committed() | built()}
    assert held == wanted, f"too many: {sorted(held - wanted)}, missing: {sorted(wanted - held)}"

    with tarfile.open(sdist) as archive:
        (top,) = {name.partition("/")[0] for name in archive.getnames()}
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert top == sdist.name.removesuffix(".tar.gz")
    assert wanted | {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "config.toml"} <= names
    strays = [name for name in names if re.search(r"(^|/)(node_modules|__pycache__|\.env)(/|$)", name)]
    assert not strays, f"in the sdist: {strays}"


def committed() -> set[Path]:
    """The files of the package, except for the dashboard's."""
    listed = subprocess.run(
        ["git", "ls-files", "marketflow"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = {ROOT / name for name in listed.stdout.splitlines()}
    return {path for path in paths if DASHBOARD not in path.parents}


def built() -> set[Path]:
    """The files of the built dashboard."""
    bundle = DASHBOARD / "dist"
    return {
        path
        for path in bundle.rglob("*")
        if path.is_file() and str(path.relative_to(bundle)).startswith(BUILT)
    }


def check_demo(python: Path) -> None:
    """Check that the demo of an installed wheel answers, has its dashboard, stops, and has lost nothing."""
    program = python.absolute().with_name("marketflow")
    command = [program, "demo", "--port", "0", "--duration", str(DEMO_SECONDS)]
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("MARKETFLOW_", "PYTHON"))
    }
    with (
        tempfile.TemporaryDirectory() as directory,
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, cwd=directory, env=clean, stdout=said) as demo,
    ):
        try:
            url = told_url(said, demo)
            assert b'"price"' in got(f"{url}/prices/latest/BTCUSDT")
            page = got(f"{url}/").decode()
            script, *_ = re.findall(r'src="/?([^"]+\.js)"', page)
            assert got(f"{url}/{script}"), "the dashboard has no script"
            assert demo.wait(DEMO_SECONDS + START_LIMIT) == 0
        finally:
            demo.kill()
        said.seek(0)
        summary = said.read()
    print(summary)  # noqa: T201
    assert "the ledger adds up" in summary


def told_url(said: IO[str], demo: subprocess.Popen[bytes]) -> str:
    """The address that the demo prints once it serves."""
    until = time.monotonic() + START_LIMIT
    while time.monotonic() < until:
        assert demo.poll() is None, f"the demo has ended with {demo.returncode}"
        said.seek(0)
        if found := re.search(r"curl (http://\S+)/prices/latest/", said.read()):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"the demo does not serve within {START_LIMIT} s")


def got(url: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        return answer.read()


if __name__ == "__main__":
    check_files(Path(sys.argv[1]), Path(sys.argv[2]))
    check_demo(Path(sys.argv[3]))
