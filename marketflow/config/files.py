"""Files with settings: secrets that are mounted as files, and directories that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs

from marketflow.config.secrets import mask_value

MOST: Final = 64 * 1024
"""The most bytes of a secret; a larger file is not a secret."""


@attrs.frozen
class SecretFile:
    """A file that contains only a secret."""

    name: str

    def read(self, cwd: Path) -> str:
        """The secret, without the line end that editors add.

        Raises:
            ValueError: there is none. The message gives the reason and the file's name, which is masked: it
                may be the secret itself, given by mistake.
        """
        shown = mask_value(self.name)
        try:
            with (cwd / self.name).open("rb") as file:
                content = file.read(MOST + 1)
            secret = content.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise ValueError(f"{shown} is not UTF-8") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ValueError(f"{shown} cannot be read: {reason.lower()}") from None
        if len(content) > MOST:
            raise ValueError(f"{shown} is longer than {MOST} bytes")
        if not secret:
            # Surely a mistake: the service would run without the secret.
            raise ValueError(f"{shown} is empty")
        return secret


def is_out_of_reach(path: Path) -> bool:
    """Whether we cannot enter the directory of a file. Such a file is not meant for us."""
    effective = os.access in os.supports_effective_ids
    return not os.access(path.parent, os.X_OK, effective_ids=effective)
