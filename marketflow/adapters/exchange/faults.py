"""The faults that a simulated exchange can have."""

from __future__ import annotations

from typing import Final

import attrs

from marketflow.adapters.exchange.lines import LINE_LIMIT

GARBAGE: Final = (
    b"hello",
    b"HTTP/1.1 400 Bad Request",
    b"\x00\x01\x02\xff\xfe",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b"}{",
    b'"BTCUSDT"',
    b'["BTCUSDT",1.5,1795343351549]',
    b'{"symbol":"BTCUSDT","price":100150.7549',
    b'"price":100150.7549,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":1.5}',
    b'{"symbol":"BTCUSDT","price":"1.5","timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":null,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":true,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":NaN,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":Infinity,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":1e400,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":0,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":-1.5,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":1e-400,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":1795343351549.0}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":"1795343351549"}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":17}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":99999999999999999999999999999999999999999}',
    b'{"symbol":null,"price":1.5,"timestamp":1795343351549}',
    b'{"symbol":"nothing","price":1.5,"timestamp":1795343351549}',
    b'{"symbol":"BTC\xff","price":1.5,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":1795343351549,"note":"\xc3"}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":1}{"symbol":"BTCUSDT","price":1.5,"timestamp":1}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":1,"note":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
    b"x" * (LINE_LIMIT + 2),
)
"""Lines that must be rejected, without their newlines."""


@attrs.frozen
class Faults:
    """The faults of a simulated exchange. Zero means that it does not have the fault.

    Garbage, silence and skew are in the one sequence that all clients get. Closed connections and writes that
    end within a line differ from connection to connection.
    """

    close_every: float = 0.0
    """Seconds after which each connection is closed."""
    garbage: float = 0.0
    """The fraction (0 to 1) of lines that are replaced by garbage; each of these must be rejected once."""
    silence: float = 0.0
    """Seconds of traffic and then of silence, in turn, beginning with traffic."""
    half_lines: float = 0.0
    """The fraction (0 to 1) of writes that end within a line. The next write begins with the rest."""
    skew: float = 0.0
    """Seconds that the exchange's clock is ahead of ours; may be negative."""


NO_FAULTS: Final = Faults()
