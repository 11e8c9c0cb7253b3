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
        """Raise StoreAway for any error that is raised within.

        Also for errors of ours: an answer of the wrong kind makes the code fail that expects another one.
        """
        try:
            yield
        except StoreAway:
            raise
        except trio.TooSlowError as error:
            raise StoreAway("no answer in time") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StoreAway(self.reason(error.__cause__ or error)) from error
        except (ErrorReply, OSError) as error:
            raise StoreAway(self.reason(error)) from error
        except Exception as error:
            reason = f"unexpected answer ({type(error).__name__}: {self.reason(error)})"
            raise StoreAway(reason) from error

    def reason(self, error: BaseException) -> str:
        """What an error says, without secrets."""
        # An error about an unknown command repeats its arguments; those of AUTH are the password.
        text, _, _ = str(error).partition(", with args beginning with")
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text or type(error).__name__
