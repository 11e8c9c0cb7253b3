"""The bench's child processes: parts that must not share its interpreter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from typing import Any

from marketflow.embedded.processes import child_arguments

ROOT = Path(__file__).parents[2]


@contextmanager
def child(*arguments: object, **popen: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m` with these arguments, from the top of the tree; it is killed at the end of the block.

    It ends with us in any case, but not by a Ctrl-C that is meant for us.
    """
    command = [sys.executable, "-m", *map(str, arguments)]
    with subprocess.Popen(command, **(child_arguments(SIGKILL) | {"cwd": ROOT} | popen)) as process:
        try:
            yield process
        finally:
            process.kill()
