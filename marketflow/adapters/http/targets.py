"""Request targets."""

from __future__ import annotations

import re
from typing import Final

_ABSOLUTE_FORM: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")


def origin_form(path: str) -> str:
    """The path of a request target, which may be a path, an absolute URI, `*`, or empty."""
    if path.startswith("/"):
        return path
    return "/" + _ABSOLUTE_FORM.sub("", path, count=1).removeprefix("/")
