"""The connections for questions.

A server may allow fewer connections than there are sessions, because of a limit of the role, the database or
a pooler. Then questions wait for a connection that works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import psycopg
import trio

from marketflow.adapters.db.session import Session
from marketflow.adapters.db.verdicts import time_limit
from marketflow.app.ports import StoreAway

T = TypeVar("T")

FEWER_SECONDS: Final = 15.0
"""How long to use only the existing connections after the server has refused another one."""
_CONNECT_SHARE: Final = 0.5
"""The share of the time limit for a further connection; the rest is for waiting for an existing one."""


class Readers:
    """A few sessions. Each question uses one exclusively."""

    def __init__(self, sessions: list[Session], timeout: float) -> None:
        """`timeout` of a call in seconds."""
        self._sessions = sessions
        self._idle = [*sessions]
        self._timeout = timeout
        self._returned = trio.Event()
        self._fewer_until = 0.0
        self._connecting: dict[trio.CancelScope, float] = {}
        """For each question that waits for a new connection: when it gives up if another connection works."""
        self._outdated: set[Session] = set()
        """Sessions in use whose connection is dropped once the question has been answered."""

    @property
    def threads(self) -> int:
        """The number of threads in use, including abandoned ones."""
        return sum(session.threads for session in self._sessions)

    async def run(self, fn: Callable[[psycopg.Connection], T]) -> T:
        """Run `fn` with a connection, see `Session.run`."""
        with time_limit(self._timeout):
            while True:
                session = await self._take()
                connected = session.connected
                with trio.CancelScope() as scope:
                    if not connected:
                        self._connecting[scope] = trio.current_time() + self._timeout * _CONNECT_SHARE
                    try:
                        return await session.run(fn)
                    except StoreAway:
                        if connected or session.connected or not self._others:
                            raise
                    finally:
                        self._connecting.pop(scope, None)
                        self._give_back(session)
                # It could not connect, but other connections may work: the server may allow no more of them.
                self._fewer_until = trio.current_time() + FEWER_SECONDS

    def spare(self) -> Iterator[Session]:
        """The sessions that have a connection and are idle."""
        return (session for session in self._idle if session.connected)

    def renew(self) -> None:
        """Use only new connections for later questions."""
        for session in self._idle:
            session.close()
        self._outdated = set(self._sessions).difference(self._idle)

    def close(self) -> None:
        """Drop all connections."""
        for session in self._sessions:
            session.close()

    @property
    def _others(self) -> bool:
        """Whether another session than the caller's is connected, or in use and so perhaps connected."""
        in_use = len(self._sessions) - len(self._idle)
        return in_use > 1 or any(self.spare())

    async def _take(self) -> Session:
        while True:
            # Prefer the connected session that was used last.
            session = next((each for each in reversed(self._idle) if each.connected), None)
            if session is None and self._idle:
                all_idle = len(self._idle) == len(self._sessions)
                if all_idle or trio.current_time() >= self._fewer_until:
                    session = self._idle[-1]
            if session is not None:
                self._idle.remove(session)
                return session
            await self._returned.wait()

    def _give_back(self, session: Session) -> None:
        if session in self._outdated:
            self._outdated.remove(session)
            session.close()
        self._idle.append(session)
        if session.connected:
            for scope, limit in self._connecting.items():
                scope.deadline = limit
        self._returned.set()
        self._returned = trio.Event()
