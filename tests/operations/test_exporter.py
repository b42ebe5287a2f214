"""Metrics of any Dagster instance and of products: counts from zero, in parts that do not wait for each other."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import httpx
import psycopg2
import pytest
import yaml
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from msgspec import structs
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from platform_assets.base.settings import Settings
from platform_assets.engine.product_files import Broken
from platform_assets.operations import exporter
from platform_assets.operations.exporter import parts as parts_module
from platform_assets.operations.exporter.instance import OfInstance
from platform_assets.operations.exporter.parts import Parts
from platform_assets.operations.exporter.products import OfProducts
from platform_assets.serving.run.metrics import Metrics
from platform_assets.store.history.reader import History
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.decisions import DECISIONS
from tests.doubles import postgres_server, recorded, s3_server, watched

pytestmark = pytest.mark.slow

ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("there"), "__repository__"), "waits")
LOCATION = """
import dagster as dg

@dg.op(pool="few")
def work(): ...

@dg.job
def sound():
    work()

@dg.sensor(job=sound, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def asks(context):
    if context.cursor is None:
        context.update_cursor("asked")
        return dg.RunRequest(run_key="only")
    return dg.SkipReason("asked before")

@dg.sensor(job=sound, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def fails():
    raise RuntimeError("broken on purpose")

defs = dg.Definitions(jobs=[sound], sensors=[asks, fails])
"""


class Numbers(dict[str, float]):
    """Samples as Prometheus writes them: `dagster_runs{job_name="x",state="queued"}` without the location."""


def read(*collectors: Any) -> Numbers:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector if isinstance(collector, Parts) else as_collector(collector))
    return parsed(generate_latest(registry).decode())


def parsed(text: str) -> Numbers:
    numbers = Numbers()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={sample.labels[name]}" for name in sorted(sample.labels) if name != "location")
            numbers[f"{sample.name}{{{labels}}}"] = sample.value
    return numbers


def as_collector(collect: Callable[[], Any]) -> Collector:
    class Once(Collector):
        def collect(self) -> Any:
            return collect()

        def describe(self) -> Any:
            return ()

    return Once()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as stored:
        yield stored


@dg.op
def fine() -> None: ...


@dg.op
def broken() -> None:
    raise RuntimeError("on purpose")


@dg.job
def sound() -> None:
    fine()


@dg.job
def failing() -> None:
    broken()


@pytest.mark.costly
def test_runs_are_counted_from_zero_once_each(instance: dg.DagsterInstance) -> None:
    of = OfInstance(lambda: instance)
    assert not any("runs_ended" in name for name in read(of))
    sound.execute_in_process(instance=instance)
    assert read(of)["dagster_runs_ended_total{job_name=sound,state=success}"] == 0.0, "a series begins at zero"
    second = read(of)
    assert second["dagster_runs_ended_total{job_name=sound,state=success}"] == 1.0
    assert second["dagster_run_duration_seconds_count{job_name=sound}"] == 1.0
    for _ in range(2):
        sound.execute_in_process(instance=instance)
    failing.execute_in_process(instance=instance, raise_on_error=False)
    for _ in range(3):
        last = read(of)
    assert last["dagster_runs_ended_total{job_name=sound,state=success}"] == 3.0
    assert last["dagster_runs_ended_total{job_name=failing,state=failure}"] == 1.0
    assert last["dagster_runs_ended_total{job_name=failing,state=success}"] == 0.0
    assert last["dagster_events_stored_total{}"] > 0


@pytest.mark.costly
def test_what_ended_before_the_exporter_started_is_not_counted_but_its_series_exist(instance: dg.DagsterInstance):
    sound.execute_in_process(instance=instance)
    of = OfInstance(lambda: instance)
    for _ in range(2):
        numbers = read(of)
    assert numbers["dagster_runs_ended_total{job_name=sound,state=success}"] == 0.0
    sound.execute_in_process(instance=instance)
    assert read(of)["dagster_runs_ended_total{job_name=sound,state=success}"] == 1.0


def test_waiting_runs_are_shown_with_the_moment_of_the_oldest(instance: dg.DagsterInstance) -> None:
    of = OfInstance(lambda: instance)
    assert read(of)["dagster_oldest_run_created_timestamp_seconds{state=queued}"] == 0.0
    began_s = time.time()
    for _ in range(3):
        run = dg.DagsterRun(
            job_name="waits", run_id=str(uuid4()), status=dg.DagsterRunStatus.QUEUED, remote_job_origin=ORIGIN
        )
        instance.add_run(run)
    numbers = read(of)
    assert numbers["dagster_runs{job_name=waits,state=queued}"] == 3.0
    assert numbers["dagster_runs{job_name=waits,state=started}"] == 0.0
    assert began_s - 1 <= numbers["dagster_oldest_run_created_timestamp_seconds{state=queued}"] <= time.time()


def test_a_database_that_fails_is_opened_again(instance: dg.DagsterInstance) -> None:
    opened: list[str] = []

    def opening() -> dg.DagsterInstance:
        opened.append("")
        if len(opened) == 1:
            raise OSError("the database is away")
        return instance

    collector = Parts({"dagster": OfInstance(opening)})
    first = read(collector)
    assert first["driftline_exporter_part_up{part=dagster}"] == 0.0
    assert first["driftline_exporter_read_failures_total{part=dagster}"] == 1.0
    assert "dagster_events_stored_total{}" not in first
    second = read(collector)
    assert second["driftline_exporter_part_up{part=dagster}"] == 1.0
    assert "dagster_events_stored_total{}" in second


def test_a_part_that_hangs_delays_a_scrape_no_longer_than_stated_and_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(parts_module, "PATIENCE_S", 0.2)
    goes_on, readings = threading.Event(), list[str]()

    def hangs() -> list[Any]:
        readings.append("")
        if len(readings) == 2:
            goes_on.wait(30)
        return [GaugeMetricFamily("driftline_slow", "Slow.", value=len(readings))]

    collector = Parts({"slow": hangs, "fast": lambda: [GaugeMetricFamily("driftline_fast", "Fast.", value=1)]})
    assert read(collector)["driftline_slow{}"] == 1.0
    for _ in range(3):
        numbers = read(collector)
        assert (numbers["driftline_slow{}"], numbers["driftline_fast{}"]) == (1.0, 1.0), "what was read last"
    assert len(readings) == 2, "a reading under way is not begun again"
    said = [record.getMessage() for record in caplog.records]
    assert said == ["slow has not answered within 0.2 s; what was read before is served until it does"]
    monkeypatch.setattr(parts_module, "OLDEST_S", 0.0)
    numbers = read(collector)
    assert "driftline_slow{}" not in numbers, "old numbers are left out"
    assert numbers["driftline_exporter_part_up{part=slow}"] == 0.0
    goes_on.set()


def test_a_part_is_read_no_more_often_than_stated() -> None:
    readings: list[str] = []

    def reads() -> list[Any]:
        readings.append("")
        return []

    collector = Parts({"slow": reads}, every_s={"slow": 3600.0})
    for _ in range(3):
        assert read(collector)["driftline_exporter_part_up{part=slow}"] == 1.0
    assert len(readings) == 1


def test_a_product_without_any_key_has_its_series(settings: Settings) -> None:
    numbers = read(OfProducts(settings, [recorded.SPEC]))
    assert numbers["driftline_product_up{product=recorded}"] == 1.0
    assert numbers["driftline_newest_key{product=recorded,stage=closed}"] == 0.0
    assert numbers["driftline_newest_release{product=recorded}"] == 0.0
    assert numbers["driftline_decisions_total{action=retrain,product=recorded}"] == 0.0
    assert numbers["driftline_held_keys{check=,product=recorded,source=}"] == 0.0


@pytest.mark.parametrize(
    ("latency_ms", "bucket"), [(100.0, "0.1"), (150.0, "0.25"), (1000.0, "1.0"), (60_000.0, "+Inf")]
)
def test_a_products_latency_names_the_bucket_that_holds_it(settings: Settings, latency_ms: float, bucket: str) -> None:
    spec = replace(recorded.SPEC, service=replace(recorded.SPEC.service, latency_ms=latency_ms))
    numbers = read(OfProducts(settings, [spec]))
    assert numbers[f"driftline_latency_objective_seconds{{bucket={bucket},product=recorded}}"] == latency_ms / 1000
    assert f'driftline_request_seconds_bucket{{le="{bucket}",release="none"}}' in Metrics().text().decode()


def test_an_alert_is_unsent_until_alertmanager_has_it(settings: Settings) -> None:
    ledgers = Ledgers(settings.root, recorded.SPEC.name)

    def unsent() -> float:
        return read(OfProducts(settings, [recorded.SPEC]))["driftline_unsent_alerts{product=recorded}"]

    assert unsent() == 0.0
    for queued in ({"id": "a1"}, {"id": "a1", "is_end": True}):
        ledgers.append("alert_queue", queued)
    assert unsent() == 2.0
    delivered = {"id": "a1", "outcome": "sent", "message": "it was"}
    ledgers.create("alerts", "a1.alertmanager", delivered)
    assert unsent() == 1.0
    ledgers.create("alerts", "a1.alertmanager.ended", {**delivered, "outcome": "refused"})
    assert unsent() == 0.0


def test_a_product_that_cannot_be_read_and_one_with_a_broken_file_leave_the_others(settings: Settings) -> None:
    damaged = replace(recorded.SPEC, name="damaged")
    ledger = Path(settings.root) / "ledgers" / "damaged" / "releases"
    ledger.mkdir(parents=True)
    (ledger / f"{1:08d}.json").write_text("{not json")
    cause = ValueError("on purpose")
    products = [damaged, Broken(name="broken", file="f", error="e", cause=cause), recorded.SPEC]
    numbers = read(OfProducts(settings, products))
    assert [numbers[f"driftline_product_up{{product={name}}}"] for name in ("damaged", "broken", "recorded")] == [
        0,
        0,
        1,
    ]


def test_decisions_are_counted_from_the_first_reading_on(settings: Settings) -> None:
    keys = recorded.GRAIN.span("2020-01-11", "2020-01-16")
    watched.write(settings, recorded.SPEC, keys)
    of = OfProducts(settings, [recorded.SPEC])
    decision = History(settings.root, "recorded").decision(keys[-1])
    assert decision is not None
    name = f"driftline_decisions_total{{action={decision.action},product=recorded}}"
    assert read(of)[name] == 0.0
    later = recorded.GRAIN.key_at(recorded.GRAIN.index(keys[-1]) + 1)
    Ledgers(settings.root, "recorded").of(DECISIONS).create(later, structs.replace(decision, key=later))
    assert read(of)[name] == 1.0


def warnings_of(product: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged of a product; a reading of another test's may still go on in this process."""
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if message.startswith(f"{product} ")]


@pytest.mark.costly
@pytest.mark.slow
def test_a_part_of_the_store_that_may_not_be_read_leaves_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The reader of a bucket has all rights but those to the fault ledgers."""
    local = Settings(root=str(tmp_path / "store"), state=tmp_path / "state")
    watched.write(local, recorded.SPEC, recorded.GRAIN.span("2020-01-11", "2020-01-16"))
    (tmp_path / "server").mkdir()
    with s3_server.running(tmp_path / "server", users=["looks"]) as server:
        server.make_bucket("seen")
        for path in (tmp_path / "store").rglob("*"):
            if path.is_file():
                name = f"store/{path.relative_to(tmp_path / 'store')}"
                server.client().put_object(Bucket="seen", Key=name, Body=path.read_bytes())
        server.put_policy("seen", json.dumps({"Version": "2012-10-17", "Statement": STATEMENTS}))
        for name, value in server.environment(access_key="looks").items():
            monkeypatch.setenv(name, value)
        of = OfProducts(Settings(root="s3://seen/store", state=tmp_path / "state"), [recorded.SPEC])
        numbers = read(of)
        read(of)
    assert numbers["driftline_product_up{product=recorded}"] == 0.0
    assert numbers["driftline_newest_release{product=recorded}"] == 1.0
    assert "driftline_held_keys{check=,product=recorded,source=}" not in numbers
    (said,) = warnings_of("recorded", caplog)
    assert said.startswith("recorded cannot be read: ")
    assert "ledgers/recorded/faults" in said


@pytest.mark.slow
def test_of_a_product_whose_store_is_away_one_part_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With fifty products all parts took three minutes, and their numbers came and went."""
    with s3_server.running(tmp_path) as server:
        server.make_bucket("gone")
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        of = OfProducts(Settings(root="s3://gone/store", state=tmp_path / "state"), [recorded.SPEC])
        assert read(of)["driftline_product_up{product=recorded}"] == 1.0
        server.program.process.kill()
        server.program.process.wait()
        numbers = read(of)
    assert numbers["driftline_product_up{product=recorded}"] == 0.0
    (said,) = warnings_of("recorded", caplog)
    assert said.count("s3://gone/store/") == 1


STATEMENTS = [
    {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:user/looks"}, "Action": action, "Resource": of}
    for action, of in (("s3:ListBucket", "arn:aws:s3:::seen"), ("s3:GetObject", "arn:aws:s3:::seen/*"))
] + [
    {
        "Effect": "Deny",
        "Principal": {"AWS": "arn:aws:iam::000000000000:user/looks"},
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::seen/store/ledgers/recorded/faults/*",
    }
]


@contextmanager
def dagster_with_its_daemon(home: Path) -> Iterator[None]:
    """Run a daemon on a location with a pool, a job, and two sensors, one of which fails."""
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}}), encoding="utf-8")
    (home / "location.py").write_text(LOCATION, encoding="utf-8")
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": ""}
    command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-f", str(home / "location.py")]
    with (home / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log)
        try:
            yield
        finally:
            daemon.send_signal(signal.SIGINT)
            daemon.wait(60)


@pytest.mark.costly
@pytest.mark.slow
def test_the_exporter_watches_a_dagster_that_has_no_product(settings: Settings, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with dagster_with_its_daemon(home):
        server, thread = start_http_server(0, addr="127.0.0.1", registry=exporter.metrics(settings, [], home))
        address = f"http://127.0.0.1:{server.server_port}/metrics"
        expected = (
            ("dagster_runs_ended_total{job_name=sound,state=success}", 1.0),
            ("dagster_ticks_total{kind=sensor,name=fails,outcome=failure}", 2.0),
            ("dagster_ticks_total{kind=sensor,name=asks,outcome=skipped}", 2.0),
            ("dagster_daemon_heartbeat_timestamp_seconds{daemon=sensor}", 1.0),
        )
        try:
            until_s = time.monotonic() + 600
            while True:
                text = httpx.get(address, timeout=30).text
                numbers = parsed(text)
                if all(numbers.get(name, 0.0) >= least for name, least in expected):
                    break
                assert time.monotonic() < until_s, {name: numbers.get(name) for name, _ in expected}
                time.sleep(1)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
    assert numbers["dagster_runs_ended_total{job_name=sound,state=success}"] == 1.0
    assert numbers["dagster_runs_ended_total{job_name=sound,state=failure}"] == 0.0
    assert numbers["dagster_instigator_running{kind=sensor,name=asks}"] == 1.0
    assert numbers["dagster_daemon_required{daemon=scheduler}"] == 1.0
    if promtool := shutil.which("promtool"):
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.skipif(postgres_server.binaries() is None, reason=postgres_server.MISSING)
def test_a_user_who_can_only_read_is_enough(monkeypatch: pytest.MonkeyPatch, repository: Path, tmp_path: Path) -> None:
    with postgres_server.running() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        storage = yaml.safe_load((repository / "deploy/kubernetes/base/dagster.yaml").read_text())["storage"]
        (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"storage": storage, "telemetry": {"enabled": False}}))
        with dg.DagsterInstance.from_config(str(tmp_path)) as owner:
            sound.execute_in_process(instance=owner)
            with closing(psycopg2.connect(**connection(server))) as database, database.cursor() as cursor:
                cursor.execute("CREATE ROLE looks LOGIN PASSWORD 'looks'")
                cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO looks")
                database.commit()
            monkeypatch.setenv("DAGSTER_PG_USER", "looks")
            monkeypatch.setenv("DAGSTER_PG_PASSWORD", "looks")
            of = OfInstance(partial(dg.DagsterInstance.from_config, str(tmp_path)))
            read(of)
            sound.execute_in_process(instance=owner)
            assert read(of)["dagster_runs_ended_total{job_name=sound,state=success}"] == 1.0


def connection(server: postgres_server.PostgresServer) -> dict[str, Any]:
    names = {"HOST": "host", "PORT": "port", "DB": "dbname", "USER": "user", "PASSWORD": "password"}
    return {name: server.environment()[f"DAGSTER_PG_{variable}"] for variable, name in names.items()}
