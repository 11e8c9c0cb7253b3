"""What keeps a client from its answer. Every message is for people: what happened, and what to do."""

from __future__ import annotations


class ClientError(Exception):
    """There is no answer, or none that helps."""


class Unreachable(ClientError):
    """Nobody answered, or not to the end. Another time somebody may."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"no marketflow answers at {url} ({reason}): "
            "start one with 'marketflow serve', or say where it is with --url"
        )
        self.reason = reason
        """In few words."""


class Refused(ClientError):
    """The answer is an error."""

    def __init__(self, status: int, message: str, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        """As it came, if it is a problem (RFC 9457); else nothing."""

    @property
    def passing(self) -> bool:
        """Whether it may be otherwise a little later."""
        return self.status >= 500 or self.status == 429  # noqa: PLR2004


class NotUnderstood(ClientError):
    """What answers is no marketflow, or one of another kind."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"what answers at {url} is no marketflow, or another version of it ({reason})")
