"""Checks of keyed assets are recorded by key: a failed key stays failed while others are repaired."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings, SettingsProblem, checks_per_key
from platform_assets.engine.key_checks import ALL_KEYS
from platform_assets.engine.store_resource import StoreResource
from tests.doubles import numbered_batches as batches

pytestmark = pytest.mark.slow

ASSET = dg.AssetKey([batches.SPEC.name, "raw_readings"])
CHECK = "is_readable"
Go = Callable[[str, str], list[dg.AssetCheckEvaluation]]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def go(settings: Settings, instance: dg.DagsterInstance) -> Go:
    """Return a function that advances a range of keys, or one, and returns the evaluations of one asset's checks."""
    clock.move(settings, batches.SPEC.name, datetime(2024, 1, 3, tzinfo=UTC))

    def execute(first: str, last: str) -> list[dg.AssetCheckEvaluation]:
        defs = build_defs(specs=[batches.SPEC], resources={"store": StoreResource(variables=settings.to_environment())})
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        job = defs.resolve_job_def(naming.job("advance", batches.SPEC.name))
        result = job.execute_in_process(
            instance=instance, **({"partition_key": first} if first == last else {"tags": tags})
        )
        found = result.get_asset_check_evaluations()
        return [item for item in found if item.asset_key == ASSET and item.check_name in (CHECK, ALL_KEYS)]

    return execute


def states(instance: dg.DagsterInstance) -> dict[str | None, str]:
    """Return the state that Dagster's page of the check shows, by key; None is an evaluation without one."""
    infos = instance.event_log_storage.get_asset_check_partition_info([dg.AssetCheckKey(ASSET, CHECK)])
    assert all(
        info.latest_target_materialization_storage_id == info.latest_materialization_storage_id for info in infos
    )
    return {info.partition_key: info.latest_execution_status.value for info in infos}


def newest(instance: dg.DagsterInstance, name: str) -> dg.AssetCheckEvaluation:
    """Return the evaluation that the asset's badge shows."""
    key = dg.AssetCheckKey(ASSET, name)
    event = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key].event
    assert event is not None and event.dagster_event is not None
    return event.dagster_event.asset_check_evaluation_data


@pytest.mark.costly
def test_each_key_of_a_range_is_judged_with_its_own_materialisation(
    settings: Settings, instance: dg.DagsterInstance, go: Go
) -> None:
    batches.land_all(settings.root, "0001", "0004")
    batches.land(settings.root, "readings", "0002", "")
    batches.land(settings.root, "readings", "0003", "")
    evaluations = go("0001", "0004")
    assert [(item.check_name, item.partition) for item in evaluations] == [
        *((CHECK, f"000{number}") for number in range(1, 5)),
        (ALL_KEYS, None),
    ]
    assert states(instance) == {"0001": "SUCCEEDED", "0002": "FAILED", "0003": "FAILED", "0004": "SUCCEEDED"}
    of_all = newest(instance, ALL_KEYS)
    assert not of_all.passed
    assert str(of_all.description).startswith("readings of 0003 cannot be read: the file is empty")
    assert str(of_all.description).endswith("2 of 4 keys fail: 0002, 0003.")


@pytest.mark.costly
def test_a_failed_key_stays_failed_when_another_is_repaired(settings: Settings, instance: dg.DagsterInstance, go: Go):
    batches.land_all(settings.root, "0001", "0004")
    for key in ("0002", "0003"):
        batches.land(settings.root, "readings", key, "")
    go("0001", "0003")
    batches.land(settings.root, "readings", "0003", batches.readings("0003"))
    (single, of_all) = go("0003", "0003")
    assert (single.partition, single.passed) == ("0003", True)
    assert (of_all.check_name, of_all.passed, of_all.description) == (ALL_KEYS, False, "1 of 3 keys fail: 0002.")
    assert states(instance) == {"0001": "SUCCEEDED", "0002": "FAILED", "0003": "SUCCEEDED"}
    go("0004", "0004")
    assert newest(instance, CHECK).passed, "the badge shows the newest evaluation, whatever key it is of"
    assert not newest(instance, ALL_KEYS).passed
    batches.land(settings.root, "readings", "0002", batches.readings("0002"))
    go("0002", "0002")
    assert newest(instance, ALL_KEYS).description == "All of 4 keys passed."


@pytest.mark.costly
def test_turned_off_a_check_is_evaluated_once_per_run(
    settings: Settings, instance: dg.DagsterInstance, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_CHECKS_PER_KEY", "false")
    batches.land_all(settings.root, "0001", "0003")
    batches.land(settings.root, "readings", "0002", "")
    (evaluation,) = go("0001", "0003")
    assert (evaluation.check_name, evaluation.partition, evaluation.passed) == (CHECK, None, False)
    assert str(evaluation.description).startswith("readings of 0002 cannot be read: the file is empty")
    assert str(evaluation.description).endswith("1 of 3 keys fail: 0002.")


def test_the_setting_is_true_or_false() -> None:
    assert checks_per_key({})
    with pytest.raises(SettingsProblem, match=r"^DRIFTLINE_CHECKS_PER_KEY is 'no'; expected one of true, false.$"):
        checks_per_key({"DRIFTLINE_CHECKS_PER_KEY": "no"})
