"""Releases without a run appear in the UI once; a changed contract raises one alert."""

from typing import Any

import dagster as dg
import pytest

from platform_assets.evaluation.releases import RELEASED, ROLLED_BACK
from platform_assets.sensors import releases
from platform_assets.serving.shown_releases import plan
from platform_assets.store.records.releases import RELEASES, Release
from tests.doubles import documents, recorded

pytestmark = pytest.mark.slow

KEY = dg.AssetKey(["recorded", "release"])
SENSOR = releases.watch.build([recorded.SPEC])


def record(outcome: str = RELEASED, contract: str = "c" * 64) -> Release:
    return RELEASES.read(documents.release(outcome=outcome, contract_sha256=contract), "a place")


@pytest.mark.parametrize(
    ("in_ui", "busy", "outcome", "is_settled", "is_reported"),
    [
        ({2}, None, RELEASED, True, False),
        (set(), "r1", RELEASED, False, False),
        (set(), "r1", ROLLED_BACK, True, True),
        (set(), None, RELEASED, True, True),
        (set(), None, ROLLED_BACK, True, True),
        ({2}, None, ROLLED_BACK, True, False),
    ],
)
def test_a_release_without_a_run_is_reported(
    in_ui: set[int], busy: str | None, outcome: str, is_settled: bool, is_reported: bool
) -> None:
    result = plan(2, record(outcome), record(), in_ui=in_ui, busy=busy)
    assert (result.is_settled, result.is_reported, result.needs_new_bento) == (is_settled, is_reported, False)
    assert "release 2" in result.reason


def test_another_contract_needs_a_new_bento_but_the_first_release_does_not() -> None:
    assert plan(2, record(contract="e" * 64), record(), in_ui={2}, busy=None).needs_new_bento
    assert not plan(1, record(contract="e" * 64), None, in_ui={1}, busy=None).needs_new_bento


def shown_releases(instance: dg.DagsterInstance) -> list[Any]:
    result = instance.fetch_materializations(KEY, limit=50).records
    return [item.asset_materialization.metadata["release"].value for item in result if item.asset_materialization]


def test_a_rollback_appears_in_the_ui_once(world: Any) -> None:
    assert "no release yet" in world.reason(SENSOR)
    world.ledgers.of(RELEASES).append(record())
    materialisation = dg.AssetMaterialization(KEY, metadata={"release": 1})
    world.instance.report_runless_asset_event(materialisation)
    assert "release 1 is live" in world.reason(SENSOR)
    world.ledgers.of(RELEASES).append(record(ROLLED_BACK))
    assert "release 2 was not made by a run (somebody): event added" in world.reason(SENSOR)
    assert shown_releases(world.instance) == [2, 1]
    world.reason(SENSOR)
    world.cursors.clear()
    world.reason(SENSOR)
    assert shown_releases(world.instance) == [2, 1]
    assert world.alerts() == []


def test_another_contract_raises_one_alert(world: Any) -> None:
    world.move("2020-01-08T00:00:00+00:00")
    for contract in ("c" * 64, "e" * 64):
        world.ledgers.of(RELEASES).append(record(contract=contract))
    world.reason(SENSOR)
    world.cursors.clear()
    world.reason(SENSOR)
    (alert,) = world.alerts()
    assert (alert["kind"], alert["id"]) == ("release", "contract-2")
    assert "until a new Bento is rolled out" in alert["text"]
