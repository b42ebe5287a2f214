"""Many products on one platform: what 10, 50 and 200 cost, and how long each waits when a day of all lands at once.

One daemon, one code server and one PostgreSQL, with the sections of the cluster's `dagster.yaml` that do not need
Kubernetes. Runs are processes of this machine and not pods: how many are at work is the cluster's limit, how fast they
are is this machine's. The last product is busy before the others: a person has asked for 24 of its runs.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg
import httpx
import psutil
import psycopg2
import yaml
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, InstigatorType, TickStatus

from platform_assets.automation.sensors import landings, retrain
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.demo.processes import HOST, Children, free_port, wait_for
from platform_assets.demo.runs import Dagster
from tests.benchmarks.harness import Disagreement, Measure
from tests.benchmarks.p18_location import COUNT
from tests.doubles import numbered_batches, postgres_server

REPOSITORY = Path(__file__).parents[2]
COUNTS = tuple(map(int, os.environ.get("P18_COUNTS", "10,50,200").split(",")))
LANDING = tuple(map(int, os.environ.get("P18_LANDING", "10,50").split(",")))
"""The counts of products at which a day lands; for 200 it takes half an hour on two cores."""
SECTIONS = ("storage", "concurrency", "run_coordinator", "run_monitoring", "sensors", "retention", "freshness")
PATIENCE_S = 3600.0
IDLE_S = 60.0
MB = 1e6
BACKFILL = 24
NOW = datetime(2024, 1, 3, tzinfo=UTC)
HEADER = "X-Forwarded-User"
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on Error { message } } }"""
shown: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Idle:
    """What a platform costs while nothing happens.

    Attributes:
        ready_s: from the start of the processes until every sensor has ticked.
        daemon: its memory in bytes; `code` is the code server's.
        cores: share of a core that both take.
        slowest: name of the sensor with the longest tick, and its seconds; some wait on purpose and do not count.
        round_s: the longest time between two ticks of one sensor.
        stored: size of the database in bytes.
    """

    ready_s: float
    daemon: int
    code: int
    cores: float
    slowest: tuple[str, float]
    round_s: float
    stored: int


@dataclass(frozen=True, kw_only=True)
class Waited:
    """Seconds of one product's day: until its run was queued, in the queue, and of the run."""

    queued_s: float
    waited_s: float
    ran_s: float


@dataclass(frozen=True)
class Platform:
    """The processes and the instance."""

    instance: dg.DagsterInstance
    children: Children
    daemon: psutil.Process
    settings: Settings
    count: int

    @property
    def names(self) -> list[str]:
        """The names of the products."""
        return [f"p{number:03}" for number in range(self.count)]

    @property
    def code(self) -> psutil.Process:
        """The daemon's code server."""
        return max(self.daemon.children(recursive=True), key=lambda item: int(item.memory_info().rss))

    def wait(self, look: Callable[[], bool], every_s: float = 1.0) -> None:
        """Wait until a function returns true."""
        until_s = time.monotonic() + PATIENCE_S
        while not look():
            self.children.check()
            if time.monotonic() > until_s:
                raise Disagreement(f"{self.count} products: waited {PATIENCE_S:.0f} s in vain")
            time.sleep(every_s)


def run() -> list[Measure]:
    """Measure each count of products."""
    shown.clear()
    measures: list[Measure] = []
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as folder, opened(Path(folder), count) as (platform, started_s):
            idle = idle_of(platform, started_s)
            _show(f"{count} products, nothing to do: {_sentence(idle)}")
            measures += _of_idle(count, idle)
            if count in LANDING:
                waits = landed(platform)
                measures += _of_landing(count, waits, stored())
    return measures


@contextmanager
def opened(folder: Path, count: int) -> Iterator[tuple[Platform, float]]:
    """Start PostgreSQL, a daemon and its code server for a number of products."""
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server.running())
        variables = {**server.environment(), "DRIFTLINE_IDENTITY_HEADER": HEADER, COUNT: str(count)}
        os.environ.update(variables)
        home = _home(settings)
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        environment = {**settings.child_environment(), **variables, "PYTHONPATH": str(REPOSITORY)}
        children = stack.enter_context(Children(environment, folder / "logs"))
        before_s = time.monotonic()
        command = ["-m", "dagster._daemon", "run", "--workspace", str(home / "workspace.yaml")]
        leash = psutil.Process(children.start("daemon", command).leash.pid)
        while not leash.children():
            time.sleep(0.1)
        yield Platform(instance, children, leash.children()[0], settings, count), before_s


def _home(settings: Settings) -> Path:
    """Write Dagster's home with the cluster's sections, and return it."""
    home = settings.dagster_home
    home.mkdir(parents=True)
    cluster = yaml.safe_load((REPOSITORY / "deploy/kubernetes/base/dagster.yaml").read_text(encoding="utf-8"))
    content = {name: cluster[name] for name in SECTIONS} | {"telemetry": {"enabled": False}}
    (home / "dagster.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    module = {"module_name": "tests.benchmarks.p18_location", "location_name": "many"}
    (home / "workspace.yaml").write_text(json.dumps({"load_from": [{"python_module": module}]}), encoding="utf-8")
    return home


# -- nothing to do --


def idle_of(platform: Platform, started_s: float) -> Idle:
    """Wait until every sensor has ticked, then look at the processes for a minute."""
    platform.wait(lambda: _states(platform) and all(_ticks(platform, item, 1) for item in _states(platform)))
    ready_s = time.monotonic() - started_s
    processes = (platform.daemon, platform.code)
    before_s, began_s, now = sum(map(_cpu_s, processes)), time.monotonic(), time.time()
    time.sleep(IDLE_S)
    cores = (sum(map(_cpu_s, processes)) - before_s) / (time.monotonic() - began_s)
    took, apart = {}, [0.0]
    patient = {sensor.name for sensor in (landings.watch, retrain.watch)}
    for state in (item for item in _states(platform) if item.instigator_name not in patient):
        ticks = [tick for tick in _ticks(platform, state, 200) if tick.timestamp >= now]
        lasted = [tick.end_timestamp - tick.timestamp for tick in ticks if tick.end_timestamp]
        took[state.instigator_name] = max(lasted, default=IDLE_S)
        apart += [after - before for before, after in pairwise(sorted(tick.timestamp for tick in ticks))]
    slowest = max(took, key=lambda name: took[name])
    return Idle(
        ready_s=ready_s,
        daemon=platform.daemon.memory_info().rss,
        code=platform.code.memory_info().rss,
        cores=cores,
        slowest=(slowest, took[slowest]),
        round_s=max(apart),
        stored=stored(),
    )


def _states(platform: Platform) -> Sequence[InstigatorState]:
    return platform.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)


def _ticks(platform: Platform, state: InstigatorState, limit: int) -> Sequence[InstigatorTick]:
    ended = [TickStatus.SKIPPED, TickStatus.SUCCESS]
    return platform.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=limit, statuses=ended)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def stored() -> int:
    """Return the size of Dagster's database in bytes."""
    places = {name: os.environ[f"DAGSTER_PG_{name.upper()}"] for name in ("host", "port", "user", "password")}
    connection = psycopg2.connect(**places, dbname=os.environ["DAGSTER_PG_DB"])
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_database_size(current_database())")
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


# -- a day of every product --


def landed(platform: Platform) -> list[Waited]:
    """Keep the last product busy, land a day of every product at once, and return how long the others waited."""
    *others, busy = platform.names
    _ask_often(platform, naming.job("verify", busy))
    at_s = time.time()
    for name in platform.names:
        _land(platform.settings, name)
    runs = {name: naming.job("advance", name) for name in platform.names}
    platform.wait(lambda: all(_is_done(platform, job) for job in runs.values()), every_s=5.0)
    _show(
        f"{platform.count} products, a day of each at once, while {BACKFILL} runs of the last one, asked for by "
        f"a person, are under way: the last product was closed after {time.time() - at_s:.0f} s"
    )
    return [_waited(_runs(platform, runs[name])[-1], at_s) for name in others]


def _ask_often(platform: Platform, job: str) -> None:
    """Ask for many runs of a job, as a person does in the UI."""
    port = free_port(3600)
    address, workspace = f"http://{HOST}:{port}", str(platform.settings.dagster_home / "workspace.yaml")
    server = ["-m", "dagster_webserver", "--host", HOST, "--port", str(port), "--workspace", workspace]
    webserver = platform.children.start("webserver", server)
    wait_for(f"{address}/server_info", check=webserver.check, timeout_s=PATIENCE_S)
    with closing(Dagster(address, platform.settings.dagster_home)) as client:
        client.wait_for_location(platform.children.check, PATIENCE_S)
    selector = {"repositoryLocationName": "many", "repositoryName": "__repository__", "jobName": job}
    body = {"query": LAUNCH, "variables": {"params": {"selector": selector, "runConfigData": "{}"}}}
    for _ in range(BACKFILL):
        answer: dict[str, Any] = httpx.post(
            f"{address}/graphql", json=body, headers={HEADER: "ada@example.org"}, timeout=600
        ).json()
        if answer["data"]["launchRun"]["__typename"] != "LaunchRunSuccess":
            raise Disagreement(str(answer))


def _land(settings: Settings, name: str) -> None:
    """Deliver the slow table and the first batch of a product."""
    clock.move(settings, name, NOW)
    key = numbered_batches.GRAIN.key_at(0)
    files = {
        ("catalogue", naming.UNPARTITIONED): numbered_batches.catalogue(),
        ("readings", key): numbered_batches.readings(key),
    }
    for (source, of), text in files.items():
        path = Path(naming.landing_location(settings.root, f"{name}/{source}", of, ".csv"))
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting = path.with_suffix(".waiting")
        waiting.write_text(text, encoding="utf-8")
        waiting.rename(path)


def _runs(platform: Platform, job: str) -> Sequence[dg.RunRecord]:
    """Return the runs of a job, the newest first."""
    return platform.instance.get_run_records(dg.RunsFilter(job_name=job))


def _is_done(platform: Platform, job: str) -> bool:
    """Return whether the job has run.

    Raises:
        Disagreement: a run failed.
    """
    statuses = [record.dagster_run.status for record in _runs(platform, job)]
    if dg.DagsterRunStatus.FAILURE in statuses:
        raise Disagreement(f"a run of {job} failed")
    return dg.DagsterRunStatus.SUCCESS in statuses


def _waited(record: dg.RunRecord, at_s: float) -> Waited:
    assert record.start_time is not None and record.end_time is not None
    queued_s = record.create_timestamp.timestamp()
    return Waited(
        queued_s=queued_s - at_s, waited_s=record.start_time - queued_s, ran_s=record.end_time - record.start_time
    )


# -- the page --


def _of_idle(count: int, idle: Idle) -> list[Measure]:
    return [
        Measure(measure=f"{count} products: MB of the daemon", ours=idle.daemon / MB),
        Measure(measure=f"{count} products: MB of the code server", ours=idle.code / MB),
        Measure(measure=f"{count} products: cores of both with nothing to do", ours=idle.cores),
        Measure(measure=f"{count} products: s of the longest tick of a sensor", ours=idle.slowest[1]),
        Measure(measure=f"{count} products: MB in PostgreSQL before the first run", ours=idle.stored / MB),
    ]


def _of_landing(count: int, waits: Sequence[Waited], size: int) -> list[Measure]:
    def of(text: str, values: Sequence[float]) -> list[Measure]:
        return [
            Measure(measure=f"{count} products, a day of each: {text}, median", ours=median(values)),
            Measure(measure=f"{count} products, a day of each: {text}, most", ours=max(values)),
        ]

    return [
        *of("s until the run is queued", [item.queued_s for item in waits]),
        *of("s in the queue", [item.waited_s for item in waits]),
        *of("s of the run", [item.ran_s for item in waits]),
        Measure(measure=f"{count} products, a day of each: MB in PostgreSQL afterwards", ours=size / MB),
    ]


def _sentence(idle: Idle) -> str:
    name, longest_s = idle.slowest
    return (
        f"every sensor has ticked {idle.ready_s:.0f} s after the start; the longest tick is "
        f"{longest_s:.1f} s, of {name}, and the longest time between two ticks of a sensor {idle.round_s:.0f} s"
    )


def _show(sentence: str) -> None:
    shown.append(sentence)
    print(sentence, flush=True)
