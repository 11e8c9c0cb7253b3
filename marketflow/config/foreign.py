"""Recognises variables that begin with `MARKETFLOW_` but are set by Kubernetes.

For each service in a namespace, such as one named `marketflow` or `marketflow-something`, Kubernetes sets
variables with its address ("service links"). They are recognised by the form of their names and values, so
that a misspelt variable of ours is still an error.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

_PROTOCOLS: Final = ("tcp", "udp", "sctp")
_SERVICE: Final = r"MARKETFLOW(?:_[A-Z0-9_]*[A-Z0-9])?"
_PORT_OF: Final = rf"{_SERVICE}_PORT_[0-9]{{1,5}}_(?:{'|'.join(_PROTOCOLS).upper()})"


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes could have set this variable."""
    return any(shape.fullmatch(name) and is_of(value) for shape, is_of in _SHAPES)


def _is_url(value: str) -> bool:
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        return False
    rebuilt = f"{url.scheme}://{url.netloc}"
    return (
        url.scheme in _PROTOCOLS and port is not None and _is_address(url.hostname or "") and rebuilt == value
    )


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_port(value: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", value) is not None


_SHAPES: Final[tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...]] = tuple(
    (re.compile(name), is_of)
    for name, is_of in (
        (rf"{_SERVICE}_SERVICE_HOST", _is_address),
        (rf"{_SERVICE}_SERVICE_PORT(?:_[A-Z0-9_]+)?", _is_port),
        (rf"{_SERVICE}_PORT", _is_url),
        (_PORT_OF, _is_url),
        (rf"{_PORT_OF}_PROTO", _PROTOCOLS.__contains__),
        (rf"{_PORT_OF}_PORT", _is_port),
        (rf"{_PORT_OF}_ADDR", _is_address),
    )
)
