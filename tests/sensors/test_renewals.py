"""Keys of an earlier version are made again before a training reads them, by runs that the real sensors request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl
import pytest

from platform_assets import naming
from platform_assets.factory import build_defs
from platform_assets.handle import Product
from platform_assets.specs import planned
from platform_assets.specs.base import ProductSpec, Tables, Window
from platform_assets.training.requests import OlderRows, training_request
from resources.store import StoreResource
from sensors import landings, retrain
from tests.doubles import empty_jobs
from tests.doubles import numbered_batches as batches

NOW = "2024-01-03T00:00:00+00:00"
CUTOFF, CLOSED = "0019", "0018"
DECIDED = "0013"
"""The cutoff whose training was decided by the old code and not carried out."""


def in_hundreds(tables: Tables, window: Window) -> pl.DataFrame:
    """Build the features with readings in another unit."""
    return batches.features(tables, window).with_columns(pl.col("reading", "recent_mean") * 100)


CHANGED = replace(batches.SPEC, features=in_hundreds)


def advance(world: Any, spec: ProductSpec, first: str, last: str) -> None:
    """Run the real job over a range of keys."""
    world.move(NOW)
    resources = {"store": StoreResource(variables=world.settings.to_environment())}
    job = build_defs(specs=[spec], resources=resources).resolve_job_def(naming.job("advance", spec.name))
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    assert job.execute_in_process(tags=tags, instance=world.instance).success


@pytest.fixture
def mixed(world: Any) -> Any:
    """Twelve keys of the old unit and six of the new, and a decision to train."""
    world.spec = CHANGED
    batches.land_all(world.settings.root, "0001", CLOSED)
    advance(world, batches.SPEC, "0001", "0012")
    advance(world, CHANGED, "0013", CLOSED)
    return world


def sensors(spec: ProductSpec) -> tuple[dg.SensorDefinition, dg.SensorDefinition]:
    return (
        landings.watch.build([spec], empty_jobs.of("advance", [spec])),
        retrain.watch.build([spec], empty_jobs.of("retrain", [spec])),
    )


def product(world: Any) -> Product:
    return Product(world.spec, world.settings)


def test_a_training_refuses_rows_of_two_versions_and_says_which(mixed: Any) -> None:
    with pytest.raises(OlderRows) as refused:
        training_request(product(mixed), CUTOFF)
    text = str(refused.value)
    assert "12 of 16 keys (0001 to 0012) were made by an earlier version" in text
    assert "features of 12 keys" in text
    assert "rebuild__numbered_batches" in text and "USD" in text


def test_older_keys_are_made_again_newest_first_and_then_trained(mixed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned, "MOST_EVENTS", planned.per_run(CHANGED) + 5 * planned.per_key(CHANGED))
    landing, training = sensors(CHANGED)
    assert f"{DECIDED}: waits until renewal 1 has made 10 older keys again" in mixed.reason(training)
    ranges = []
    while (result := mixed.tick(landing)).run_requests:
        [request] = result.run_requests
        first, last = (request.tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end"))
        ranges.append((first, last))
        assert not mixed.tick(training).run_requests, "the training waits"
        advance(mixed, CHANGED, first, last)
        mixed.run(request, dg.DagsterRunStatus.SUCCESS)
    assert ranges == [("0006", "0010"), ("0001", "0005")]
    rows = mixed.tables.read("features", ["0001", CLOSED])
    assert rows["reading"].to_list() == [100 * (10.0 * batch + s) for batch in (1, 18) for s in range(batches.SENSORS)]
    request = mixed.request(training)
    assert request.tags["dagster/partition"] == DECIDED
    assert len(training_request(product(mixed), DECIDED).training_keys) == 8


def test_a_new_key_is_closed_before_older_ones_are_made_again(mixed: Any) -> None:
    landing, training = sensors(CHANGED)
    mixed.reason(training)
    batches.land_all(mixed.settings.root, "0019", "0019")
    request = mixed.request(landing)
    assert (
        request.tags["dagster/asset_partition_range_start"]
        == request.tags["dagster/asset_partition_range_end"]
        == "0019"
    )


def test_above_its_price_a_renewal_waits_for_a_person_who_is_told_the_command(mixed: Any) -> None:
    mixed.spec = replace(CHANGED, retraining=replace(CHANGED.retraining, rebuild_usd=0.0))
    landing, training = sensors(mixed.spec)
    for _ in range(2):
        assert "waits for a person: 10 of 10 keys (0001 to 0010) were made by an earlier version" in mixed.reason(
            training
        )
        assert not mixed.tick(landing).run_requests
    [alert] = [alert for alert in mixed.alerts() if alert["kind"] == "older_rows"]
    assert "rebuild__numbered_batches" in alert["text"] and "Retraining.rebuild_usd" in alert["text"]
