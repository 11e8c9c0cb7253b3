"""The log: one line for each event in both forms, no secrets, and no failures."""

from __future__ import annotations

import io
import json
import logging
import re
import sys

import pytest
import structlog

from marketflow import logs

TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def _restored():
    """Restore what `configure` changes in the process."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """Returns True."""
        return True


def logged(level="info", style="json") -> io.StringIO:
    """The log from now on."""
    stream = io.StringIO()
    logs.configure(level, style, stream)
    return stream


def test_json_is_one_object_a_line():
    stream = logged()

    structlog.get_logger("m").info("went up", exchange="e", count=3, text="a\nb", odd={1, 2})
    structlog.get_logger("m").warning("went down")

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert re.fullmatch(TIMESTAMP, first.pop("timestamp"))
    assert first == {
        "event": "went up",
        "level": "info",
        "logger": "m",
        "exchange": "e",
        "count": 3,
        "text": "a\nb",
        "odd": "{1, 2}",
    }
    assert (second["event"], second["level"]) == ("went down", "warning")


def test_text_is_one_line_without_colours():
    stream = logged(style="text")

    structlog.get_logger("m").info("went up", exchange="e", text="a\nb")

    line = stream.getvalue()
    assert line.count("\n") == 1
    assert re.match(rf"{TIMESTAMP} \[info *\] went up +\[m\] exchange=e text='a\\nb'", line)


def test_colours_are_for_terminals(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    logs.configure("info", "text", terminal)
    structlog.get_logger().info("x")
    assert "\x1b[" in terminal.getvalue()

    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    logs.configure("info", "text", plain)
    structlog.get_logger().info("x")
    assert "\x1b[" not in plain.getvalue()


@pytest.mark.parametrize("level", logs.LEVELS)
def test_level(level):
    """Events below the level are not logged, neither ours nor those of libraries."""
    stream = logged(level)
    order = list(logs.LEVELS)

    for each in order:
        getattr(structlog.get_logger(), each)(f"ours {each}")
        getattr(logging.getLogger("library"), each)("theirs %s", each)

    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == [
        f"{whose} {each}" for each in order[order.index(level) :] for whose in ("ours", "theirs")
    ]


def test_libraries_log_in_the_same_form():
    stream = logged()
    structlog.contextvars.bind_contextvars(request_id="r1")

    logging.getLogger("hypercorn.error").warning("said %s", "this")

    line = json.loads(stream.getvalue())
    assert re.fullmatch(TIMESTAMP, line.pop("timestamp"))
    assert line == {"event": "said this", "level": "warning", "logger": "hypercorn.error", "request_id": "r1"}


def test_an_event_has_so_many_lines_a_minute(monkeypatch):
    """Others are not affected. The next line says how many were left out."""
    now = 1_000.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    stream = logged()
    library = logging.getLogger("library")

    def flood():
        for number in range(logs.LINES + 20):
            structlog.get_logger("m").info("flood", number=number)
            library.warning("line %d", number)
        structlog.get_logger("m").warning("other")

    flood()
    now += logs.LINES_SECONDS - 1
    flood()
    now += 1
    flood()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    floods = [line for line in lines if line["event"] == "flood"]
    assert [line["number"] for line in floods] == [*range(logs.LINES), *range(logs.LINES)]
    left_out = {
        place: line["lines_left_out"] for place, line in enumerate(floods) if "lines_left_out" in line
    }
    assert left_out == {logs.LINES: logs.LINES + 40}
    assert sum(line["logger"] == "library" for line in lines) == 2 * logs.LINES
    assert sum(line["event"] == "other" for line in lines) == 3


def test_the_level_of_debug_has_all_of_its_lines():
    stream = logged("debug")
    for number in range(logs.LINES + 20):
        structlog.get_logger("m").debug("flood", number=number)
    assert len(stream.getvalue().splitlines()) == logs.LINES + 20


def test_an_event_that_cannot_be_shown_does_not_fail():
    class Unshowable:
        def __str__(self):
            raise ValueError("no text")

    logged()
    logging.getLogger("library").warning(Unshowable())
    structlog.get_logger().warning(Unshowable())


def test_names_that_never_repeat_take_no_memory():
    """A library may put data into the message. Beyond so many names they have one limit together."""
    stream = logged()
    for number in range(5_000):
        logging.getLogger("library").warning(f"line {number}")  # noqa: G004 - that is the point
    assert len(stream.getvalue().splitlines()) == logs._MOST_EVENTS + logs.LINES
    (handler,) = logging.getLogger().handlers
    (flood,) = handler.filters
    assert len(flood._lines) <= logs._MOST_EVENTS + 1


def test_context_is_merged():
    stream = logged()

    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger().info("x")
    structlog.get_logger().info("y")

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["request_id"] == "r1"
    assert "request_id" not in second


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("password", "hunter2", "***"),
        ("http.token", "hunter2", "***"),
        ("token", None, None),
        ("url", "redis://:hunter2@h", "redis://:***@h"),
        ("redis.url", "redis://h:1/0", "redis://h:1/0"),
        ("redis_url", "redis://u:hunter2@h", "redis://u:***@h"),
        ("dsn", "host=h password='hunter2'", "host=h password=***"),
        ("POSTGRES_DSN", "postgresql://u:hunter2@h", "postgresql://u:***@h"),
    ],
)
def test_secrets_are_masked(key, value, shown):
    """This holds for our events and those of libraries."""
    stream = logged()

    structlog.get_logger().info("x", **{key: value})
    structlog.contextvars.bind_contextvars(**{key: value})
    logging.getLogger("library").info("y")

    assert [shown, shown] == [json.loads(line)[key] for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("style", logs.FORMATS)
def test_traceback_is_for_debug(style):
    """At other levels an exception is in the event's line."""
    for level, expected in (("info", False), ("debug", True)):
        stream = logged(level, style)
        try:
            {}["gone"]
        except KeyError as error:
            structlog.get_logger().exception("ours")
            structlog.get_logger().error("ours", exc_info=error)
            logging.getLogger("library").exception("theirs")

        assert stream.getvalue().count("KeyError") >= 3
        assert ("Traceback" in stream.getvalue()) == expected
        assert (stream.getvalue().count("\n") == 3) == (style == "json" or not expected)


class BrokenPipe(io.StringIO):
    """A stream whose reader has closed it."""

    def write(self, _text: str) -> int:
        """Fail."""
        raise BrokenPipeError


class Unprintable:
    """An object that cannot be formatted."""

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("style", logs.FORMATS)
def test_a_line_never_fails(style, capsys):
    """A closed stream, a broken pipe, no stream, or a value that cannot be formatted raises nothing."""
    closed = io.StringIO()
    closed.close()
    for stream in (closed, BrokenPipe()):
        logs.configure("debug", style, stream)
        structlog.get_logger().info("x")
        logging.getLogger("library").info("y")

    stream = logged(style=style)
    structlog.get_logger().info("x", value=Unprintable())
    structlog.get_logger().info("y")
    logging.getLogger("library").info("%d", "no number")

    assert "y" in stream.getvalue()
    assert capsys.readouterr() == ("", "")


def test_no_stderr_at_all(monkeypatch):
    """A daemon may have closed it."""
    monkeypatch.setattr(sys, "stderr", None)
    logs.configure("info", "text")

    structlog.get_logger().info("x")
    logging.getLogger("library").info("y")


def test_stderr_by_default(capsys):
    logs.configure("info", "json")

    structlog.get_logger().info("x")

    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["event"] == "x"
