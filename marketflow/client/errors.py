"""The errors of the client. Each message is for people: what happened, and what to do."""

from __future__ import annotations


class ClientError(Exception):
    """There is no answer, or not a usable one."""


class Unreachable(ClientError):
    """There was no answer, or an incomplete one. Another attempt may succeed."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"no marketflow answers at {url} ({reason}): "
            "start one with 'marketflow serve', or say where it is with --url"
        )
        self.reason = reason
        """A short text."""


class Refused(ClientError):
    """The answer is an error."""

    def __init__(self, status: int, message: str, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        """The received problem (RFC 9457); empty if the answer is not one."""

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.status >= 500 or self.status == 429  # noqa: PLR2004


class NotUnderstood(ClientError):
    """The server is not marketflow, or an incompatible version."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"the server at {url} is not marketflow, or another version of it ({reason})")
