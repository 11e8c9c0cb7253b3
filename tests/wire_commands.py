"""Commands in the bytes that are sent to Redis."""

from __future__ import annotations

import hiredis


def commands_of(data):
    """Commands as the server parses them: arrays of bulk strings."""
    reader = hiredis.Reader()
    reader.feed(data)
    commands = []
    while (command := reader.gets()) is not False:
        commands.append(command)
    return commands
