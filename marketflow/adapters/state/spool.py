"""The spool: one JSON file in the state directory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog
import trio

from marketflow.app.spooling import SpooledBar

log = structlog.get_logger()
T = TypeVar("T")

SPOOL_SECONDS: Final = 5.0
"""A disk that takes longer is given up on: the stop must not wait for it."""

_BARS: Final = msgspec.json.Decoder(list[SpooledBar])


class FileSpool:
    """Fills the port Spool. The file's name tells the stores apart that its bars belong to."""

    def __init__(self, directory: Path, stores: str) -> None:
        """A spool for these stores.

        Args:
            directory: made when something is saved.
            stores: names the stores, with or without secrets: only its hash is used.
        """
        name = hashlib.sha256(stores.encode()).hexdigest()[:16]
        self._path = directory / f"spool-{name}.json"

    async def load(self) -> Sequence[SpooledBar]:
        """What was saved last."""
        try:
            return await self._in_thread(self._load)
        except FileNotFoundError:
            return []
        except Exception as error:  # noqa: BLE001 - whatever is in that file, the start goes on
            log.warning("spool cannot be read", path=str(self._path), error=repr(error))
            return []

    async def save(self, bars: Sequence[SpooledBar]) -> None:
        """Replace what was saved."""
        try:
            await self._in_thread(lambda: self._save(bars))
        except (OSError, trio.TooSlowError) as error:
            log.warning("bars cannot be spooled", path=str(self._path), bars=len(bars), error=repr(error))

    def _load(self) -> list[SpooledBar]:
        return _BARS.decode(self._path.read_bytes())

    def _save(self, bars: Sequence[SpooledBar]) -> None:
        if not bars:
            self._path.unlink(missing_ok=True)
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: written beside, on disk, then renamed.
        beside = self._path.with_suffix(".tmp")
        with beside.open("wb") as file:
            file.write(msgspec.json.encode(bars))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)

    @staticmethod
    async def _in_thread(call: Callable[[], T]) -> T:
        with trio.fail_after(SPOOL_SECONDS):
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True)
