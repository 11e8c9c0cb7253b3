"""/ and /assets: the built files of the dashboard."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
from quart import Blueprint, request
from quart.wrappers import Response
from quart_trio.wrappers import TrioResponse

from marketflow.adapters.http.problem import problem

BUNDLE: Final = Path(__file__).parent / "dashboard" / "dist"
"""Where `nox -s dashboard` puts the build, and where it is in the wheel."""

SECURITY: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The page may load its own files only, and no other page may show it in a frame."""

FOR_EVER: Final = "public, max-age=31536000, immutable"
"""Assets may be cached for ever: the name of each has a hash of its content."""

_STALE_AFTER: Final = re.compile(rb'(<meta name="stale-after" content=")\d+')

HOW_TO_BUILD: Final = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>marketflow: no dashboard yet</title>
<main>
<h1>The dashboard is not built</h1>
<p>marketflow runs, and its API answers: see <a href="/docs">/docs</a> and <a href="/health">/health</a>.</p>
<p>The dashboard belongs to the released package. In a clone it is built once, in the clone's directory:</p>
<pre><code>pip install nox
nox -s dashboard</code></pre>
<p>Then install marketflow again, unless it runs in the clone itself, and restart it.</p>
</main>
</html>
"""


@attrs.frozen
class File:
    """A file of the bundle."""

    content: bytes
    content_type: str
    etag: str


def asset_names(bundle: Path = BUNDLE) -> Sequence[str]:
    """The names of the dashboard's files, except for the page itself; none if it was not built."""
    return sorted(_read_all(bundle / "assets"))


def page_routes(*, stale_after: int, bundle: Path = BUNDLE) -> Blueprint:
    """The routes of the page, which gets `stale_after` (ms).

    Its files are read here, once, so that a request never becomes a file path.
    """
    routes = Blueprint("pages", __name__)
    page = _read(bundle / "index.html")
    if page is not None:
        page = _file("index.html", _STALE_AFTER.sub(rb"\g<1>%d" % stale_after, page.content))
    assets = _read_all(bundle / "assets")

    @routes.get("/")
    async def index() -> Response:
        if page is None:
            return _respond(_file("missing.html", HOW_TO_BUILD), "no-store")
        response = _respond(page, "no-cache")
        return await response.make_conditional(request)

    @routes.get("/assets/<name>")
    async def asset(name: str) -> Response:
        found = assets.get(name)
        if found is None:
            return problem("not-found", "the dashboard has no such file")
        response = _respond(found, FOR_EVER)
        return await response.make_conditional(request)

    return routes


def _read_all(directory: Path) -> Mapping[str, File]:
    """The files of a directory by name; none if it does not exist."""
    if not directory.is_dir():
        return {}
    files = {path.name: _read(path) for path in directory.iterdir() if path.is_file()}
    return {name: file for name, file in files.items() if file is not None}


def _read(path: Path) -> File | None:
    try:
        return _file(path.name, path.read_bytes())
    except FileNotFoundError:
        return None


def _file(name: str, content: bytes) -> File:
    guessed, _ = mimetypes.guess_type(name)
    # Fixed, since the system's tables may differ, and a browser runs no script of another type.
    kind = {".js": "text/javascript", ".css": "text/css"}.get(Path(name).suffix, guessed)
    kind = kind or "application/octet-stream"
    text = kind.startswith("text/")
    return File(content, f"{kind}; charset=utf-8" if text else kind, hashlib.sha256(content).hexdigest()[:32])


def _respond(file: File, cache: str) -> Response:
    response = TrioResponse(file.content, content_type=file.content_type)
    response.headers.update(SECURITY)
    response.headers["Cache-Control"] = cache
    response.set_etag(file.etag)
    return response
