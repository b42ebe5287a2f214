"""A tick of ours ends although the host's Dagster database does not answer, and a later tick takes its result."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.data import source_calls
from platform_assets.engine.store_resource import StoreResource
from platform_assets.sensors import late_looks, ticks
from tests.doubles import postgres_server, watched_batches
from tests.doubles.held_proxy import LOOPBACK, HeldProxy

pytestmark = [pytest.mark.slow, pytest.mark.skipif(postgres_server.binaries() is None, reason=postgres_server.MISSING)]
PATIENCE_S = 600.0
LANDINGS = f"{naming.GUEST}landings"


@dataclass
class Deployment:
    """A host's deployment whose database is PostgreSQL behind a proxy.

    Attributes:
        cursors: of its sensors, as the daemon keeps them.
    """

    ref: Any
    proxy: HeldProxy
    sensors: dict[str, dg.SensorDefinition]
    cursors: dict[str, str | None] = field(default_factory=dict)

    def tick(self, sensor: str) -> tuple[int, str]:
        """Evaluate a sensor as a code server does; return how many runs it requests, and why none."""
        cursor = self.cursors.get(sensor)
        with dg.build_sensor_context(instance_ref=self.ref, cursor=cursor, sensor_name=sensor) as context:
            result = self.sensors[sensor].evaluate_tick(context)
        self.cursors[sensor] = result.cursor or cursor
        return len(result.run_requests or ()), result.skip_message or ""


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def deployment(settings: Settings, tmp_path: Path) -> Iterator[Deployment]:
    with postgres_server.running() as server, closing(HeldProxy(server.port)) as proxy:
        own = {"username": postgres_server.USER, "password": server.password, "hostname": LOOPBACK, "port": proxy.port}
        database = {**own, "db_name": postgres_server.DATABASE, "scheme": "postgresql+psycopg2"}
        home = tmp_path / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text(
            yaml.safe_dump({"storage": {"postgres": {"postgres_db": database}}, "telemetry": {"enabled": False}}),
            encoding="utf-8",
        )
        watched_batches.land_all(settings.root, "0001", "0003")
        clock.move(settings, watched_batches.SPEC.name, watched_batches.moment("0003"))
        defs = build_defs(
            specs=[watched_batches.SPEC], resources={"store": StoreResource(variables=settings.to_environment())}
        )
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield Deployment(
                instance.get_ref(),
                proxy,
                {sensor.name: sensor for sensor in defs.sensors or () if isinstance(sensor, dg.SensorDefinition)},
            )


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_calls.WAIT_S < late_looks.WAIT_S < ticks.BUDGET_S
    assert late_looks.QUICK_S < late_looks.WAIT_S
    monkeypatch.setattr(late_looks, "WAIT_S", 0.2)
    monkeypatch.setattr(late_looks, "QUICK_S", 0.1)


@pytest.mark.costly
def test_a_tick_takes_its_own_result_where_the_database_is_quick(deployment: Deployment) -> None:
    assert deployment.tick(LANDINGS) == (1, "")


@pytest.mark.costly
@pytest.mark.usefixtures("short_wait")
def test_a_tick_ends_without_an_answer_and_a_later_one_takes_the_result(deployment: Deployment) -> None:
    with deployment.proxy.held():
        for _ in range(2):
            count, reason = deployment.tick(LANDINGS)
            assert (count, deployment.cursors[LANDINGS]) == (0, None)
            assert "has not answered for 0 seconds; a later tick takes its result" in reason
    until(lambda: not any(thread.name == "source" for thread in threading.enumerate()))
    with deployment.proxy.held():  # the tick that takes the result asks nothing, also not for its own log
        assert deployment.tick(LANDINGS) == (1, "")
    assert deployment.cursors[LANDINGS] is not None


@pytest.mark.costly
@pytest.mark.usefixtures("short_wait")
def test_every_sensor_of_ours_ends_while_the_database_does_not_answer(deployment: Deployment) -> None:
    assert len(deployment.sensors) >= 8
    with deployment.proxy.held():
        for sensor in deployment.sensors:
            assert deployment.tick(sensor)[0] == 0, sensor


@pytest.mark.costly
@pytest.mark.usefixtures("short_wait")
def test_a_look_that_hangs_is_given_up(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    with deployment.proxy.held():
        deployment.tick(LANDINGS)
        hanging = set(threading.enumerate())
        monkeypatch.setattr(source_calls, "KEPT_S", 0.0)
        deployment.tick(LANDINGS)
        assert [thread.name for thread in set(threading.enumerate()) - hanging].count("source") == 1, "another one"
    monkeypatch.setattr(source_calls, "KEPT_S", 600.0)
    until(lambda: deployment.tick(LANDINGS)[0] == 1)


@pytest.mark.costly
@pytest.mark.usefixtures("short_wait")
def test_what_a_late_look_raises_is_raised_by_the_tick_that_takes_it(deployment: Deployment) -> None:
    def of_nobody(tick: Any, state: Any) -> Any:
        tick.context.instance.get_runs(limit=1)
        raise ZeroDivisionError("a defect")

    watch = ticks.Sensor("broken", ticks.NO_CURSOR)(of_nobody)
    deployment.sensors["broken"] = watch.build([watched_batches.SPEC], prefix=naming.GUEST)
    with deployment.proxy.held():
        assert "a later tick" in deployment.tick("broken")[1]
    with pytest.raises(ZeroDivisionError, match="a defect"):
        until(lambda: "a later tick" not in deployment.tick("broken")[1])
