"""Who is told, and how often: the shipped routes in Debian's Prometheus and Alertmanager, with a real webhook."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from platform_assets.base.settings import Settings
from platform_assets.operations import exporter
from tests.doubles import promql, recorded, s3_server, webhook
from tests.doubles.program import Program
from tests.doubles.webhook import Webhook

ROUTES = promql.FOLDER / "alertmanager.yaml"
MISSING = "needs Alertmanager: apt-get install prometheus-alertmanager"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("prometheus-alertmanager") is None, reason=MISSING)]
FASTER = 10
"""The windows of rules and routes are so many times shorter here; tests/cluster/test_alerts.py has them as they are."""
SPAN = re.compile(r"(?<=: )(\d+)([smhd])$", re.MULTILINE)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
PRODUCTS = 50
PATIENCE_S = 600.0
EVERY_S = 20.0
"""Readings of products: long enough for the store to go between two, so that the next one misses all of it."""
UNSHIPPED_S = 400
Targets = Mapping[str, Sequence[tuple[str, Mapping[str, str]]]]
"""Addresses and labels by job."""


def test_amtool_accepts_the_shipped_routes() -> None:
    assert "SUCCESS" in amtool("check-config", str(ROUTES))


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("severity=page owner=platform alertname=DaemonFrozen", "pages"),
        ("severity=page owner=team:example alertname=ServiceDown", "pages"),
        ("severity=ticket owner=platform alertname=QueueLong", "tickets"),
        ("severity=ticket owner=team:other alertname=KeyHeld", "tickets"),
        ("severity=ticket owner=team:example alertname=KeyHeld", "tickets-of-example"),
        ("severity=none owner=platform alertname=Watchdog", "dead-man"),
    ],
)
def test_severity_and_owner_decide_the_route(labels: str, receiver: str) -> None:
    assert amtool("config", "routes", "test", f"--config.file={ROUTES}", *labels.split()).strip() == receiver


def test_every_severity_of_a_rule_has_a_route_that_was_tried() -> None:
    assert {rule["labels"]["severity"] for rule in promql.alerts().values()} == {"page", "ticket", "none"}


def test_inhibitions_name_rules_that_exist() -> None:
    text = yaml.safe_load(ROUTES.read_text(encoding="utf-8"))["inhibit_rules"]
    matchers = [item for rule in text for item in (*rule["source_matchers"], *rule["target_matchers"])]
    named = {name for item in matchers for name in re.findall(r"[A-Z]\w+", item)}
    assert named and named <= promql.alerts().keys()


def amtool(*argv: str) -> str:
    return subprocess.run(["amtool", *argv], capture_output=True, text=True, check=True).stdout


@pytest.mark.thorough
def test_fifty_products_that_lose_one_bucket_are_one_notification(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Their services follow no release any more and send no answers: all told by the same notification."""
    monkeypatch.setattr(exporter, "PRODUCTS_EVERY_S", EVERY_S)
    names = [f"p{number:02d}" for number in range(PRODUCTS)]
    (tmp_path / "s3").mkdir()
    with s3_server.running(tmp_path / "s3") as store, webhook.listening() as receiver:
        store.make_bucket("fifty")
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        specs = [replace(recorded.SPEC, name=name) for name in names]
        settings = Settings(root="s3://fifty/store", state=tmp_path / "state")
        registry = exporter.metrics(settings, specs, tmp_path, patience_s=1.0)
        services = CollectorRegistry()
        problem = Gauge("driftline_release_has_problem", "As of a service.", registry=services)
        unshipped = Gauge("driftline_log_unshipped_seconds", "As of a service.", registry=services)
        with serving(registry) as of_exporter, serving(services) as of_services:
            targets: Targets = {
                "driftline-exporter": [(of_exporter, {})],
                "driftline-services": [(of_services, {"product": name}) for name in names],
            }
            with watching(tmp_path, targets, receiver) as prometheus:
                wait(lambda: receiver.of("dead-man"), "the Watchdog is heard")
                wait(lambda: count(prometheus, "driftline_product_up == 1") == PRODUCTS, "all products are read")
                took_s = last_reading_took_s(prometheus)
                wait(lambda: last_reading_took_s(prometheus) != took_s, "a reading has just ended")
                store.program.kill()
                wait(lambda: count(prometheus, "driftline_product_up == 0") == PRODUCTS, "no product can be read")
                # Counted from here: the exporter's own tries are not faster than usual.
                problem.set(1)
                unshipped.set(UNSHIPPED_S)
                for name in ("AnswersUnshipped", "FollowerProblem", "ProductUnreadable"):
                    wait(partial(fires, prometheus, name), f"{name} fires for all products")
                wait(lambda: told(receiver), "somebody is told")
                time.sleep(2 * 300 / FASTER)  # of waiting in groups, in which nothing more comes
                assert len(told(receiver)) == 1, [
                    (item.receiver, item.status, item.names("firing"), len(item.alerts)) for item in told(receiver)
                ]
                only = told(receiver)[0]
                assert (only.receiver, only.names("firing")) == ("tickets", {"ProductUnreadable"})
                assert {alert["labels"]["product"] for alert in only.alerts} == set(names)
                problem.set(0)
                unshipped.set(0)
                store.start_again()
                # A reading that was under way finds the store for some of them: these are told first.
                wait(lambda: told(receiver)[-1].status == "resolved", "the end is told, too")
                assert {item.receiver for item in told(receiver)} == {"tickets"}
                assert {name for item in told(receiver) for name in item.names("firing")} == {"ProductUnreadable"}


def count(prometheus: Prometheus, expr: str) -> int:
    return len(prometheus.query(expr))


def last_reading_took_s(prometheus: Prometheus) -> float:
    """Return how long the exporter's last reading of the products took, which no two readings have in common."""
    (series,) = prometheus.query('driftline_exporter_read_duration_seconds{part="products"}')
    return float(series["value"][1])


def fires(prometheus: Prometheus, alert: str) -> bool:
    return count(prometheus, f'ALERTS{{alertname="{alert}",alertstate="firing"}}') == PRODUCTS


def told(receiver: Webhook) -> list[webhook.Notification]:
    """Return the notifications about products; Dagster, which this test has not, is another subject."""
    return [item for item in receiver.notifications if any("product" in alert["labels"] for alert in item.alerts)]


def wait(condition: Callable[[], object], text: str) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, f"waited in vain until {text}"
        time.sleep(0.5)


@contextmanager
def serving(registry: CollectorRegistry) -> Iterator[str]:
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Prometheus:
    address: str

    def query(self, expr: str) -> list[Any]:
        answer = httpx.get(f"{self.address}/api/v1/query", params={"query": expr})
        return list(answer.raise_for_status().json()["data"]["result"])


@contextmanager
def watching(folder: Path, targets: Targets, receiver: Webhook) -> Iterator[Prometheus]:
    """Run Prometheus and Alertmanager with the shipped rules and routes, all windows shorter."""
    ports = {name: free_port() for name in ("prometheus", "prometheus-alertmanager")}
    for name in re.findall(r"receivers/([a-z-]+)", ROUTES.read_text(encoding="utf-8")):
        (folder / name).write_text(f"{receiver.address}{name}", encoding="utf-8")
    routes = faster(ROUTES).replace("/etc/alertmanager/receivers", str(folder))
    (folder / "alertmanager.yaml").write_text(routes, encoding="utf-8")
    (folder / "rules.yaml").write_text(faster(promql.RULES), encoding="utf-8")
    jobs = [
        {
            "job_name": job,
            "static_configs": [
                {"targets": [address], "labels": {"namespace": "driftline", **labels}} for address, labels in listed
            ],
        }
        for job, listed in targets.items()
    ]
    alertmanagers = [{"static_configs": [{"targets": [f"127.0.0.1:{ports['prometheus-alertmanager']}"]}]}]
    config = {
        "global": {"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "5s"},
        "rule_files": [str(folder / "rules.yaml")],
        "scrape_configs": jobs,
        "alerting": {"alertmanagers": alertmanagers},
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    options = {
        "prometheus": ["--config.file=prometheus.yaml", "--storage.tsdb.path=data"],
        "prometheus-alertmanager": ["--config.file=alertmanager.yaml", "--storage.path=d", "--cluster.listen-address="],
    }
    programs = []
    for name, port in ports.items():
        (folder / f"of-{name}").mkdir()
        argv = [name, *(option.replace("file=", f"file={folder}/") for option in options[name])]
        programs.append(Program([*argv, f"--web.listen-address=127.0.0.1:{port}"], folder / f"of-{name}", {}))
    try:
        for port in ports.values():
            wait(partial(answers, port), "both are ready")
        yield Prometheus(f"http://127.0.0.1:{ports['prometheus']}")
    finally:
        for program in programs:
            program.kill()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/-/ready").is_success
    except httpx.TransportError:
        return False


def faster(file: Path) -> str:
    """Return a file's text with shorter windows."""
    text, count = SPAN.subn(shorter, file.read_text(encoding="utf-8"))
    assert count > 3, file
    return text


def shorter(span: re.Match[str]) -> str:
    return f"{max(1, int(span[1]) * SECONDS[span[2]] // FASTER)}s"


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])
