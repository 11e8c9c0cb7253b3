"""The spool of a term in PostgreSQL, where the next owner of the exchange finds it.

It is written only while the term has the lease. So the next term, which begins after it, reads all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import psycopg
import structlog
import trio

from marketflow.adapters.db import statements
from marketflow.adapters.db.database import Database
from marketflow.app.ports import StoreAway, StoreTaken, StoreUnfit, Term
from marketflow.app.share.spooling import SpooledBar, SpoolFailed

log = structlog.get_logger()

PLACE: Final = "postgres"
LOAD_SECONDS: Final = 5.0
"""How long a start waits for it."""


class TermSpool:
    """Fills the port Spool for one term."""

    def __init__(
        self,
        database: Database,
        term: Term,
        *,
        encode: Callable[[Sequence[SpooledBar]], bytes],
        decode: Callable[[bytes], Sequence[SpooledBar]],
    ) -> None:
        """`encode` and `decode` are those of the files; `decode` raises a ValueError for anything else."""
        self._database = database
        self._term = term
        self._encode = encode
        self._decode = decode
        self._known: list[int] = []
        """The rows whose bars are in the book, so that they can be removed."""

    async def load(self) -> Sequence[SpooledBar]:
        """What earlier terms have left; see the port."""
        try:
            with trio.fail_after(LOAD_SECONDS):
                found = await self._database.writing.run_locked(
                    lambda connection: connection.execute(statements.SPOOLED, self._held).fetchall()
                )
        except (StoreAway, StoreTaken, StoreUnfit, trio.TooSlowError) as error:
            log.warning("spool cannot be read", path=PLACE, error=str(error) or "no answer", kept=True)
            return []
        bars: list[SpooledBar] = []
        for number, content in found:
            try:
                bars += self._decode(content.encode())
            except ValueError as error:
                place = f"{PLACE}, row {number}"
                log.warning("spool cannot be read", path=place, error=str(error), kept=True)
            else:
                self._known.append(number)
        return bars

    async def save(self, bars: Sequence[SpooledBar], within: float = LOAD_SECONDS) -> None:
        """Replace what was loaded and saved; see the port.

        Raises:
            SpoolFailed: also if the term is over, so that the next one may have read the spool already.
        """
        content = self._encode(bars).decode() if bars else None
        parameters = self._held | {"ids": self._known, "bars": content}

        def save(connection: psycopg.Connection) -> tuple[bool, int | None]:
            return connection.execute(statements.SPOOL_HELD, parameters).fetchone() or (False, None)

        try:
            with trio.fail_after(within):
                held, number = await self._database.writing.run_locked(save)
        except (StoreAway, StoreTaken, StoreUnfit) as error:
            raise SpoolFailed(PLACE, str(error)) from error
        except trio.TooSlowError as error:
            raise SpoolFailed(PLACE, f"no answer within {within:g} s") from error
        if not held:
            raise SpoolFailed(PLACE, f"term {self._term.epoch} of {self._term.exchange} is over")
        self._known = [] if number is None else [number]

    @property
    def _held(self) -> dict[str, object]:
        """The parameters of a statement that checks the lease."""
        return {
            "held_exchange": self._term.exchange,
            "held_epoch": self._term.epoch,
            "held_term": self._term.id,
        }
