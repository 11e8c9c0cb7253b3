"""The spool: JSON files in the state directory.

A file is an object with its `form`, 2, and its `bars`. In form 1, of version 0.1, it is the list of the bars.

Each save writes a file with a new name, and then removes the files that were read or written before. So a
file that could not be read is never overwritten or removed, and each start tries to read it again.

A name has the hash of the stores and that of the share's exchanges, so that no share reads or removes the
bars of another. The share of all exchanges has names without the second hash.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import msgspec
import structlog
import trio

from marketflow.app.ports import ALL, Scope
from marketflow.app.share.foreign_bars import is_foreign
from marketflow.app.share.spooling import SpooledBar, SpoolFailed
from marketflow.domain.bars import BAR_WIDTH
from marketflow.domain.periods import MINUTE

log = structlog.get_logger()

SPOOL_SECONDS: Final = 5.0
"""How long a start waits for the disk. A stop passes its own limit."""

FORM: Final = 2


class _File(msgspec.Struct):
    form: int
    bars: msgspec.Raw


_FILE: Final = msgspec.json.Decoder(_File)
_BARS: Final = msgspec.json.Decoder(list[SpooledBar])
LONGEST_INTERVAL: Final = MINUTE
"""The most that `aggregation.interval` may be. A file may have bars of another interval than today's."""
NAMED: Final = 10
"""How many files of a kind the log names at most: anybody may have filled the directory."""
_PROBE: Final = b"\n" * 4096
"""Written to test the directory: on a full disk an empty file can be made, but not written to."""


@attrs.frozen
class _Found:
    """The files in the directory."""

    bars: Sequence[SpooledBar]
    read: Sequence[Path]
    unreadable: Sequence[tuple[Path, Exception]]
    other_stores: Sequence[Path]
    """Spools of other stores."""
    other_exchanges: Sequence[Path]
    """Spools of the same stores, and of shares with other exchanges."""


class FileSpool:
    """Implements the port Spool. The name of a file identifies the stores and the share of its bars."""

    def __init__(
        self, directory: Path, stores: str, earlier: str | None = None, *, scope: Scope = ALL
    ) -> None:
        """A spool for these stores.

        Args:
            directory: made at the start, or when bars are saved.
            stores: identifies the stores. It may contain secrets: only its hash is used.
            earlier: the name that version 0.1 gave to the same stores, if it cannot mean other stores. A file
                of that name is read, too, by the share of all exchanges.
            scope: the exchanges of the share.
        """
        self._directory = directory
        self._of_stores = f"spool-{_hash(stores)}"
        self._prefix = f"{self._of_stores}.{_hash(scope.name)}" if scope.name else self._of_stores
        self._earlier = None if earlier is None or scope.name else f"spool-{_hash(earlier)}.json"
        self._known: set[Path] = set()
        """Files whose bars are in the book, so that they can be removed."""

    async def load(self) -> Sequence[SpooledBar]:
        """All saved bars that can be read; warns about unreadable files and an unwritable directory."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._try_to_write)
            found = await self._read()
        # Only now: after a cancellation the bars of these files are not in the book.
        self._known.update(found.read)
        return found.bars

    async def _read(self) -> _Found:
        try:
            with trio.fail_after(SPOOL_SECONDS):
                found = await trio.to_thread.run_sync(self._find, abandon_on_cancel=True)
        except trio.TooSlowError as error:
            found = _Found([], [], [(self._directory, error)], [], [])
        for path, failure in found.unreadable[:NAMED]:
            reason = _reason(failure, SPOOL_SECONDS)
            files = len(found.unreadable)
            log.warning("spool cannot be read", path=str(path), error=reason, kept=True, files=files)
        for event, paths in (
            ("spool of other stores found", found.other_stores),
            ("spool of other exchanges found", found.other_exchanges),
        ):
            if paths:
                shown = [str(path) for path in paths[:NAMED]]
                log.warning(event, paths=shown, files=len(paths), ours=f"{self._prefix}-*.json")
        return found

    async def _try_to_write(self) -> None:
        try:
            with trio.fail_after(SPOOL_SECONDS):
                await trio.to_thread.run_sync(self._probe, abandon_on_cancel=True)
        except (OSError, trio.TooSlowError) as error:
            log.warning(
                "spool cannot be written",
                path=str(self._directory),
                error=_reason(error, SPOOL_SECONDS),
            )

    async def save(self, bars: Sequence[SpooledBar], within: float = SPOOL_SECONDS) -> None:
        """Replace what was loaded and saved; see the port."""
        ends = trio.current_time() + within
        before, self._known = self._known, set()
        if bars:
            try:
                with trio.fail_at(ends):
                    save = partial(self._save, bars)
                    self._known = {await trio.to_thread.run_sync(save, abandon_on_cancel=True)}
            except (OSError, trio.TooSlowError) as error:
                self._known = before
                raise SpoolFailed(str(self._directory), _reason(error, within)) from error
        try:
            # The bars are saved, even if the old files cannot be removed.
            with trio.fail_at(ends):
                await trio.to_thread.run_sync(_remove, before, abandon_on_cancel=True)
        except trio.TooSlowError as error:
            paths = [str(path) for path in sorted(before)[:NAMED]]
            log.warning(
                "spool cannot be removed", paths=paths, files=len(before), error=_reason(error, within)
            )

    def _find(self) -> _Found:
        bars: list[SpooledBar] = []
        read: list[Path] = []
        other_stores: list[Path] = []
        other_exchanges: list[Path] = []
        unreadable: list[tuple[Path, Exception]] = []
        try:
            paths = sorted(self._directory.iterdir())
        except FileNotFoundError:
            paths = []
        except OSError as error:
            return _Found([], [], [(self._directory, error)], [], [])
        for path in paths:
            name = path.name
            if not (name.startswith("spool-") and name.endswith(".json")):
                continue
            if not (name.startswith(f"{self._prefix}-") or name == self._earlier):
                ours = name.startswith((f"{self._of_stores}-", f"{self._of_stores}."))
                (other_exchanges if ours else other_stores).append(path)
                continue
            try:
                bars += decode(path.read_bytes())
            except Exception as error:  # noqa: BLE001 - no content of a file may end the start
                unreadable.append((path, error))
            else:
                read.append(path)
        return _Found(bars, read, unreadable, other_stores, other_exchanges)

    def _probe(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        _write(self._directory / f"probe-{secrets.token_hex(4)}.tmp", _PROBE).unlink()

    def _save(self, bars: Sequence[SpooledBar]) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{self._prefix}-{secrets.token_hex(4)}.json"
        # Atomic: write a temporary file, sync it, then rename it.
        _write(path.with_suffix(".tmp"), encode(bars), on_disk=True).rename(path)
        with suppress(OSError):  # not all file systems support it
            _sync_directory(self._directory)
        return path


def encode(bars: Sequence[SpooledBar]) -> bytes:
    """The content of a file, or of a row in PostgreSQL."""
    return msgspec.json.encode(_File(FORM, msgspec.Raw(msgspec.json.encode(bars))))


def decode(content: bytes) -> Sequence[SpooledBar]:
    """The bars in a file of either form.

    Raises:
        ValueError: it has something else, or a bar that no boot can have made, or is of a later form.
    """
    listed: bytes | msgspec.Raw = content
    if not content.startswith(b"["):
        file = _FILE.decode(content)
        if file.form != FORM:
            raise ValueError(f"form {file.form}, which only a later version can read")
        listed = file.bars
    bars = _BARS.decode(listed)
    for each in bars:
        width = LONGEST_INTERVAL if each.whole else BAR_WIDTH
        if is_foreign(each.bar, each.start, width):
            raise ValueError(f"no boot can have made {each}")
    return bars


def _hash(stores: str) -> str:
    return hashlib.sha256(stores.encode()).hexdigest()[:16]


def _write(path: Path, content: bytes, *, on_disk: bool = False) -> Path:
    """Write a new file; leaves none if that fails."""
    try:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            if on_disk:
                os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
    return path


def _sync_directory(directory: Path) -> None:
    """Sync the directory, so that the renamed file survives a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(paths: Iterable[Path]) -> None:
    """Remove files whose bars are elsewhere. A file that remains does no harm: its bars count only once."""
    kept: list[tuple[Path, OSError]] = []
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            kept.append((path, error))
    for path, failure in kept[:NAMED]:
        log.warning("spool cannot be removed", path=str(path), error=_reason(failure), files=len(kept))


def _reason(error: Exception, limit: float = 0.0) -> str:
    if isinstance(error, trio.TooSlowError):
        return f"no answer within {limit:g} s"
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
