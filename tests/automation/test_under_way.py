"""Which runs are under way: read once for many products, right with any number of runs, and never long out of date."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dagster as dg
import msgspec
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from platform_assets.base.settings import Settings
from platform_assets.sensors import ticks, under_way
from platform_assets.sensors.under_way import ACTIVE, MOST_READ, UnderWay
from tests.doubles import recorded

pytestmark = pytest.mark.slow

REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("driftline"), "__repository__")
ORIGIN = RemoteJobOrigin(REPOSITORY, "mine")
"""Dagster queues no run without knowing the location of its code."""


def add(instance: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus) -> str:
    run = dg.DagsterRun(job_name=job, status=status, remote_job_origin=ORIGIN)
    instance.add_run(run)
    return run.run_id


class Counted:
    """An instance whose queries are counted."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance, self.queries = instance, 0

    def get_runs(self, *arguments: Any, **named: Any) -> Any:
        self.queries += 1
        return self._instance.get_runs(*arguments, **named)


@pytest.mark.parametrize("status", ACTIVE)
def test_every_status_of_a_run_that_has_not_ended_counts(instance: dg.DagsterInstance, status: Any) -> None:
    run_id = add(instance, "mine", status)
    add(instance, "theirs", dg.DagsterRunStatus.SUCCESS)
    runs = UnderWay(lambda: instance)
    assert [runs.newest_of([name]) and True for name in ("mine", "theirs")] == [True, None]
    result = runs.newest_of(["theirs", "mine"])
    assert result is not None and result.run_id == run_id


def test_many_products_cost_one_query(instance: dg.DagsterInstance) -> None:
    counted: Any = Counted(instance)
    runs = UnderWay(lambda: counted)
    assert [runs.newest_of([f"advance__{number}", "retrain"]) for number in range(200)] == [None] * 200
    assert counted.queries == 1


@pytest.mark.parametrize("others", [MOST_READ - 1, MOST_READ, MOST_READ + 20])
def test_an_older_run_is_found_below_any_number_of_newer_ones(
    instance: dg.DagsterInstance, crowd: Callable[..., None], others: int
) -> None:
    run_id = add(instance, "mine", dg.DagsterRunStatus.QUEUED)
    crowd(instance, others)
    runs = UnderWay(lambda: instance)
    result = runs.newest_of(["mine"])
    assert result is not None and result.run_id == run_id
    assert runs.newest_of(["theirs"]) is None


def test_runs_are_cached_for_a_second_and_then_read_again(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_s = [0.0]
    monkeypatch.setattr(under_way.time, "monotonic", lambda: at_s[0])
    runs = UnderWay(lambda: instance)
    assert runs.newest_of(["mine"]) is None
    add(instance, "mine", dg.DagsterRunStatus.STARTED)
    assert runs.newest_of(["mine"]) is None
    at_s[0] = under_way.FRESH_S + 0.1
    assert runs.newest_of(["mine"]) is not None


def test_a_product_whose_store_is_slow_does_not_keep_the_others_waiting(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    """Each look waits for the other one, so that one after the other would never end."""
    both = threading.Barrier(2)
    specs = [replace(recorded.SPEC, name=name) for name in ("first", "second")]

    @ticks.Sensor("meets", ticks.PerProduct(msgspec.Struct))
    def meets(tick: ticks.ProductTick, state: msgspec.Struct) -> ticks.Result[msgspec.Struct]:
        both.wait(60)
        return ticks.Result(state=state, reason=f"{tick.spec.name} was looked at")

    result = meets.build(specs)(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SensorResult) and result.skip_reason is not None
    assert result.skip_reason.skip_message == "first: first was looked at\nsecond: second was looked at"
