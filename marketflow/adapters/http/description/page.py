"""The page that shows the description: Swagger UI, from a dependency, and three files of ours."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

import attrs
import trio

# The page may load files of this service only. Swagger UI has its icons in `data:` URLs.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_OURS: Final = files(__package__) / "static"
_SWAGGER_UI: Final = files("flask_swagger_ui") / "dist"


@attrs.frozen
class PageFile:
    """A file of the page."""

    place: Traversable
    media: str

    async def read(self) -> bytes:
        """Read the whole file."""
        return await trio.to_thread.run_sync(self.place.read_bytes)


INDEX: Final = PageFile(_OURS / "index.html", "text/html")
FILES: Final[Mapping[str, PageFile]] = {
    "page.css": PageFile(_OURS / "page.css", "text/css"),
    "page.js": PageFile(_OURS / "page.js", "text/javascript"),
    "swagger-ui.css": PageFile(_SWAGGER_UI / "swagger-ui.css", "text/css"),
    "swagger-ui.js": PageFile(_SWAGGER_UI / "swagger-ui-bundle.js", "text/javascript"),
}
"""The files of the page, by their name under `/docs/`."""
