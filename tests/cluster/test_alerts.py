"""The shipped rules fire on a real cluster, with their own windows: ten causes at once, each taken away again.

Real: the platform, its exporter, services, runs and the daemon as pods; Debian's Prometheus and Alertmanager with the
files of deploy/monitoring as they are, looked at every 5 s; a webhook. Minutes count from when the cause began until
the alert fired and until the first message, and from when it was removed until the alert was resolved. On 2026-12-01,
on two cores under other load, `RunsFail` waited for the frozen daemon and `LabelsMissing` for one more batch.

RECORD_ALERTS keeps the figures. It takes three quarters of an hour, most of it the half hour that a run may wait in the
queue.
"""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proof.benchmarks import harness
from proof.benchmarks.harness import Measure
from tests.cluster import alert_causes, loop, monitoring, names, platform_images
from tests.cluster.alert_causes import Cause, World
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import TESTS
from tests.cluster.monitoring import Monitoring, minutes
from tests.cluster.platform import NAMESPACE, Images, Platform
from tests.cluster.spaces import HOST
from tests.cluster.waiting import wait_until
from tests.doubles import promql, webhook
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.products import live_parts
from tests.doubles.s3_server import S3Server
from tests.doubles.webhook import Webhook

MISSING = "needs Alertmanager: apt-get install prometheus-alertmanager"
pytestmark = [pytest.mark.long, pytest.mark.skipif(shutil.which("prometheus-alertmanager") is None, reason=MISSING)]

RECORD = "RECORD_ALERTS"
LONGEST_S = 50 * 60.0
POLL_S, ASKED_EVERY_S = 5.0, 60.0
SEEN_S = 300.0


@pytest.fixture(scope="module")
def images(cluster: Cluster, repository: Path) -> Images:
    """The three images; in the platform's the products of the causes are the only ones."""
    text = Path(str(live_parts.__file__)).read_text(encoding="utf-8")
    files = alert_causes.product_files(text)
    return platform_images.pushed_files(cluster, repository, files)


@pytest.fixture(scope="module")
def at_work(
    cluster: Cluster, images: Images, s3: S3Server, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """The platform at work, with an empty store, and its exporter."""
    folder = tmp_path_factory.mktemp("alerts")
    with cluster.network():
        names.serve_names(cluster, folder)
        with loop.at_work(cluster, images, s3, postgres, folder) as platform:
            platform.start_read_only()
            platform.kubectl("scale", "deployment/driftline-exporter", "--replicas=1")
            platform.wait_for("driftline-exporter")
            yield platform


@dataclass
class Watch:
    """What is seen of the causes.

    Attributes:
        shown: expressions of boards that returned series.
    """

    monitoring: Monitoring
    receiver: Webhook
    causes: list[Cause]
    shown: set[str] = field(default_factory=set)
    asked_s: float = 0.0

    def look(self) -> None:
        """Note which alerts fire, which are over, and what receivers were told."""
        alerts, now = self.monitoring.firing(), time.time()
        for cause in self.causes:
            is_firing = cause.is_among(alerts)
            if cause.planted_s is not None and cause.fired_s is None and is_firing:
                cause.fired_s = now
                print(f"{cause.rule} fires after {minutes(cause.planted_s, now):.1f} min", flush=True)
            if cause.healed_s is not None and cause.resolved_s is None and not is_firing:
                cause.resolved_s = now
                print(f"{cause.rule} resolves after {minutes(cause.healed_s, now):.1f} min", flush=True)
            if cause.fired_s is not None and cause.told_s is None:
                cause.told_s = next(
                    (
                        item.at_s
                        for item in self.receiver.notifications
                        if cause.is_among([alert["labels"] for alert in item.alerts])
                    ),
                    None,
                )
        self._ask(now)

    def _ask(self, now_s: float) -> None:
        """Ask what boards show and have not shown yet."""
        if now_s - self.asked_s > ASKED_EVERY_S:
            self.asked_s = now_s
            asked = {place: expr for place, expr in promql.board_expressions().items() if place not in self.shown}
            self.shown |= {place for place, expr in asked.items() if self.monitoring.query(expr)}

    @property
    def is_over(self) -> bool:
        return all(cause.resolved_s is not None for cause in self.causes)


@pytest.fixture
def world(at_work: Platform, s3: S3Server, reachable: Cluster, stored: None, tmp_path: Path) -> Iterator[World]:
    world = World(at_work, s3, tmp_path)
    yield world
    world.close()


def test_ten_causes_fire_their_alerts_and_are_resolved(
    world: World, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.config.stash.setdefault(TESTS, {})[NAMESPACE] = request.node.nodeid
    causes, cluster = world.causes(), world.platform.cluster
    longest, *others, daemon = causes
    _plant(longest)
    with (
        webhook.listening(HOST) as receiver,
        monitoring.at_work(cluster, tmp_path, receiver, NAMESPACE) as seen,
        ThreadPoolExecutor(2 * len(causes)) as threads,
    ):
        world.record()
        world.release()
        wait_until(lambda: _sees_all(seen), SEEN_S, "all targets are scraped", lambda: str(seen.targets()))
        for name, (count, pause_s) in {"slow": (alert_causes.CALLERS, 0.05), "mute": (1, 5.0)}.items():
            world.call(name, count, pause_s)
        watch = Watch(seen, receiver, causes)
        acts = [threads.submit(_plant, cause) for cause in others]
        try:
            while not watch.is_over and time.time() - (longest.planted_s or 0.0) < LONGEST_S:
                watch.look()
                # Last, once the others that need the daemon have happened.
                if daemon.planted_s is None and all(act.done() for act in acts):
                    acts.append(threads.submit(_plant, daemon))
                for cause in causes:
                    is_told = cause.told_s is not None or cause.outlives_its_cause
                    if cause.fired_s is not None and is_told and cause.healed_s is None:
                        cause.healed_s = time.time()
                        acts.append(threads.submit(cause.heal))
                time.sleep(POLL_S)
        finally:
            world.close()
            measures = _measures(watch)
            print(*measures, sep="\n")
            failures = [repr(act.exception()) for act in acts if act.done() and act.exception()]
            print(f"failures of acts: {failures}")
        missing = promql.board_expressions().keys() - watch.shown
        print(
            f"{len(watch.shown)} of {len(promql.board_expressions())} lines of boards have series; without: {missing}"
        )
        if os.environ.get(RECORD):
            command = "make cluster-test ARGS=tests/cluster/test_alerts.py"
            harness.write(command, [measure.line("alerts") for measure in measures])
        assert failures == []
        assert [cause.rule for cause in watch.causes if cause.resolved_s is None] == []
        assert [cause.rule for cause in watch.causes if cause.told_s is None] == []
        assert receiver.of("dead-man"), "the Watchdog is heard"
        assert sorted(missing) == []


def _sees_all(seen: Monitoring) -> bool:
    """Return whether the exporter and each service are scraped, and the products are known."""
    health = seen.targets()
    products = seen.query("driftline_product_up == 1")
    return (
        len(health) == 1 + len(alert_causes.SERVED)
        and set(health.values()) == {"up"}
        and len(products) == len(alert_causes.products())
    )


def _plant(cause: Cause) -> None:
    print(f"{cause.rule}: {cause.text}", flush=True)
    cause.planted_s = time.time()
    cause.plant()


def _measures(watch: Watch) -> list[Measure]:
    """Return what was measured: a cause that never showed has no minutes."""
    rules, measures = promql.alerts(), []
    for cause in watch.causes:
        severity = rules[cause.rule]["labels"]["severity"]
        spans = {
            "fired": (cause.planted_s, cause.fired_s),
            "notified": (cause.planted_s, cause.told_s),
            "resolved": (cause.healed_s, cause.resolved_s),
        }
        after = {name: minutes(a, b) for name, (a, b) in spans.items() if a is not None and b is not None}
        name = f"`{cause.rule}` ({severity}), {cause.text}: min until it fired"
        measures.append(Measure(name, after.pop("fired", None), peers=after))
    return measures
