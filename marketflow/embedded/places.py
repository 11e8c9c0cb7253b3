"""The private directories for a server's data and sockets.

A server listens only on a Unix socket. The directory of the socket has the mode 0700, so only its account can
connect. No password is needed, and nothing listens on the network.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import tempfile
from pathlib import Path
from typing import Final

import attrs

from marketflow.embedded import account
from marketflow.embedded.errors import EmbeddedError

SOCKET_PATH_LIMIT: Final = 103
"""The most bytes in a socket's path: Linux allows 107, macOS 103."""


@attrs.frozen
class Places:
    """The directories of one server."""

    home: Path
    """The parent of the two others. All accounts can enter it, but only we can write to it."""
    data: Path
    """The server's data. Private to its account, once it is made."""
    sockets: Path
    """The server's sockets. Private to its account, once it is made."""


def places_in(directory: Path, name: str, socket: str, user: pwd.struct_passwd | None) -> Places:
    """Choose the places of a server.

    Args:
        directory: the caller's choice for the data. If the user cannot enter it, a directory below
            `account.SHARED` is used instead.
        name: the name of the server.
        socket: the longest file name that the server uses in the directory of its sockets.
        user: the account that it runs under; None means our own.
    """
    home = directory
    if user is not None and not account.can_enter(user, directory):
        home = account.shared_directory() / _fingerprint(directory)
        home.mkdir(exist_ok=True)
        home.chmod(0o755)
    return Places(home, home / name, _sockets_in(home, socket, user))


def _sockets_in(home: Path, socket: str, user: pwd.struct_passwd | None) -> Path:
    """`run` in the home, or a short path made from its name if a socket's path would be too long."""
    number = os.geteuid() if user is None else user.pw_uid
    short = f"marketflow-{number}-{_fingerprint(home)}"
    temporary = [Path(tempfile.gettempdir()).resolve(), Path("/tmp").resolve()]  # noqa: S108 - private below it
    reached = [place / short for place in temporary if user is None or account.can_enter(user, place)]
    for candidate in (home / "run", *reached):
        # PostgreSQL's clients read a comma as the end of a host.
        if len(os.fsencode(candidate / socket)) <= SOCKET_PATH_LIMIT and "," not in str(candidate):
            return candidate
    raise EmbeddedError(
        f"the path of a socket may have {SOCKET_PATH_LIMIT} bytes and no comma, which is impossible below "
        f"{home} and {tempfile.gettempdir()}: choose another directory"
    )


def _fingerprint(directory: Path) -> str:
    return hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
