"""Keys of an earlier version are made again before a training reads them, by runs that the real sensors request."""

import shutil
from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl
import pytest

from platform_assets import check
from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.jobs.intervention import request_rebuild
from platform_assets.launch import renewals
from platform_assets.launch.profiles import profile
from platform_assets.operations import status
from platform_assets.product import planned
from platform_assets.product.spec import Product, Tables, Window
from platform_assets.sensors import landings, retrain
from platform_assets.store.product_store import ProductStore
from platform_assets.training import versions
from platform_assets.training.requests import OlderRows, training_request
from tests.automation.conftest import World
from tests.doubles import empty_jobs, instances
from tests.doubles import numbered_batches as batches

pytestmark = pytest.mark.slow

NOW = "2024-01-03T00:00:00+00:00"
CUTOFF, CLOSED = "0019", "0018"
DECIDED = "0013"
"""The cutoff whose training was decided by the old code and not carried out."""


def in_hundreds(tables: Tables, window: Window) -> pl.DataFrame:
    """Build the features with readings in another unit."""
    return batches.features(tables, window).with_columns(pl.col("reading", "recent_mean") * 100)


def in_thousands(tables: Tables, window: Window) -> pl.DataFrame:
    """Build the features with readings in a third unit."""
    return batches.features(tables, window).with_columns(pl.col("reading", "recent_mean") * 1000)


def inverted(verdicts: pl.DataFrame) -> pl.DataFrame:
    """Label what is sound."""
    return batches.label(verdicts).with_columns(1 - pl.col("label"))


def wider() -> Any:
    import pandera.polars as pa

    return batches.readings_schema().add_columns({"extra": pa.Column(pl.Float64, nullable=True)})


CHANGED = replace(batches.SPEC, features=in_hundreds)


def advance(world: World, spec: Product, first: str, last: str) -> None:
    """Run the real job over a range of keys."""
    world.move(NOW)
    resources = {"store": StoreResource(variables=world.settings.to_environment())}
    job = build_defs(specs=[spec], resources=resources).resolve_job_def(naming.job("advance", spec.name))
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    assert job.execute_in_process(tags=tags, instance=world.instance).success


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Twelve keys of the old unit and six of the new, made once."""
    folder = tmp_path_factory.mktemp("mixed")
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    batches.land_all(settings.root, "0001", CLOSED)
    with instances.forgetful() as instance:
        for spec, first, last in ((batches.SPEC, "0001", "0012"), (CHANGED, "0013", CLOSED)):
            advance(World(settings, instance, spec), spec, first, last)
    return settings


@pytest.fixture
def mixed(world: World, stored: Settings) -> World:
    """Return the stored keys, and a decision to train."""
    shutil.copytree(stored.root, world.settings.root, dirs_exist_ok=True)
    world.spec = CHANGED
    world.move(NOW)
    return world


def sensors(spec: Product) -> tuple[dg.SensorDefinition, dg.SensorDefinition]:
    return (
        landings.watch.build([spec], empty_jobs.of("advance", [spec])),
        retrain.watch.build([spec], empty_jobs.of("retrain", [spec])),
    )


def product(world: World) -> ProductStore:
    return ProductStore(world.spec, world.settings)


@pytest.mark.costly
def test_a_training_refuses_rows_of_two_versions_and_says_which(mixed: World) -> None:
    with pytest.raises(OlderRows) as refused:
        training_request(product(mixed), CUTOFF, profile("cpu_small"))
    text = str(refused.value)
    assert "12 of 16 keys (0001 to 0012) were made by an earlier version" in text
    assert "features of 12 keys" in text
    assert "rebuild__numbered_batches" in text and "CPU seconds" in text


@pytest.mark.costly
def test_older_keys_are_made_again_newest_first_and_then_trained(mixed: World, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert len(training_request(product(mixed), DECIDED, profile("cpu_small")).training_keys) == 8


def test_a_new_key_is_closed_before_older_ones_are_made_again(mixed: World) -> None:
    landing, training = sensors(CHANGED)
    mixed.reason(training)
    batches.land_all(mixed.settings.root, "0019", "0019")
    request = mixed.request(landing)
    assert (
        request.tags["dagster/asset_partition_range_start"]
        == request.tags["dagster/asset_partition_range_end"]
        == "0019"
    )


def test_above_its_price_a_renewal_waits_for_a_person_who_is_told_the_command(mixed: World) -> None:
    mixed.spec = replace(CHANGED, retraining=replace(CHANGED.retraining, rebuild_usd=0.0))
    landing, training = sensors(mixed.spec)
    for _ in range(2):
        assert "waits for a person: 10 of 10 keys (0001 to 0010) were made by an earlier version" in mixed.reason(
            training
        )
        assert not mixed.tick(landing).run_requests
    [alert] = [alert for alert in mixed.alerts() if alert["kind"] == "older_rows"]
    assert "rebuild__numbered_batches" in alert["text"] and "Retraining.rebuild_usd" in alert["text"]


@pytest.mark.costly
def test_status_and_check_say_how_many_keys_are_older_since_when_and_what_follows(mixed: World) -> None:
    state = status.of_product(product(mixed))
    assert state.older is not None
    assert (state.older.keys, state.older.among, state.older.first, state.older.last) == (12, 18, "0001", "0012")
    assert state.older.stages == {"features": 12}
    assert state.older.since_utc is not None and state.older.usd > 0 and state.older.renewal is None
    text = status.as_text(state)
    assert "older      12 of 18 keys of the next training, 0001 to 0012, were made by an earlier version" in text
    assert "the next training has them made again first; making them again takes about" in text
    lines = {line.check: line for line in check.of_product(mixed.spec, mixed.settings)}
    assert lines["versions"].state == "note"
    assert "12 of 18 keys (0001 to 0012)" in lines["versions"].message


def test_a_person_has_older_keys_made_again(mixed: World) -> None:
    mixed.spec = replace(CHANGED, retraining=replace(CHANGED.retraining, rebuild_usd=0.0))
    landing, training = sensors(mixed.spec)
    assert "waits for a person" in mixed.reason(training)
    message = request_rebuild(product(mixed), "older", why="the unit was wrong", by="ada")
    assert message.startswith("Renewal 1: 12 of 18 keys")
    assert mixed.ended() == []
    assert "waits until renewal 1 has made" in mixed.reason(training)
    assert mixed.ended() == [alert["id"] for alert in mixed.alerts() if alert["kind"] == "older_rows"]
    request = mixed.request(landing)
    assert request.tags["dagster/asset_partition_range_end"] == "0012"
    assert status.of_product(product(mixed)).todo == []


def test_versions_that_a_person_declares_compatible_train_together(mixed: World) -> None:
    message = request_rebuild(product(mixed), "compatible", why="only a name changed", by="ada")
    assert message.startswith("These versions train together now: ") and "of features" in message
    assert versions.of_next_training(product(mixed)) is None
    _, training = sensors(CHANGED)
    assert mixed.request(training).tags["dagster/partition"] == DECIDED
    with pytest.raises(dg.Failure, match="are of the present version"):
        request_rebuild(product(mixed), "older", why="again", by="ada")


def test_a_changed_product_ends_a_renewal_that_was_allowed_for_another(mixed: World) -> None:
    _, training = sensors(CHANGED)
    mixed.reason(training)
    mixed.spec = replace(CHANGED, features=in_thousands)
    assert not mixed.tick(landings.watch.build([mixed.spec], empty_jobs.of("advance", [mixed.spec]))).run_requests
    again = retrain.watch.build([mixed.spec], empty_jobs.of("retrain", [mixed.spec]))
    assert "waits until renewal 2 has made 10 older keys again" in mixed.reason(again)


@pytest.mark.costly
def test_a_column_that_is_added_stops_no_key_and_makes_the_earlier_ones_older(world: World) -> None:
    sources = [replace(item, schema=wider) if item.name == "readings" else item for item in batches.SPEC.sources]
    world.spec = replace(batches.SPEC, sources=tuple(sources))
    batches.land_all(world.settings.root, "0001", "0005")
    advance(world, batches.SPEC, "0001", "0004")
    rows = batches.readings("0005").replace("known_at_utc\n", "known_at_utc,extra\n").replace("Z\n", "Z,1.5\n")
    batches.land(world.settings.root, "readings", "0005", rows)
    advance(world, world.spec, "0005", "0005")
    older = versions.of_next_training(product(world))
    assert older is not None
    assert older.keys == ("0001", "0002", "0003", "0004", "0005"), "the newest looks back on two of them"
    assert set(older.stages) == {"raw_readings", "validated_readings"}
    assert versions.reach(world.spec, older) == world.spec.lookback


@pytest.mark.costly
def test_a_slow_table_read_in_another_way_makes_keys_older_and_a_new_snapshot_does_not(world: World) -> None:
    world.spec = batches.SPEC
    batches.land_all(world.settings.root, "0001", "0006")
    advance(world, world.spec, "0001", "0004")
    batches.land(world.settings.root, "catalogue", naming.UNPARTITIONED, batches.catalogue() + "s9,9\n")
    advance(world, world.spec, "0005", "0005")
    assert versions.of_next_training(product(world)) is None
    sources = [replace(item, schema_version=2) if item.is_slow else item for item in batches.SPEC.sources]
    world.spec = replace(batches.SPEC, sources=tuple(sources))
    advance(world, world.spec, "0006", "0006")
    older = versions.of_next_training(product(world))
    assert older is not None
    assert (older.keys, dict(older.stages)) == (world.spec.grain.span("0001", "0005"), {"validated_catalogue": 5})
    advance(world, world.spec, "0001", "0006")
    assert versions.of_next_training(product(world)) is None


@pytest.mark.costly
def test_another_label_makes_the_keys_with_labels_older(world: World) -> None:
    world.spec = replace(batches.SPEC, label=inverted)
    batches.land_all(world.settings.root, "0001", "0005")
    advance(world, batches.SPEC, "0001", "0005")
    older = versions.of_next_training(product(world))
    assert older is not None
    assert (older.keys, dict(older.stages)) == (("0001", "0002", "0003"), {"outcomes": 3})


@pytest.mark.parametrize(
    ("reach", "most", "ranges"),
    [
        (0, 4, [("0011", "0014", 4, 6), ("0007", "0010", 4, 2), ("0005", "0006", 2, 0)]),
        (2, 6, [("0009", "0014", 4, 6), ("0005", "0010", 4, 2), ("0003", "0006", 2, 0)]),
        (6, 4, [("0002", "0014", 7, 3), ("0001", "0007", 3, 0)]),
    ],
)
def test_runs_go_from_the_newest_older_keys_to_the_oldest_with_what_they_look_back_on(
    reach: int, most: int, ranges: list[tuple[str, str, int, int]]
) -> None:
    older, found = list(CHANGED.grain.span("0005", "0014")), []
    while older:
        chunk = renewals.chunk_of(CHANGED, older, reach=reach, most=most, version="v")
        found.append((chunk.first, chunk.last, chunk.keys, chunk.keys_left))
        older = older[: -chunk.keys]
    assert found == ranges
