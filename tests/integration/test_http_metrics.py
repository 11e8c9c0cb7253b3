"""/metrics with the fakes: its format, and the counts of requests themselves."""

from __future__ import annotations

import math
import re

import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from test_http_fakes import Questions, eventually, serving

from marketflow.app.interface import ClusterFigures
from marketflow.app.share.ledger import OVERFLOW, SHUTDOWN
from marketflow.domain.prices import REASONS

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


async def scraped(client, target="/metrics"):
    """The samples of an answer, by name and labels."""
    response = await client.get(target)
    assert response.status_code == 200
    families = parse_plain(await response.get_data(as_text=True))
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def of(samples, name, **labels):
    return samples[(name, *sorted(labels.items()))]


def named(samples, name):
    """The samples of a name, by their labels."""
    return {
        labels: value for (each, *rest), value in samples.items() if each == name for labels in [(*rest,)]
    }


async def test_numbers_of_a_cluster_have_their_place(questions):
    """They are there only on a node of a cluster."""
    names = {name for name, *_ in await scraped(questions.app().test_client())}
    questions.cluster = ClusterFigures(
        held={"exchange1": True},
        epochs={"exchange1": 4},
        takeovers={"expired": 2},
        fenced={"redis": 1, "postgres": 3},
        redirects={"moved": 7, "ask": 0},
        mirror_lag={"exchange1": 0.5},
        clock_offset=-0.25,
    )

    samples = await scraped(questions.app().test_client())

    assert of(samples, "marketflow_lease_held", exchange="exchange1") == 1
    assert of(samples, "marketflow_lease_epoch", exchange="exchange1") == 4
    assert of(samples, "marketflow_takeovers_total", reason="expired") == 2
    assert of(samples, "marketflow_fenced_total", store="redis") == 1
    assert of(samples, "marketflow_fenced_total", store="postgres") == 3
    assert of(samples, "marketflow_cluster_redirects_total", answer="moved") == 7
    assert of(samples, "marketflow_cluster_redirects_total", answer="ask") == 0
    assert of(samples, "marketflow_mirror_lag_seconds", exchange="exchange1") == 0.5
    assert of(samples, "marketflow_clock_offset_seconds") == -0.25
    assert of(samples, "marketflow_updates_dropped_total", exchange="exchange1", reason="fenced") == 0
    assert not names & {"marketflow_lease_held", "marketflow_clock_offset_seconds"}


async def test_every_number_has_its_place(client):
    """Names and labels are part of the public interface."""
    samples = await scraped(client)
    for name, value in {"received": 12, "accepted": 10, "cached": 6, "expired": 1}.items():
        assert of(samples, f"marketflow_updates_{name}_total", exchange="exchange1") == value
        assert of(samples, f"marketflow_updates_{name}_total", exchange="test1") == 0
    lost = "marketflow_updates_rejected_total"
    assert of(samples, lost, exchange="exchange1", reason="malformed") == 1
    assert of(samples, lost, exchange="exchange1", reason="late") == 1
    assert of(samples, "marketflow_updates_dropped_total", exchange="exchange1", reason="overflow") == 2
    assert of(samples, "marketflow_updates_pending", exchange="exchange1") == 1
    assert of(samples, "marketflow_updates_pending_limit", exchange="test1") == 200
    assert of(samples, "marketflow_feed_connected", exchange="exchange1") == 1
    assert of(samples, "marketflow_feed_connected", exchange="test1") == 0
    assert of(samples, "marketflow_feed_reconnects_total", exchange="exchange1") == 2
    assert of(samples, "marketflow_feed_bugs_total", exchange="exchange1") == 5
    assert of(samples, "marketflow_feed_bugs_total", exchange="test1") == 0
    assert of(samples, "marketflow_feed_last_update_age_seconds", exchange="exchange1") == 0.05
    assert of(samples, "marketflow_up", component="redis") == 1
    assert of(samples, "marketflow_up", component="postgres") == 0
    assert of(samples, "marketflow_aggregates_written_total") == 15
    assert of(samples, "marketflow_aggregates_pending") == 4
    assert of(samples, "marketflow_aggregates_refused") == 3
    assert of(samples, "marketflow_stream_clients") == 7
    assert of(samples, "marketflow_build_info", version="0.1.0") == 1
    assert of(samples, "marketflow_mode", mode="live") == 1
    assert of(samples, "marketflow_mode", mode="test") == 0
    assert of(samples, "marketflow_ready") == 1
    assert of(samples, "marketflow_update_latency_seconds_bucket", le="0.5") == 4
    assert of(samples, "marketflow_update_latency_seconds_bucket", le="+Inf") == 6
    assert of(samples, "marketflow_update_latency_seconds_count") == 6
    assert of(samples, "marketflow_update_latency_seconds_sum") == 2.75
    assert of(samples, "marketflow_flush_seconds_count") == 3
    for process in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"):
        assert of(samples, process) > 0
    assert named(samples, "python_info")


async def test_what_has_not_happened_is_there_too(client):
    """A series that begins with its first event would have no rate at that event."""
    samples = await scraped(client)
    for exchange in ("exchange1", "test1"):
        for reason in REASONS:
            assert of(samples, "marketflow_updates_rejected_total", exchange=exchange, reason=reason) >= 0
        for reason in (OVERFLOW, SHUTDOWN):
            assert of(samples, "marketflow_updates_dropped_total", exchange=exchange, reason=reason) >= 0


async def test_an_age_before_the_first_update_is_no_number(client):
    """0 would mean that an update has just arrived."""
    samples = await scraped(client)
    assert math.isnan(of(samples, "marketflow_feed_last_update_age_seconds", exchange="test1"))


async def test_an_exchange_has_one_status(client):
    samples = await scraped(client)
    statuses = named(samples, "marketflow_feed_status")
    assert len(statuses) == 2 * 4
    told = {labels for labels, value in statuses.items() if value == 1}
    assert told == {
        (("exchange", "exchange1"), ("status", "connected")),
        (("exchange", "test1"), ("status", "off")),
    }


async def test_it_answers_while_the_service_starts_and_stops(client, questions):
    questions.health.ready, questions.health.status = False, "unavailable"
    assert of(await scraped(client), "marketflow_ready") == 0


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        (None, PLAIN, parse_plain),
        ("*/*", PLAIN, parse_plain),
        ("text/html,application/json;q=0.9", PLAIN, parse_plain),
        ("text/plain;version=0.0.4", PLAIN, parse_plain),
        (PROMETHEUS_2, "application/openmetrics-text; version=1.0.0; charset=utf-8", parse_openmetrics),
        (PROMETHEUS_3, "application/openmetrics-text; version=1.0.0; charset=utf-8", parse_openmetrics),
        ("application/openmetrics-text", "application/openmetrics-text; version=", parse_openmetrics),
        # Formats of an unknown version.
        ("text/plain;version=x", PLAIN, parse_plain),
        ("text/plain;version=9.9.9", PLAIN, parse_plain),
        ("application/openmetrics-text;version=2.0.0", PLAIN, parse_plain),
        ("application/openmetrics-text;version=1.ä,text/plain", PLAIN, parse_plain),
        ("application/openmetrics-text;version=", PLAIN, parse_plain),
        (";;;,,=,version", PLAIN, parse_plain),
    ],
)
async def test_the_format_is_what_was_asked_for(client, accept, content_type, parse):
    """If none of ours was requested, it is one that every client reads."""
    response = await client.get("/metrics", headers={} if accept is None else {"Accept": accept})
    assert response.status_code == 200
    assert response.content_type.startswith(content_type)
    families = {family.name: family for family in parse(await response.get_data(as_text=True))}
    assert families["marketflow_updates_received"].type == "counter"
    assert families["marketflow_flush_seconds"].type == "histogram"
    assert all(family.documentation for family in families.values())


async def test_some_series_may_be_asked_for(client):
    samples = await scraped(client, "/metrics?name[]=marketflow_up&name[]=process_open_fds")
    assert {name for name, *_ in samples} == {"marketflow_up", "process_open_fds"}
    assert await scraped(client, "/metrics?name[]=nothing") == {}


async def test_other_parameters_are_a_mistake(client):
    response = await client.get("/metrics?name=marketflow_up")
    assert response.status_code == 400
    assert (await response.get_json(force=True))["allowed"] == ["name[]"]


# ---- the requests themselves ----


async def test_requests_are_counted_by_route(client):
    """Clients can invent paths and methods, but the series stay few."""
    for symbol in ("BTCUSDT", "NOSUCH", "ALSO"):
        await client.get(f"/prices/latest/{symbol}?exchange=exchange1")
    await client.get("/prices/latest/exchange1/BTCUSDT")
    await client.head("/symbols")
    for number in range(20):
        await client.get(f"/nowhere/{number}")
        await client.open("/symbols", method=f"METHOD{number}")
    samples = await scraped(client)
    assert named(samples, "http_requests_total") == {
        (("method", "GET"), ("route", "/prices/latest/{symbol}"), ("status", "200")): 1,
        (("method", "GET"), ("route", "/prices/latest/{symbol}"), ("status", "404")): 2,
        (("method", "GET"), ("route", "/prices/latest/{exchange}/{symbol}"), ("status", "200")): 1,
        (("method", "HEAD"), ("route", "/symbols"), ("status", "200")): 1,
        (("method", "GET"), ("route", "unmatched"), ("status", "404")): 20,
        (("method", "other"), ("route", "unmatched"), ("status", "405")): 20,
    }
    counts = named(samples, "http_request_duration_seconds_count")
    assert counts[("method", "GET"), ("route", "/prices/latest/{symbol}")] == 3
    assert sum(counts.values()) == 45
    assert of(await scraped(client), "http_requests_total", method="GET", route="/metrics", status="200") == 1


async def test_the_time_is_that_until_the_answer(client, questions, autojump_clock):
    questions.prices.hold = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.get, "/prices/latest/BTCUSDT")
        await trio.sleep(0.3)
        assert of(await scraped(client), "http_requests_in_flight") == 2
        questions.prices.hold.set()
    samples = await scraped(client)
    asked = {"method": "GET", "route": "/prices/latest/{symbol}"}
    assert of(samples, "http_requests_in_flight") == 1, "itself"
    assert of(samples, "http_request_duration_seconds_sum", **asked) == pytest.approx(0.3)
    assert of(samples, "http_request_duration_seconds_bucket", le="0.25", **asked) == 0
    assert of(samples, "http_request_duration_seconds_bucket", le="0.5", **asked) == 1


async def test_an_unexpected_error_is_counted(client, questions):
    questions.prices.error = RuntimeError("no")
    await client.get("/prices/latest")
    samples = await scraped(client)
    assert of(samples, "http_requests_total", method="GET", route="/prices/latest", status="500") == 1
    assert of(samples, "http_requests_in_flight") == 1


async def test_whoever_has_gone_is_in_flight_no_more(questions):
    """A request whose client has left gets no answer, and is not counted."""
    questions.prices.hold = trio.Event()
    async with serving(questions.app()) as server, await server.connect() as other:

        async def told(pattern):
            text = (await other.get("/metrics")).body.decode()
            return re.search(pattern, text, re.MULTILINE) is not None

        async with await server.connect() as client:
            await client.stream.send_all(b"GET /prices/latest HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: questions.prices.asked)
            assert await told(r"^http_requests_in_flight 2\.0$")
        with trio.fail_after(15):
            while not await told(r"^http_requests_in_flight 1\.0$"):  # noqa: ASYNC110 - it has to be asked
                await trio.sleep(0.01)
        assert not await told(r'route="/prices/latest",status')


async def test_two_applications_count_for_themselves(client):
    """Counters are not global."""
    other = Questions().app().test_client()
    await other.get("/symbols")
    assert named(await scraped(client), "http_requests_total") == {}
