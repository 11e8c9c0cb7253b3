"""The dashboard's page and files, with bundles that the tests make, and without one."""

from __future__ import annotations

import pytest
from quart_trio import QuartTrio
from test_http_fakes import Questions, serving

from marketflow.adapters.http.pages import page_routes
from marketflow.adapters.http.problem import register_problems

PAGE = b'<!doctype html><meta name="stale-after" content="%d" /><title>the page</title>'
SCRIPT = b"console.log('here')"


@pytest.fixture
def bundle(tmp_path):
    directory = tmp_path / "dist"
    (directory / "assets").mkdir(parents=True)
    (directory / "index.html").write_bytes(PAGE % 5_000)
    (directory / "assets" / "index-abc123.js").write_bytes(SCRIPT)
    (directory / "assets" / "icon-abc123.svg").write_bytes(b"<svg/>")
    (directory / "licenses.md").write_bytes(b"not for asking")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    return directory


def app_of(bundle):
    app = QuartTrio("pages", static_folder=None)
    register_problems(app)
    app.register_blueprint(page_routes(stale_after=3_500, bundle=bundle))
    return app


@pytest.fixture
def client(bundle):
    return app_of(bundle).test_client()


async def test_the_page(client):
    response = await client.get("/")
    assert response.status_code == 200
    assert response.content_type == "text/html; charset=utf-8"
    assert await response.get_data(as_text=False) == PAGE % 3_500


async def test_the_page_may_be_asked_for_with_a_view(client):
    response = await client.get("/?symbol=BTCUSDT&interval=1m")
    assert response.status_code == 200


async def test_the_page_is_asked_for_again_each_time_and_sent_once(client):
    first = await client.get("/")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await client.get("/", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert await again.get_data(as_text=False) == b""
    other = await client.get("/", headers={"If-None-Match": '"another"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("name", "content_type"),
    [("index-abc123.js", "text/javascript; charset=utf-8"), ("icon-abc123.svg", "image/svg+xml")],
)
async def test_an_asset_is_kept_for_ever(client, name, content_type):
    response = await client.get(f"/assets/{name}")
    assert response.status_code == 200
    assert response.content_type == content_type
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("path", ["/", "/assets/index-abc123.js"])
async def test_nothing_foreign_may_run_in_it(client, path):
    headers = (await client.get(path)).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'"}
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/assets/index-abc123.js"])
async def test_head_says_what_get_says(client, path):
    got, head = await client.get(path), await client.head(path)
    assert head.status_code == 200
    for name in ("Content-Type", "Content-Length", "Cache-Control", "ETag"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/assets/index-abc123.js"])
async def test_nothing_else_may_be_done_to_it(client, path, method):
    response = await client.open(path, method=method)
    assert response.status_code == 405
    assert response.content_type == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "/assets/",
        "/assets/nothing.js",
        "/assets/..",
        "/assets/../index.html",
        "/assets/../licenses.md",
        "/assets/%2e%2e/licenses.md",
        "/assets/%2e%2e%2flicenses.md",
        "/assets/..%2f..%2fsecret.txt",
        "/assets/..%5c..%5csecret.txt",
        "/assets/%252e%252e%252flicenses.md",
        "/assets/./index-abc123.js",
        "/assets/index-abc123.js/",
        "/assets/index-abc123.js%00",
        "/assets/%ef%bc%8e%ef%bc%8e/licenses.md",
        "/licenses.md",
        "/index.html",
    ],
)
async def test_no_other_file_can_be_had(bundle, path):
    """Over a real port, since test clients and browsers normalise such paths before they send them."""
    async with serving(app_of(bundle)) as running, await running.connect() as client:
        answer = await client.get(path)
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_without_a_bundle_the_page_says_how_to_build_it(tmp_path):
    client = app_of(tmp_path / "dist").test_client()
    response = await client.get("/")
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert "Content-Security-Policy" in response.headers
    text = await response.get_data(as_text=True)
    assert "nox -s dashboard" in text
    assert (await client.get("/assets/index-abc123.js")).status_code == 404


async def test_the_application_has_the_page():
    response = await Questions().app().test_client().get("/")
    assert response.status_code == 200
    assert "marketflow" in await response.get_data(as_text=True)
    assert "X-Request-Id" in response.headers
