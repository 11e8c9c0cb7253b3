"""Masks secrets in all output and logs."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

MASK: Final = "***"

_SECRET_NAME: Final = re.compile(r"password|passwd|secret|token|scram_\w+_key", re.IGNORECASE)
# In `user:password@` everything between the first colon and the last at sign counts as the password. If a
# password was not percent-encoded, this hides too much rather than too little.
_USER_AND_PASSWORD: Final = re.compile(r"://([^:@]*):.*@", re.DOTALL)
# libpq's key=value: a value in single quotes, or up to the next blank; a backslash escapes.
_ASSIGNMENT: Final = re.compile(r"(\w+)(\s*=\s*)('(?:\\.|[^'\\])*'?|(?:\\.|[^\s\\])*)", re.DOTALL)


def is_secret(name: str) -> bool:
    """Whether the value of a parameter of this name must never be shown."""
    return _SECRET_NAME.search(name) is not None


def mask_connection(text: str) -> str:
    """A URL or a key=value connection string, with passwords masked. Masking twice changes nothing more."""
    if "://" not in text:
        return _ASSIGNMENT.sub(_mask_assignment, text)
    address, mark, query = _USER_AND_PASSWORD.sub(rf"://\1:{MASK}@", text).partition("?")
    return address + mark + "&".join(map(_mask_parameter, query.split("&")))


def mask_value(text: str) -> str:
    """A text of unknown form, with everything masked that may be a password."""
    _, at, host = text.rpartition("@")
    return mask_connection(f"{MASK}@{host}" if at else text)


def _mask_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return f"{name}={MASK}" if equals and is_secret(unquote_plus(name)) else parameter


def _mask_assignment(match: re.Match[str]) -> str:
    name, equals, value = match.groups()
    return f"{name}{equals}{MASK}" if value and is_secret(name) else match[0]
