"""A pool has the slots of its profile; waiting runs get a reason; a run's end, of any kind, starts the next one."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.demo.processes import Children, free_port
from platform_assets.instance import home
from platform_assets.launch.profiles import PROFILES
from platform_assets.product.spec import Training
from platform_assets.sensors import pools
from platform_assets.sensors.pools import wait_reasons
from tests.doubles import postgres_server, recorded

pytestmark = pytest.mark.slow

GPU, SPOT = naming.pool("gpu"), naming.pool("gpu_spot")
STATUS = dg.DagsterRunStatus
Result = TypeVar("Found")


def test_a_queued_run_waits_when_its_pool_is_full_and_learns_which_runs_hold_it() -> None:
    queued = {"a": {GPU}, "b": {SPOT}, "c": (), "d": {"another"}}
    under_way = {"x": {GPU}, "y": {GPU, SPOT}, "z": ()}
    result = wait_reasons(queued, under_way, {GPU: 2, SPOT: 2})
    assert list(result) == ["a"]
    assert result["a"].startswith(f"waits for a slot in pool {GPU}: 2 of 2 are taken, by x, y.")
    assert wait_reasons(queued, {"x": {GPU}}, {GPU: 2, SPOT: 2}) == {}
    assert list(wait_reasons(queued, under_way, {GPU: 3, SPOT: 1})) == ["b"]


# -- which assets --


@pytest.mark.parametrize("profile", PROFILES)
def test_only_assets_that_launch_a_step_are_in_a_pool_the_one_of_its_profile(profile: str) -> None:
    spec = replace(recorded.SPEC, training=Training(profile=profile))
    assets = [item for item in build_defs(specs=[spec]).assets or () if isinstance(item, dg.AssetsDefinition)]
    in_pools = {item.key.path[-1]: item.op.pool for item in assets if item.is_executable and item.op.pool}
    launching = {item.key.path[-1] for item in assets if naming.LAUNCHER in item.required_resource_keys}
    assert {"checkpoint", "onnx"} <= launching
    assert in_pools == dict.fromkeys(launching, naming.pool(profile))


# -- Dagster's own storage --


@contextmanager
def stored_in(kind: str, settings: Settings, repository: Path) -> Iterator[dg.DagsterInstance]:
    """Open an instance with the repository's own file: the laptop's, or the cluster's storage."""
    path = home.prepare(settings) / "dagster.yaml"
    with ExitStack() as stack:
        if kind == "postgres":
            server = stack.enter_context(postgres_server.running())
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            for name, value in (server.environment() | {"DRIFTLINE_IDENTITY_HEADER": "X-Forwarded-User"}).items():
                patch.setenv(name, value)
            cluster = yaml.safe_load((repository / "deploy/kubernetes/base/dagster.yaml").read_text(encoding="utf-8"))
            sections = {name: cluster[name] for name in ("storage", "concurrency", "run_coordinator", "run_monitoring")}
            path.write_text(yaml.safe_dump({**sections, "telemetry": {"enabled": False}}), encoding="utf-8")
        yield stack.enter_context(dg.DagsterInstance.from_config(str(path.parent)))


REPOSITORY_OF_IT = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("driftline"), "__repository__")
ORIGIN = RemoteJobOrigin(REPOSITORY_OF_IT, "training")
"""Dagster queues no run without knowing the location of its code."""
NEEDS_POSTGRES = pytest.mark.skipif(postgres_server.binaries() is None, reason=postgres_server.MISSING)


@pytest.mark.costly
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=NEEDS_POSTGRES)])
def test_the_sensor_sets_and_restores_slots_and_logs_each_waiting_run_once(
    kind: str, settings: Settings, repository: Path
) -> None:
    sensor = pools.watch.build([replace(recorded.SPEC, training=Training(profile="gpu"))])
    cursor: str | None = None

    def tick() -> str:
        nonlocal cursor
        result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
        assert isinstance(result, dg.SensorResult) and result.skip_reason is not None
        cursor = result.cursor
        return result.skip_reason.skip_message or ""

    with stored_in(kind, settings, repository) as instance:
        places = PROFILES["gpu"].at_once
        assert tick() == f"pool {GPU} now has {places} {'slot' if places == 1 else 'slots'}"
        assert tick() == "no run waits for a slot in a pool"
        (limit,) = instance.event_log_storage.get_pool_limits()
        assert (limit.name, limit.limit, limit.from_default) == (GPU, places, False)
        instance.event_log_storage.set_concurrency_slots(GPU, places + 5)
        assert tick() == f"pool {GPU} now has {places} {'slot' if places == 1 else 'slots'}"
        assert instance.get_concurrency_config().pool_config.pool_granularity.value == "run"

        @dg.op(pool=GPU)
        def trains() -> None: ...

        @dg.job
        def training() -> None:
            trains()

        holders = [instance.create_run_for_job(training, status=STATUS.STARTED) for _ in range(places)]
        waiting = instance.create_run_for_job(training, status=STATUS.QUEUED, remote_job_origin=ORIGIN)
        assert f"run {waiting.run_id} waits for a slot in pool {GPU}" in tick()
        assert all(run.run_id in tick() for run in holders)
        assert len(waiting_messages(instance, waiting.run_id)) == 1, "once for any number of ticks"
        instance.report_run_canceled(holders[0])
        assert tick() == "no run waits for a slot in a pool"


def waiting_messages(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """Return the messages about waiting in a run's log."""
    events = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT).records
    texts = [event.event_log_entry.dagster_event.message or "" for event in events]
    return [text for text in texts if "waits for a slot in pool" in text]


# -- a daemon, runs and steps --

PATIENCE_S = 600.0
FOLDERS = "POOLED_FOLDERS"


class Platform:
    """Runs of the double's location, by name."""

    def __init__(self, instance: dg.DagsterInstance, children: Children, folders: Path) -> None:
        self.instance, self.children, self.folders = instance, children, folders

    def runs(self) -> dict[str, dg.DagsterRun]:
        return {run.tags["pooled/run"]: run for run in self.instance.get_runs()}

    def statuses(self) -> dict[str, STATUS]:
        return {name: run.status for name, run in self.runs().items()}

    def at_work(self) -> set[str]:
        """Return the runs whose steps have started and not been released."""
        return {path.parent.name for path in self.folders.glob("*/ready")}

    def wait(self, look: Callable[[], Result]) -> Result:
        until_s = time.monotonic() + PATIENCE_S
        while not (result := look()):
            self.children.check()
            assert time.monotonic() < until_s, self.statuses()
            time.sleep(0.2)
        return result


@pytest.fixture
def platform(settings: Settings, tmp_path: Path, repository: Path) -> Iterator[Platform]:
    """Start the location with our launcher and storage."""
    folders = tmp_path / "folders"
    for name in ("one", "two", "three", "four"):
        (folders / name).mkdir(parents=True)
    path = home.prepare(settings)
    variables = {**settings.child_environment(), FOLDERS: str(folders), "PYTHONPATH": str(repository)}
    with (
        dg.DagsterInstance.from_config(str(path)) as instance,
        Children(variables, settings.state / "logs") as children,
    ):
        program = str(Path(sys.executable).with_name("dagster"))
        module = ["--module-name", "tests.doubles.pooled_location"]
        children.start("dagster", [program, "dev", *module, "--port", str(free_port(3500))])
        yield Platform(instance, children, folders)


@pytest.mark.thorough
def test_a_cancelled_run_and_a_killed_one_each_free_a_slot(platform: Platform) -> None:
    """Limit two, four runs: two work, two wait; one is cancelled, one is killed with SIGKILL."""
    platform.wait(lambda: len(platform.at_work()) == 2)
    first, second = sorted(platform.at_work())
    waiting = platform.wait(
        lambda: [name for name, run in platform.runs().items() if waiting_messages(platform.instance, run.run_id)]
    )
    assert len(platform.at_work()) == 2
    assert {first, second}.isdisjoint(waiting)
    assert list(platform.statuses().values()).count(STATUS.QUEUED) == 2

    platform.instance.run_coordinator.cancel_run(platform.runs()[first].run_id)
    platform.wait(lambda: len(platform.at_work()) == 3)
    assert platform.statuses()[first] is STATUS.CANCELED
    assert (platform.folders / first / "saved").exists(), "its step received the request to stop and saved its work"
    assert list(platform.statuses().values()).count(STATUS.QUEUED) == 1

    step = psutil.Process(int((platform.folders / second / "starts").read_text(encoding="utf-8")))
    os.kill(step.ppid(), signal.SIGKILL)
    platform.wait(lambda: len(platform.at_work()) == 4)
    assert platform.statuses()[second] is STATUS.FAILURE
    for path in platform.folders.iterdir():
        (path / "go").touch()
    platform.wait(lambda: list(platform.statuses().values()).count(STATUS.SUCCESS) == 2)
