"""Many products on one platform: what 10, 50 and 200 cost while nothing happens.

One daemon, one code server and one PostgreSQL, with the sections of the cluster's `dagster.yaml` that do not need
Kubernetes. How long each product waits when a day of all lands at once is row P19.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import dagster as dg
import psutil
import psycopg2
import yaml
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, InstigatorType, TickStatus

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.demo.processes import Children
from platform_assets.sensors import landings, retrain
from proof.benchmarks.harness import Disagreement, Measure
from proof.benchmarks.p18_location import COUNT
from tests.doubles import postgres_server

REPOSITORY = Path(__file__).parents[2]
COUNTS = tuple(map(int, os.environ.get("P18_COUNTS", "10,50,200").split(",")))
SECTIONS = ("storage", "concurrency", "run_coordinator", "run_monitoring", "sensors", "retention", "freshness")
PATIENCE_S = 3600.0
IDLE_S = 60.0
MB = 1e6
shown: list[str] = []


@dataclass(frozen=True)
class Platform:
    instance: dg.DagsterInstance
    children: Children
    daemon: psutil.Process

    @property
    def code(self) -> psutil.Process:
        return max(self.daemon.children(recursive=True), key=lambda item: int(item.memory_info().rss))

    def states(self) -> Sequence[InstigatorState]:
        return self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)

    def ticks(self, state: InstigatorState, limit: int) -> Sequence[InstigatorTick]:
        ended = [TickStatus.SKIPPED, TickStatus.SUCCESS]
        return self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=limit, statuses=ended)


def run() -> list[Measure]:
    shown.clear()
    measures: list[Measure] = []
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as folder, opened(Path(folder), count) as platform:
            # Wait until every sensor has ticked, then look at the processes for a minute.
            began_s = time.monotonic()
            while not (states := platform.states()) or not all(platform.ticks(state, 1) for state in states):
                platform.children.check()
                if time.monotonic() > began_s + PATIENCE_S:
                    raise Disagreement(f"{count} products: waited {PATIENCE_S:.0f} s in vain")
                time.sleep(1.0)
            ready_s = time.monotonic() - began_s
            processes = (platform.daemon, platform.code)
            before_s, began_s, now = sum(map(_cpu_s, processes)), time.monotonic(), time.time()
            time.sleep(IDLE_S)
            cores = (sum(map(_cpu_s, processes)) - before_s) / (time.monotonic() - began_s)
            took, apart = {}, [0.0]
            # They wait on purpose.
            patient = {f"{naming.GUEST}{sensor.name}" for sensor in (landings.watch, retrain.watch)}
            for state in (item for item in platform.states() if item.instigator_name not in patient):
                ticks = [tick for tick in platform.ticks(state, 200) if tick.timestamp >= now]
                lasted = [tick.end_timestamp - tick.timestamp for tick in ticks if tick.end_timestamp]
                took[state.instigator_name] = max(lasted, default=IDLE_S)
                apart += [after - before for before, after in pairwise(sorted(tick.timestamp for tick in ticks))]
            slowest = max(took, key=lambda name: took[name])
            shown.append(
                f"{count} products, nothing to do: every sensor has ticked {ready_s:.0f} s after the start; the "
                f"longest tick is {took[slowest]:.1f} s, of {slowest}, and the longest time between two ticks "
                f"of a sensor {max(apart):.0f} s"
            )
            measures += [
                Measure(f"{count} products: MB of the daemon", platform.daemon.memory_info().rss / MB),
                Measure(f"{count} products: MB of the code server", platform.code.memory_info().rss / MB),
                Measure(f"{count} products: cores of both with nothing to do", cores),
                Measure(f"{count} products: s of the longest tick of a sensor", took[slowest]),
                Measure(f"{count} products: MB in PostgreSQL before the first run", _stored() / MB),
            ]
        print(shown[-1], flush=True)
    return measures


@contextmanager
def opened(folder: Path, count: int) -> Iterator[Platform]:
    """Start PostgreSQL, a daemon and its code server for a number of products."""
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server.running())
        # The cluster's coordinator of runs does not start without a header.
        variables = {**server.environment(), "DRIFTLINE_IDENTITY_HEADER": "X-Forwarded-User", COUNT: str(count)}
        os.environ.update(variables)
        home = settings.dagster_home
        home.mkdir(parents=True)
        cluster = yaml.safe_load((REPOSITORY / "deploy/kubernetes/base/dagster.yaml").read_text(encoding="utf-8"))
        content = {name: cluster[name] for name in SECTIONS} | {"telemetry": {"enabled": False}}
        (home / "dagster.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        module = {"module_name": "proof.benchmarks.p18_location", "location_name": "many"}
        (home / "workspace.yaml").write_text(json.dumps({"load_from": [{"python_module": module}]}), encoding="utf-8")
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        environment = {**settings.child_environment(), **variables, "PYTHONPATH": str(REPOSITORY)}
        children = stack.enter_context(Children(environment, folder / "logs"))
        command = ["-m", "dagster._daemon", "run", "--workspace", str(home / "workspace.yaml")]
        leash = psutil.Process(children.start("daemon", command).leash.pid)
        while not leash.children():
            time.sleep(0.1)
        yield Platform(instance, children, leash.children()[0])


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _stored() -> int:
    places = {name: os.environ[f"DAGSTER_PG_{name.upper()}"] for name in ("host", "port", "user", "password")}
    with (
        closing(psycopg2.connect(**places, dbname=os.environ["DAGSTER_PG_DB"])) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])
