"""Asks for all symbols on one connection, within the limits, and takes the answers."""

from __future__ import annotations

import trio

from marketflow.adapters.exchange.venues.venue import Rejected, Subscribed
from marketflow.adapters.exchange.websocket.connection import Connection
from marketflow.adapters.exchange.websocket.requests import Requests
from marketflow.adapters.exchange.websocket.state import Progress
from marketflow.adapters.exchange.websocket.subscriptions import Subscriptions
from marketflow.adapters.exchange.websocket.verdicts import Verdicts


class Subscriber:
    """Does what its subscriptions call for, and reports what became of them."""

    def __init__(
        self, subscriptions: Subscriptions, requests: Requests, verdicts: Verdicts, progress: Progress
    ) -> None:
        self.subscriptions = subscriptions
        self._requests = requests
        self.verdicts = verdicts
        self.progress = progress
        self._answered = trio.Event()

    @property
    def is_well(self) -> bool:
        """Whether all symbols are decided, and some of them accepted."""
        return self.progress.state == "live" and self.subscriptions.has_accepted

    def accepted(self, answer: Subscribed) -> None:
        """The exchange accepts a request."""
        self.verdicts.take(self.subscriptions.accept(answer))
        self._answered.set()

    def rejected(self, answer: Rejected) -> None:
        """The exchange refuses a request."""
        outcome = self.subscriptions.reject(answer)
        if outcome is None:
            self.verdicts.notice(answer.reason)
        else:
            self.verdicts.take(outcome)
            self._answered.set()

    async def run(self, connection: Connection) -> None:
        """Ask until all is answered, and again if an answer wants that, until nothing can be sent any more.

        Raises:
            ConnectionError: the connection broke.
        """
        while True:
            if self.subscriptions.may_ask:
                if not await connection.send(lambda: self._requests.subscribe(self.subscriptions)):
                    return
                continue
            if self.subscriptions.are_decided:
                self.progress.go("decided")
            await self._until_answered()

    async def _until_answered(self) -> None:
        """Wait for an answer, or until it is too late for one."""
        with trio.move_on_at(self.subscriptions.overdue_at):
            await self._answered.wait()
        self._answered = trio.Event()
        self.verdicts.unanswered(self.subscriptions.give_up(trio.current_time()))
