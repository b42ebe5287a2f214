"""A dead feed fails a check on the assets of its data: an error while its key is held, a warning once given up."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.factory import OUTSIDE
from platform_assets.automation.resources import defaults, replaced
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.data import features, outcomes, raw, validated
from platform_assets.engine.store_resource import StoreResource
from platform_assets.jobs import held_keys, intervention, verification
from platform_assets.monitoring import drift
from platform_assets.store.product_store import ProductStore
from tests.doubles import watched_batches as watched
from tests.doubles.built import built

pytestmark = pytest.mark.slow

Run = Callable[..., dg.ExecuteInProcessResult]
SPEC = watched.SPEC
BROKEN = "0006"
NOW = datetime(2024, 1, 3, tzinfo=UTC)
OF_AIR = {"raw_air", "validated_air", "features"}
OF_OTHERS = {"raw_readings", "validated_readings", "raw_verdicts", "validated_verdicts"}


@pytest.fixture
def run(settings: Settings, instance: dg.DagsterInstance) -> Run:
    shared = replaced({"store": StoreResource(variables=settings.to_environment())})
    outside = replace(OUTSIDE, resources=shared.bound)
    assets = built(SPEC, raw, validated, outcomes, features, drift, outside=outside)
    checks = held_keys.build(SPEC, shared)
    defs = dg.Definitions(assets=assets, asset_checks=checks, executor=dg.in_process_executor)
    job = defs.resolve_implicit_global_asset_job_def()

    def execute(first: str, last: str | None = None, **options: Any) -> dg.ExecuteInProcessResult:
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first}
        return job.execute_in_process(instance=instance, tags=tags, **options)

    return execute


@pytest.fixture
def broken(settings: Settings, run: Run) -> dg.ExecuteInProcessResult:
    """Run six keys, the last of which has frozen air."""
    watched.land_all(settings.root, "0001", "0010")
    watched.land(settings.root, "air", BROKEN, watched.frozen_air(BROKEN))
    return run("0001", BROKEN)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    results = [item for item in result.get_asset_check_evaluations() if item.check_name == held_keys.CHECK]
    return {item.asset_key.path[-1]: item for item in results}


@pytest.mark.costly
def test_sound_keys_pass_everywhere(settings: Settings, run: Run) -> None:
    watched.land_all(settings.root, "0001", "0004")
    results = checks(run("0001", "0004"))
    assert set(results) == OF_AIR | OF_OTHERS
    assert all(item.passed and item.description == "No key is held." for item in results.values())
    key = dg.AssetKey(naming.asset_key(SPEC.name, "raw", "air"))
    assert set(checks(run("0001", "0003", asset_selection=[key]))) <= {"raw_air"}, "of its own assets"


@pytest.mark.costly
def test_a_dead_feed_is_an_error_on_its_own_assets_and_on_features(broken: dg.ExecuteInProcessResult) -> None:
    assert broken.success, "it blocks nothing"
    results = checks(broken)
    assert {name for name, item in results.items() if not item.passed} == OF_AIR
    assert {results[name].severity for name in OF_AIR} == {dg.AssetCheckSeverity.ERROR}
    for name in OF_AIR:
        description = str(results[name].description)
        assert description.startswith("air fails frozen_columns: "), description
        assert description.endswith(f"; held: {BROKEN}"), description
        assert "temperature has 1 distinct value (usually 12 or more)" in description
        assert results[name].metadata["keys_held"].value == 1
        assert f"| {BROKEN} | held |" in str(results[name].metadata["faults"].value)


@pytest.mark.costly
def test_asset_pages_of_the_keys_data_begin_with_its_fault(broken: dg.ExecuteInProcessResult) -> None:
    observations = [event.asset_observation_data.asset_observation for event in broken.get_asset_observation_events()]
    assert {item.asset_key.path[-1] for item in observations} == OF_AIR
    assert {item.partition for item in observations} == {BROKEN}
    assert all(
        str(item.metadata["result"].value).startswith("held: air fails frozen_columns: ") for item in observations
    )
    (judged,) = [
        materialization
        for event in broken.get_asset_materialization_events()
        for materialization in [event.step_materialization_data.materialization]
        if (materialization.asset_key.path[-1], materialization.partition) == ("drift", BROKEN)
    ]
    assert next(iter(judged.metadata)) == "result"
    assert judged.metadata["result"].value == observations[0].metadata["result"].value


@pytest.mark.costly
def test_an_accepted_key_is_no_longer_held(settings: Settings, run: Run, broken: dg.ExecuteInProcessResult) -> None:
    del broken
    (verify,) = verification.build(SPEC, defaults())
    resources = {"driftline_store": StoreResource(variables=settings.to_environment())}
    failed = verify.execute_in_process(resources=resources, raise_on_error=False)
    assert not failed.success
    (failure,) = [event for event in failed.all_events if event.is_step_failure]
    description = str(failure.step_failure_data.user_failure_data.description)
    assert description.startswith("air fails frozen_columns: ")
    assert "; held: 0006." in description
    assert "`repair__watched_batches`" in description
    clock.move(settings, SPEC.name, NOW)
    intervention.settle(ProductStore(SPEC, settings), BROKEN, "accept", why="the room was that cold", by="a person")
    assert all(item.passed for item in checks(run("0007")).values())
    assert verify.execute_in_process(resources=resources).success


@pytest.mark.costly
def test_an_unsettled_key_is_a_warning(settings: Settings, run: Run, broken: dg.ExecuteInProcessResult) -> None:
    del settings, broken
    results = checks(run("0007", watched.GRAIN.shift(BROKEN, SPEC.monitors.repair_within)))
    assert {name for name, item in results.items() if not item.passed} == OF_AIR
    assert {results[name].severity for name in OF_AIR} == {dg.AssetCheckSeverity.WARN}
    description = str(results["features"].description)
    assert description.startswith("air fails frozen_columns: ")
    assert description.endswith(f"; given up and left out of training: {BROKEN}")
