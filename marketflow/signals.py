"""The signals that end a command in an orderly way."""

from __future__ import annotations

import signal
from typing import Final

ALWAYS: Final = (signal.SIGINT, signal.SIGTERM)


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGINT and SIGTERM, and SIGHUP (a closed terminal) unless it is ignored, as it is under `nohup`."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return ALWAYS if ignored else (*ALWAYS, signal.SIGHUP)
