"""One PostgreSQL connection. A thread uses it; another may give it up at any moment."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psycopg
import structlog

from marketflow.adapters.db.connecting import Connector
from marketflow.adapters.db.usage import Usage
from marketflow.adapters.db.verdicts import reason, usable
from marketflow.app.ports import RowsRefused, StoreAway, StoreTaken, StoreUnfit

log = structlog.get_logger()

T = TypeVar("T")

Prepare = Callable[[psycopg.Connection], object]


class Wire:
    """An open connection whose calls any thread can end."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        try:
            # A duplicate of the descriptor that only we close: libpq may close its own at any moment, and the
            # number could then belong to another file.
            self._plug = socket.socket(fileno=os.dup(connection.fileno()))
        except OSError:
            connection.close()
            raise

    def alive(self) -> bool:
        """Whether it still exists while idle, as far as the kernel knows. Does not wait."""
        if self.connection.closed:
            return False
        try:
            # A server may send a message before it closes, so read that before looking for the end.
            self.connection.pgconn.consume_input()
            self.connection.pgconn.consume_input()
        except psycopg.Error:
            return False
        return True

    def cut(self) -> None:
        """End the call of the thread that uses it. Does not wait."""
        with suppress(OSError):  # not connected any more, so there is nothing to end
            self._plug.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Free it. No thread may use it."""
        self.connection.close()
        self._plug.close()


class OneConnection:
    """A connection that is made by its first call.

    There is one call at a time. Another thread may give the connection up at any moment.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._mutex = threading.Lock()
        """Guards the two below."""
        self._usage = Usage.IDLE
        self._wire: Wire | None = None
        """None before it is connected."""
        self.prepared: Prepare | None = None
        """The `prepare` function that was run on the connection before its first call."""
        self.sound = False
        """Whether it may be used again although the last call failed."""

    def call(self, fn: Callable[[psycopg.Connection], T], prepare: Prepare | None, until: float) -> T:
        """Connect if necessary, and run `fn`. Called in a thread; `until` is a time of the monotonic clock.

        Raises:
            StoreAway, StoreTaken, StoreUnfit, RowsRefused: no other errors.
        """
        with self._mutex:
            self._usage = self._usage.begin()
        try:
            connection = self._connected(until)
            if prepare is not None and self.prepared is not prepare:
                prepare(connection)
                self.prepared = prepare
            return self._call(connection, fn)
        except (StoreAway, StoreTaken, StoreUnfit, RowsRefused):
            raise
        except Exception as error:
            log.debug("call to PostgreSQL failed", exc_info=error)
            raise StoreAway(reason(error, self._connector.password)) from error
        finally:
            with self._mutex:
                self._usage = self._usage.end()
                self._close_if_over()

    def _call(self, connection: psycopg.Connection, fn: Callable[[psycopg.Connection], T]) -> T:
        try:
            return fn(connection)
        except Exception:
            self.sound = usable(connection)
            raise

    def give_up(self) -> None:
        """Give up the connection, and end the call of a thread that uses it. Does not wait."""
        with self._mutex:
            self._usage = self._usage.give_up()
            if self._usage is Usage.ENDING and self._wire is not None:
                self._wire.cut()
            self._close_if_over()

    def alive(self) -> bool:
        """Whether an idle connection still exists, as far as the kernel knows. Does not wait."""
        wire = self._wire
        return wire is not None and wire.alive()

    def _connected(self, until: float) -> psycopg.Connection:
        if not self._usage.wanted:
            raise StoreAway("given up before the call began")
        if self._wire is None:
            connection = self._connector.connect(until, lambda: self._usage.wanted)
            with self._mutex:
                self._wire = Wire(connection)
                if not self._usage.wanted:
                    raise StoreAway("given up while connecting")
        return self._wire.connection

    def _close_if_over(self) -> None:
        if self._usage is Usage.OVER and self._wire is not None:
            self._wire.close()
            self._wire = None
