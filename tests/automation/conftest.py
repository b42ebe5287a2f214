"""Give the sensor tests a store, an instance, and a way to evaluate a sensor as the daemon does."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.data import key_changes
from platform_assets.product.spec import Product
from platform_assets.sensors import ticks
from platform_assets.store.history.reader import History
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import TableStore
from tests.doubles import documents, instances, recorded


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with instances.ephemeral() as ephemeral:
        yield ephemeral


@dataclass
class World:
    """A store with one product, its instance, the cursors of its sensors, and their wall clock, which `wait` moves."""

    settings: Settings
    instance: dg.DagsterInstance
    spec: Product = recorded.SPEC
    cursors: dict[str, str | None] = field(default_factory=dict)
    wall: datetime = field(default_factory=clock.wall)

    @property
    def ledgers(self) -> Ledgers:
        return Ledgers(self.settings.root, self.spec.name)

    @property
    def tables(self) -> TableStore:
        return TableStore(self.settings.root, self.spec.name)

    def tick(self, sensor: dg.SensorDefinition) -> dg.SensorResult:
        """Evaluate a sensor once, with the cursor that it left."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursors.get(sensor.name))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ticks, "clock", SimpleNamespace(wall=lambda: self.wall))
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursors[sensor.name] = result.cursor
        return result

    def wait(self, seconds: float) -> None:
        """Move the wall clock on, or back."""
        self.wall += timedelta(seconds=seconds)

    def reason(self, sensor: dg.SensorDefinition) -> str:
        """Evaluate a sensor that must request no run, and return its reason."""
        result = self.tick(sensor)
        assert not result.run_requests, result.run_requests
        assert result.skip_reason is not None
        return result.skip_reason.skip_message or ""

    def request(self, sensor: dg.SensorDefinition) -> dg.RunRequest:
        """Evaluate a sensor that must request one run, and return the request."""
        result = self.tick(sensor)
        assert result.run_requests is not None and len(result.run_requests) == 1, result.skip_reason
        return result.run_requests[0]

    def move(self, moment: str) -> None:
        clock.move(self.settings, self.spec.name, datetime.fromisoformat(moment))

    def land(self, source: str, key: str, text: str = "anything") -> Path:
        path = Path(naming.landing_location(self.settings.root, f"{self.spec.name}/{source}", key, ".csv"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def land_key(self, *keys: str) -> None:
        """Land every source of the keys except the labels, and the slow source."""
        for source in self.spec.feature_sources:
            for key in (naming.UNPARTITIONED,) if source.is_slow else keys:
                self.land(source.name, key)

    def decide(self, key: str, action: str = "wait", **more: Any) -> None:
        """Close a key: write its decision."""
        members = {"product": self.spec.name, "cutoff": self.spec.grain.shift(key, 1), **more}
        self.ledgers.create(naming.DECISIONS, key, documents.decision(key, action, **members))

    def run(self, request: dg.RunRequest, status: dg.DagsterRunStatus) -> str:
        """Record the requested run, as the daemon does."""
        assert request.job_name is not None
        run = dg.DagsterRun(job_name=request.job_name, tags=dict(request.tags), status=status)
        self.instance.add_run(run)
        return run.run_id

    @property
    def history(self) -> History:
        return History(self.settings.root, self.spec.name)

    def requests_open(self) -> tuple[tuple[int, Any], ...]:
        """Return the requests to advance that are not settled."""
        return key_changes.open_requests(self.history)[0]

    def alerts(self) -> list[dict[str, Any]]:
        """Return the recorded alerts, in the order of the queue."""
        ids = [record["id"] for _, record in self.ledgers.records(naming.ALERT_QUEUE) if "is_end" not in record]
        result = [self.ledgers.read(naming.ALERTS, alert_id) for alert_id in ids]
        return [record for record in result if record is not None]

    def ended(self) -> list[str]:
        """Return the ids of the alerts whose episode has ended, in the order of the queue."""
        return [record["id"] for _, record in self.ledgers.records(naming.ALERT_QUEUE) if "is_end" in record]


def add_runs(instance: dg.DagsterInstance, count: int, *, job: str = "nightly__elsewhere") -> None:
    """Add newer runs of a job, started and still under way."""
    for _ in range(count):
        instance.add_run(dg.DagsterRun(job_name=job, status=dg.DagsterRunStatus.STARTED))


@pytest.fixture
def crowd() -> Callable[..., None]:
    """Return a function that fills an instance with other runs under way: `crowd(instance, 120)`."""
    return add_runs


@pytest.fixture
def world(settings: Settings, instance: dg.DagsterInstance) -> World:
    return World(settings, instance)
