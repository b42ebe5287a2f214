"""Ten causes of alerts, each planted in a cluster at work and taken away again."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import yaml

from platform_assets.base import naming
from platform_assets.jobs.intervention import settle
from platform_assets.kubernetes import service_manifests
from platform_assets.launch.profiles import profile
from platform_assets.product.spec import Product
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from tests.cluster import graphql, loop, proxy, released
from tests.cluster.platform import Platform
from tests.cluster.waiting import wait_until
from tests.doubles import documents, models, promql, watched
from tests.doubles.products import live_parts
from tests.doubles.s3_server import S3Server

SERVED = ("absent", "slow", "stuck", "mute")
"""Products with a service, which gets into trouble."""
CLOSED = ("held", "unlabelled")
"""Products whose keys real runs close."""
SPENDER, WAITING, FAILING = "spender", "held", "mute"
BUDGET_USD = 100
TODAY = "retraining=Retraining("
PATIENCE_S = 300.0
CALLERS, SLOW_CPU = 8, "30m"
UNLABELLED, FIRST = 6, 9
FIRST_KEY = live_parts.SPEC.grain.key_at(0)
SENSOR = """
query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
  __typename ... on Sensor { id sensorState { status } } } }
"""
STOP = "mutation ($id: String!) { stopSensor(id: $id) { __typename ... on PythonError { message } } }"
START = """
mutation ($selector: SensorSelector!) { startSensor(sensorSelector: $selector) {
  __typename ... on PythonError { message } } }
"""
LIMIT = "mutation ($key: String!, $limit: Int!) { setConcurrencyLimit(concurrencyKey: $key, limit: $limit) }"
SLOTS = profile("cpu_small").at_once


def products() -> dict[str, Product]:
    """Return the products by name: live parts, with a monthly budget."""
    retraining = replace(live_parts.SPEC.retraining, monthly_budget_usd=BUDGET_USD)
    names = (*SERVED, *CLOSED, SPENDER)
    return {name: replace(live_parts.SPEC, name=name, retraining=retraining) for name in names}


def product_files(text: str) -> dict[str, str]:
    """Return the same as files, made of that of live parts."""
    assert TODAY in text
    changed = text.replace(TODAY, f"{TODAY}monthly_budget_usd={BUDGET_USD}, ")
    return {f"{name}.py": changed.replace(f'name="{live_parts.SPEC.name}"', f'name="{name}"') for name in products()}


@dataclass
class Cause:
    """What fires one rule.

    Attributes:
        text: what was done.
        labels: of the alert, besides its name.
        planted_s, fired_s, told_s, healed_s, resolved_s: moments, as `time.time` counts.
    """

    rule: str
    text: str
    plant: Callable[[], None]
    heal: Callable[[], None]
    labels: Mapping[str, str] = field(default_factory=dict)
    planted_s: float | None = None
    fired_s: float | None = None
    told_s: float | None = None
    healed_s: float | None = None
    resolved_s: float | None = None

    def is_among(self, alerts: Sequence[Mapping[str, str]]) -> bool:
        """Return whether its alert is among those of these labels."""
        wanted = {"alertname": self.rule, **self.labels}.items()
        return any(wanted <= labels.items() for labels in alerts)

    @property
    def outlives_its_cause(self) -> bool:
        """Whether the rule goes on for minutes, in which receivers are told."""
        return "keep_firing_for" in promql.alerts()[self.rule]


@dataclass
class World:
    """The platform, its products, and what troubles them.

    Attributes:
        folder: for builds and manifests.
        digests: of the released models, by product.
    """

    platform: Platform
    s3: S3Server
    folder: Path
    digests: dict[str, str] = field(default_factory=dict)
    is_over: threading.Event = field(default_factory=threading.Event)
    _is_frozen: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def store(self, name: str) -> ProductStore:
        return ProductStore(products()[name], self.platform.settings)

    @property
    def webserver(self) -> str:
        return self.platform.address(proxy.NAME)

    def release(self) -> None:
        """Release a model of each product with a service, and start the services."""
        for name in SERVED:
            self.digests[name] = released.release(self.store(name), self.folder / name)
            self.platform.apply(service_manifests.manifests(self.store(name), 1), name)
        for name in SERVED:
            self.platform.wait_for(service_manifests.name_of(name))

    def record(self) -> None:
        """Write the history of a product that was measured, and cost little."""
        store = self.store(SPENDER)
        watched.write_records(store.settings, store.spec, tuple(map(store.spec.grain.key_at, range(FIRST, FIRST + 6))))

    def call(self, name: str, count: int = 1, pause_s: float = 0.0) -> None:
        """Have callers ask a service until the end of the test."""
        address = self.platform.address(service_manifests.name_of(name))

        def ask() -> None:
            number = 0
            while not self.is_over.is_set():
                loop.ask(address, models.row(f"{name}-{number}"), timeout_s=30.0)
                number += 1
                self.is_over.wait(pause_s)

        self._start(*[ask] * count)

    def _start(self, *acts: Callable[[], None]) -> None:
        for act in acts:
            thread = threading.Thread(target=act, daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        self.is_over.set()
        self._is_frozen.clear()
        for thread in self._threads:
            thread.join()

    # The causes ------------------------------------------------------------------------------------------------------

    def causes(self) -> list[Cause]:
        """Return the causes in the order in which they are planted."""
        return [
            Cause(
                "QueueLong",
                "a pool set to 0 slots, its sensor off, and a training asked for",
                self.fill_pool,
                self.empty_pool,
            ),
            Cause(
                "BudgetSpent",
                "a decision after 95 of 100 USD (a record)",
                lambda: self.spend(95.0),
                lambda: self.spend(0.0),
                {"product": SPENDER},
            ),
            Cause(
                "KeyHeld",
                "a batch with a tenth of its rows out of range",
                self.land_bad,
                self.accept,
                {"product": "held"},
            ),
            Cause(
                "LabelsMissing",
                f"{UNLABELLED} batches without labels",
                self.land_unlabelled,
                self.land_labels,
                {"product": "unlabelled"},
            ),
            Cause(
                "ServiceDown",
                "its Deployment scaled to 0",
                lambda: self.scale("absent", 0),
                lambda: self.scale("absent", 1),
                {"product": "absent"},
            ),
            Cause(
                "ServiceSlowFast",
                f"{SLOW_CPU} of CPU as its limit, and {CALLERS} callers",
                lambda: self.limit(SLOW_CPU),
                lambda: self.limit("1"),
                {"product": "slow"},
            ),
            Cause(
                "FollowerProblem",
                "a release whose model is not in the store",
                lambda: released.record(self.store("stuck"), 2, "0" * 64),
                lambda: released.record(self.store("stuck"), 3, self.digests["stuck"]),
                {"product": "stuck"},
            ),
            Cause(
                "AnswersUnshipped",
                "a policy of the bucket that denies writing its answers",
                self.deny,
                self.allow,
                {"product": "mute"},
            ),
            Cause(
                "RunsFail",
                "the pod of a run deleted",
                self.kill_run,
                lambda: None,
                {"job_name": naming.job("advance", FAILING)},
            ),
            Cause("DaemonFrozen", "SIGSTOP to the daemon, and to the next one", self.freeze, self.thaw),
        ]

    def fill_pool(self) -> None:
        selector = {"repositoryLocationName": "driftline", "repositoryName": "__repository__", "sensorName": "pools"}
        sensor = graphql.ask(self.webserver, SENSOR, selector=selector)["sensorOrError"]
        graphql.ask(self.webserver, STOP, id=sensor["id"])
        graphql.ask(self.webserver, LIMIT, key=naming.pool("cpu_small"), limit=0)
        run = self.launch(
            naming.job("retrain", WAITING), {"dagster/partition": live_parts.SPEC.grain.key_at(live_parts.LEARNED)}
        )
        time.sleep(15)
        assert graphql.status(self.webserver, run) == "QUEUED"

    def empty_pool(self) -> None:
        selector = {"repositoryLocationName": "driftline", "repositoryName": "__repository__", "sensorName": "pools"}
        graphql.ask(self.webserver, LIMIT, key=naming.pool("cpu_small"), limit=SLOTS)
        graphql.ask(self.webserver, START, selector=selector)

    def launch(self, job: str, tags: Mapping[str, str]) -> str:
        return graphql.launch(self.webserver, job, tags, PATIENCE_S)

    def spend(self, usd: float) -> None:
        """Record the decision on the next key, after trainings of so much this month."""
        store = self.store(SPENDER)
        grain, ledgers = store.spec.grain, Ledgers(store.settings.root, SPENDER)
        index = next(index for index in range(FIRST, 40) if store.history.decision(grain.key_at(index)) is None)
        measured = {"spent_usd": usd, "next_usd": 1.0, "latency": None}
        ledgers.create(
            naming.DECISIONS,
            grain.key_at(index),
            documents.decision(grain.key_at(index), product=SPENDER, measured=measured),
        )

    def land(self, name: str, files: Mapping[str, str]) -> None:
        renamed = {place.replace(live_parts.SPEC.name, name, 1): text for place, text in files.items()}
        loop.land((self.platform.settings,), renamed)

    def land_bad(self) -> None:
        files = live_parts.files(0, live_parts.first_moments(datetime.now(UTC))[0])
        place = next(place for place in files if "/parts/" in place)
        head, *rows = files[place].splitlines()
        wrong = [
            row.replace(row.split(",")[1], "99.0", 1) if number % 10 == 0 else row for number, row in enumerate(rows)
        ]
        self.land("held", {**files, place: "\n".join([head, *wrong, ""])})
        self.wait(lambda: any(hold.is_held for hold in self.store("held").history.holds().values()), "it is held")

    def accept(self) -> None:
        settle(self.store("held"), FIRST_KEY, "accept", why="it was planted", by="somebody@example.com")

    def _unlabelled(self, source: str) -> dict[str, str]:
        moments = live_parts.first_moments(datetime.now(UTC))
        files = [live_parts.files(index, moments[index]) for index in range(UNLABELLED)]
        return {place: text for item in files for place, text in item.items() if f"/{source}/" in place}

    def land_unlabelled(self) -> None:
        self.land("unlabelled", self._unlabelled("parts"))
        newest = live_parts.SPEC.grain.key_at(UNLABELLED - 1)
        self.wait(lambda: self.store("unlabelled").history.decision(newest), f"there is a decision on {newest}")

    def land_labels(self) -> None:
        """Deliver the labels and one more batch: what a decision counted stays until the next one."""
        newest = live_parts.files(UNLABELLED, datetime.now(UTC) - timedelta(seconds=2))
        self.land("unlabelled", self._unlabelled("tests") | newest)

    def wait(self, condition: Callable[[], object], text: str) -> None:
        wait_until(lambda: bool(condition()), PATIENCE_S, text, self.platform.described)

    def scale(self, name: str, replicas: int) -> None:
        self.platform.kubectl("scale", f"deployment/{service_manifests.name_of(name)}", f"--replicas={replicas}")

    def limit(self, cpu: str) -> None:
        name = service_manifests.name_of("slow")
        own = {"name": "service", "resources": {"requests": {"cpu": SLOW_CPU}, "limits": {"cpu": cpu}}}
        patch = {"spec": {"template": {"spec": {"containers": [own]}}}}
        self.platform.kubectl("patch", "deployment", name, "--patch", yaml.safe_dump(patch))
        self.platform.wait_for(name)

    def deny(self) -> None:
        bucket, _, path = self.platform.settings.root.removeprefix("s3://").partition("/")
        statement = {
            "Sid": "Mute",
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["s3:PutObject"],
            "Resource": [f"arn:aws:s3:::{bucket}/{path}/prediction_log/mute/*"],
        }
        self.s3.put_policy(bucket, json.dumps({"Version": "2012-10-17", "Statement": [statement]}))

    def allow(self) -> None:
        self.s3.client().delete_bucket_policy(Bucket=loop.BUCKET)

    def kill_run(self) -> None:
        keys = {f"dagster/asset_partition_range_{end}": FIRST_KEY for end in ("start", "end")}
        run = self.launch(naming.job("advance", FAILING), keys)
        pod = f"dagster/run-id={run}"
        # Dagster waits ten minutes for a run whose pod is gone before it has started.
        self.wait(lambda: graphql.status(self.webserver, run) == "STARTED", "the run has started")
        self.platform.kubectl("delete", "pod", f"--selector={pod}", "--grace-period=0", "--force")
        self.wait(lambda: graphql.status(self.webserver, run) == "FAILURE", "the run has failed")

    def freeze(self) -> None:
        """Stop the daemon's process, and each that the kubelet starts in its place."""
        self._is_frozen.set()

        def keep() -> None:
            while self._is_frozen.is_set():
                for process in self._daemons():
                    with suppress(psutil.NoSuchProcess, ProcessLookupError):
                        if process.status() != psutil.STATUS_STOPPED:
                            os.kill(process.pid, signal.SIGSTOP)
                time.sleep(0.5)

        self._start(keep)

    def thaw(self) -> None:
        self._is_frozen.clear()
        self._threads[-1].join()
        for process in self._daemons():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)

    def _daemons(self) -> list[psutil.Process]:
        """Return the daemon's processes, known by their pods' cgroups."""
        ids = [pod.metadata.uid for pod in self.platform.pods("app.kubernetes.io/component=daemon")]
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, OSError):
                groups = Path(f"/proc/{process.pid}/cgroup").read_text(encoding="utf-8").replace("_", "-")
                if any(uid in groups for uid in ids) and any("dagster-daemon" in word for word in process.cmdline()):
                    found.append(process)
        return found
