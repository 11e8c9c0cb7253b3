"""What can go wrong with Redis becomes StoreAway, with a reason that repeats no secret."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs
import trio

from marketflow.adapters.cache.resp import ErrorReply
from marketflow.app.ports import StoreAway


@attrs.frozen
class Failures:
    """Translates errors."""

    secrets: Sequence[str]
    """What no reason may repeat."""

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise StoreAway for any error that is raised within."""
        try:
            yield
        except Exception as error:
            away = self.away(error)
            if away is error:
                raise
            raise away from error

    def away(self, error: Exception) -> StoreAway:
        """What to raise for an error.

        Code that gets another kind of answer than it expects fails with errors of any kind.
        """
        match error:
            case StoreAway():
                return error
            case trio.TooSlowError():
                return StoreAway("no answer in time")
            case trio.BrokenResourceError() | trio.ClosedResourceError():
                return StoreAway(self.reason(error.__cause__ or error))
            case ErrorReply() | OSError():
                return StoreAway(self.reason(error))
            case _:
                return StoreAway(f"unexpected answer ({type(error).__name__}: {self.reason(error)})")

    def reason(self, error: BaseException) -> str:
        """What an error says, without secrets."""
        # An error about an unknown command repeats its arguments; those of AUTH are the password.
        text, _, _ = str(error).partition(", with args beginning with")
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text or type(error).__name__
