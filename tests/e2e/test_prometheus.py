"""The files of deploy/ for Prometheus and Grafana, with the real programs and a running service."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
from asking import Client, eventually
from exchange_server import ExchangeServer
from serving import Service, running
from traffic import NAMES, lines, now, tick

from marketflow.config import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "alerts.yml"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool to ask")
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="there is no prometheus to scrape with"
)


def promtool(*arguments: object, text: str | None = None) -> str:
    """The output of promtool, which must report no fault."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def alert_names() -> list[str]:
    return re.findall(r"^\s*- alert: (\w+)$", ALERTS.read_text(), re.MULTILINE)


# ---- the files alone ----


@needs_promtool
def test_the_configuration_and_the_rules_are_valid() -> None:
    assert f"{len(alert_names())} rules found" in promtool("check", "config", DEPLOY / "prometheus.yml")


@needs_promtool
def test_each_alert_fires_where_it_is_meant_to() -> None:
    promtool("test", "rules", DEPLOY / "alerts_test.yml")


def test_each_alert_has_a_case() -> None:
    cases = (DEPLOY / "alerts_test.yml").read_text()
    assert alert_names()
    assert [name for name in alert_names() if f'alertname="{name}"' not in cases] == []


def test_each_alert_says_what_it_means_and_what_to_do() -> None:
    for alert in ALERTS.read_text().split("- alert: ")[1:]:
        for key in ("severity", "summary", "description", "action"):
            assert f"  {key}: " in alert, (alert.splitlines()[0], key)


# ---- the dashboard ----


def dashboards() -> Iterator[dict[str, Any]]:
    for path in DASHBOARDS:
        yield json.loads(path.read_text())


def expressions() -> dict[str, str]:
    """All queries of the dashboards' panels and annotations, with variables filled in."""
    found: dict[str, str] = {}
    for dashboard in dashboards():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                found[f"{panel['title']} {target['refId']}"] = target["expr"]
        for annotation in dashboard["annotations"]["list"]:
            if "expr" in annotation:
                found[annotation["name"]] = annotation["expr"]
    values = {"$__rate_interval": "10s", "$job": "marketflow", "$instance": ".*", "$exchange": ".*"}
    for name, value in values.items():
        found = {panel: expression.replace(name, value) for panel, expression in found.items()}
    assert not any("$" in expression for expression in found.values())
    return found


def test_panels_have_their_place_and_their_question() -> None:
    """Each panel has an id, a title and a selectable source, and none overlaps another."""
    assert DASHBOARDS
    for dashboard in dashboards():
        names = {variable["name"] for variable in dashboard["templating"]["list"]}
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len(set(ids))
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert max(x for x, _ in cells) < 24
            assert not cells & taken, panel["title"]
            taken |= cells
            assert panel["title"]
            if panel["type"] != "row":
                assert panel["targets"]
                assert panel["datasource"]["uid"] == "${datasource}"
                used = set(re.findall(r"\$(\w+)", json.dumps(panel["targets"]))) - {"__rate_interval"}
                assert used <= names, panel["title"]


# ---- with a running service ----


@pytest.fixture
async def service(
    settings: Settings, exchanges: dict[str, ExchangeServer], rng: random.Random
) -> AsyncIterator[Service]:
    """A running service that gets lines all the time, some of them bad."""

    async def publish(name: str) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await exchanges[name].send(lines(tick(rng, name, now())) + b"nonsense\n")
                await trio.sleep(0.1)

    async with running(settings) as service, trio.open_nursery() as nursery:
        for name in NAMES:
            nursery.start_soon(publish, name)
        await eventually(lambda: service.report().updates.cached > 0)
        await service.client.read("/prices/latest")
        await service.client.read("/nowhere")
        yield service
        nursery.cancel_scope.cancel()


@needs_promtool
async def test_promtool_has_no_complaint(service: Service) -> None:
    """The format, the names, the help texts and the types pass promtool's checks."""
    _, body = await service.client.read("/metrics")
    told = await trio.to_thread.run_sync(lambda: promtool("check", "metrics", text=body.decode()))
    assert told == ""


async def test_alerts_and_dashboards_ask_for_what_there_is(service: Service) -> None:
    """Each of our names in an expression is a series; texts may also name a whole histogram."""
    _, body = await service.client.read("/metrics")
    series = set(re.findall(r"^(\w+)[{ ]", body.decode(), re.MULTILINE))
    families = set(re.findall(r"^# TYPE (\w+)", body.decode(), re.MULTILINE))
    # These are only on nodes of a cluster: tests/integration/test_http_metrics.py.
    of_clusters = {
        "lease_held",
        "takeovers_total",
        "fenced_total",
        "mirror_lag_seconds",
        "clock_offset_seconds",
    }
    series |= {f"marketflow_{name}" for name in of_clusters}
    named = re.compile(r"\b(?:marketflow|http|process|python)_[a-z_]+\b")
    alerts = ALERTS.read_text()
    expressions_of_alerts = re.sub(r"annotations:.*?(?=- alert:|- name:|\Z)", "", alerts, flags=re.DOTALL)
    assert expressions_of_alerts.count("expr:") == len(alert_names())
    asked = set(named.findall(expressions_of_alerts + "\n".join(expressions().values())))
    assert len(asked) > 25
    assert asked - series == set()
    assert set(named.findall(alerts)) - series - families == set()


@asynccontextmanager
async def prometheus(directory: Path, target: str) -> AsyncIterator[Client]:
    """Prometheus with the configuration of deploy/, on its own port, but faster.

    Intervals are a quarter of a second, and alerts fire at once.
    """
    configuration = (DEPLOY / "prometheus.yml").read_text()
    for found, instead in (("127.0.0.1:8080", target), (" 15s", " 250ms")):
        assert found in configuration
        configuration = configuration.replace(found, instead)
    (directory / "prometheus.yml").write_text(configuration)
    (directory / "alerts.yml").write_text(re.sub(r"\bfor: \w+", "for: 0s", ALERTS.read_text()))
    log = directory / "prometheus.log"
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        listening = re.compile(r'msg="Listening on"\s+address=(\S+)')
        found = await eventually(lambda: listening.search(log.read_text()), within=30)
        client = Client(f"http://{found[1]}")

        async def ready() -> bool:
            status, _ = await client.read("/-/ready")
            return status == 200

        await eventually(ready, within=30)
        yield client
    finally:
        process.terminate()
        with trio.move_on_after(10) as patience:
            patience.shield = True
            await process.wait()
        process.kill()
        print(log.read_text())  # noqa: T201 - pytest shows it where the test failed


async def query(client: Client, expression: str) -> list[Any]:
    """The current result of a PromQL expression."""
    status, body = await client.get(f"/api/v1/query?query={quote(expression)}")
    assert status == 200, body
    return body["data"]["result"]


@needs_prometheus
async def test_prometheus_scrapes_it_and_answers_what_the_dashboard_asks(
    service: Service, tmp_path: Path
) -> None:
    async with prometheus(tmp_path, service.client.address) as client:

        async def scraped() -> bool:
            return bool(await query(client, "rate(marketflow_updates_accepted_total[10s]) > 0"))

        await eventually(scraped, within=30)
        for exchange in NAMES:
            (one,) = await query(client, f'marketflow_updates_cached_total{{exchange="{exchange}"}}')
            assert 0 < float(one["value"][1]) <= service.report().exchanges[exchange].updates.cached
        # The ledger adds up in each scrape that Prometheus has stored.
        lost = "sum without (reason) (marketflow_updates_rejected_total)"
        wrong = f"marketflow_updates_received_total - marketflow_updates_accepted_total - {lost} != 0"
        assert await query(client, wrong) == []
        assert len(await query(client, "marketflow_updates_received_total")) == 6

        unanswered = [panel for panel, asked in expressions().items() if not await query(client, asked)]
        # These series have no events.
        assert set(unanswered) <= {"Alerts", "Starts"}


@needs_prometheus
async def test_alerts_are_told_in_words(
    service: Service, exchanges: dict[str, ExchangeServer], tmp_path: Path
) -> None:
    """The real rules fire on the real service, for an exchange that is gone and for bad lines."""
    exchanges["exchange2"].kill()
    async with prometheus(tmp_path, service.client.address) as client:

        async def alerts() -> dict[tuple[str, str | None], Any]:
            _, body = await client.get("/api/v1/alerts")
            return {
                (alert["labels"]["alertname"], alert["labels"].get("exchange")): alert
                for alert in body["data"]["alerts"]
                if alert["state"] == "firing"
            }

        async def told() -> dict[tuple[str, str | None], Any]:
            firing = await alerts()
            wanted = {
                ("MarketflowExchangeReconnecting", "exchange2"),
                ("MarketflowManyRejected", "exchange1"),
            }
            return firing if wanted <= firing.keys() else {}

        firing = await eventually(told, within=30)
        away = firing["MarketflowExchangeReconnecting", "exchange2"]["annotations"]
        assert away["summary"] == "no connection to exchange2"
        assert "(exchange=exchange2)" in away["action"]
        rejected = firing["MarketflowManyRejected", "exchange1"]["annotations"]
        # One in six, unless a scrape came between two lines.
        assert re.fullmatch(r"1\d(\.\d+)?% of the lines of exchange1 are rejected", rejected["summary"])
        for alert in firing.values():
            assert "rror expanding" not in str(alert["annotations"])
        _, body = await client.get("/api/v1/rules")
        rules = [rule for group in body["data"]["groups"] for rule in group["rules"]]
        assert sorted(rule["name"] for rule in rules) == sorted(alert_names())
        assert {rule["health"] for rule in rules} == {"ok"}
