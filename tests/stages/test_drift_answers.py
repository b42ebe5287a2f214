"""The mix of answers consists of the answers that count: neither a flood nor other features change it."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import msgspec
import numpy as np
import polars as pl
import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data import answer_rows, features, outcomes, raw, stage_inputs, validated
from platform_assets.data import rows as compute_rows
from platform_assets.evaluation.releases import next_release
from platform_assets.monitoring import drift
from platform_assets.monitoring import drift_index as index
from platform_assets.monitoring.drift_maker import Judging
from platform_assets.store.artifacts import ArtifactStore, canonical
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.faults import Indexed
from platform_assets.store.tables import TableStore
from platform_assets.training.histograms import histograms
from platform_assets.training.learn import learn
from platform_assets.training.matrix import inputs_of
from platform_assets.training.reference import MIX, Reference, reference_of
from tests.doubles import watched_batches as watched
from tests.doubles.built import running

pytestmark = pytest.mark.slow

Run = Callable[..., dg.ExecuteInProcessResult]
SPEC, TASK = watched.SPEC, watched.SPEC.task
TRAINED = watched.GRAIN.span("0001", "0012")
EDGES = [0.5]
ROWS = watched.SENSORS


@pytest.fixture
def tables(settings: Settings) -> TableStore:
    return TableStore(settings.root, SPEC.name)


@pytest.fixture
def run(settings: Settings, instance: dg.DagsterInstance) -> Run:
    return running(settings, instance, SPEC, raw, validated, outcomes, features, drift)


def answers_of(key: str) -> np.ndarray:
    return np.random.default_rng([7, int(key)]).uniform(size=ROWS)


def release(settings: Settings, tables: TableStore) -> tuple[str, Reference]:
    """Seal a bundle with the inputs of drift, including answers, and make it live."""
    rows = tables.read("features", TRAINED)
    learned = learn(inputs_of(rows, SPEC.fields), SPEC.fields)
    reference = reference_of(
        {key: histograms(rows.filter(pl.col("key") == key), learned) for key in TRAINED},
        {key: TASK.mix(answers_of(key), EDGES) for key in TRAINED},
        EDGES,
        TASK.document(),
    )
    blobs = {"learned.json": canonical(learned.to_json()), "reference.json": canonical(reference.to_json())}
    digest = ArtifactStore(settings.root).write_bundle(blobs, {"cutoff": TRAINED[-1]})
    release = {"product": SPEC.name, "contract_sha256": "c" * 64, "reason": "", "author": "a test", "previous": None}
    at = watched.moment(TRAINED[-1])
    Ledgers(settings.root, SPEC.name).append(
        naming.RELEASES, next_release(digest=digest, cutoff=TRAINED[-1], at=at, **release).document()
    )
    return digest, reference


def answered(tables: TableStore, key: str, digest: str, *further: pl.DataFrame, shift: float = 0.0) -> pl.DataFrame:
    """Store the answers to every row of a key's features, and `further` ones; return the former."""
    features = tables.read("features", [key]).drop("key")
    features = features.with_columns(
        pl.concat_str(pl.lit(f"{key}-"), "entity").alias("prediction_id"),
        pl.lit(digest).alias("digest"),
        pl.lit(1, dtype=pl.Int64).alias("release"),
        pl.col("asked_at").alias("answered_at_utc"),
        pl.lit(1, dtype=pl.Int64).alias("latency_us"),
        pl.lit(False).alias(answer_rows.LATE),
        pl.Series("probability", answers_of(key)),
        pl.col("reading") + shift,
    ).select(list(answer_rows.schema(SPEC.fields, TASK)))
    rows = pl.concat([features, *further])
    notes = {key: {"late": int(rows[answer_rows.LATE].sum())}}
    tables.replace("predictions", {key: rows}, inputs={key: {}}, code="0", notes=notes)
    return features


def flood(features: pl.DataFrame, times: int, **changes: Any) -> pl.DataFrame:
    """Return the first answer many times, always sure, with these changes."""
    return pl.concat([features.head(1)] * times).with_columns(
        pl.concat_str(pl.lit("flood-"), pl.int_range(pl.len())).alias("prediction_id"),
        pl.lit(0.999).alias("probability"),
        pl.col("answered_at_utc") + pl.duration(seconds=1),
        **{name: pl.lit(value) for name, value in changes.items()},
    )


@pytest.mark.costly
def test_a_flood_does_not_change_the_mix_of_answers(settings: Settings, tables: TableStore, run: Run) -> None:
    watched.land_all(settings.root, TRAINED[0], "0014")
    run(TRAINED[0], TRAINED[-1])
    digest, reference = release(settings, tables)
    mix = reference.mix
    assert mix is not None
    run("0013", "0014")
    assert tables.records("drift")["0014"].notes["mix"] is None, "nothing was answered"
    late, altered = {answer_rows.LATE: True}, {"reading": 77.0, "entity": "s1"}
    for key in ("0013", "0014"):
        features = answered(tables, key, digest)
        answered(
            tables,
            key,
            digest,
            flood(features, 500),
            flood(features, 400, **late).with_columns(
                pl.concat_str(pl.lit("late-"), "prediction_id").alias("prediction_id")
            ),
        )
        watched.land(settings.root, "verdicts", key)
    run("0013", "0014")
    window = {key: {MIX: TASK.mix(answers_of(key), EDGES)} for key in ("0013", "0014")}
    limits = {"limit": SPEC.monitors.drift_limit, "margin": SPEC.monitors.margin}
    expected = index.index(window, mix, is_floored=True, **limits)
    assert (
        tables.records("drift")["0014"].notes["mix"]
        == msgspec.convert(expected, Indexed, from_attributes=True).document()
    )
    features = answered(tables, "0014", digest)
    answered(tables, "0014", digest, flood(features, 500, **altered))
    again = watched.frame("verdicts", "0014").with_columns(~pl.col("is_broken"))
    watched.land(settings.root, "verdicts", "0014", again)
    run("0014")
    assert tables.records("drift")["0014"].notes["mix"] is None, "1 of 30 entities is below the limit of 99 %"


@pytest.mark.costly
def test_a_key_served_with_other_features_is_left_out_of_the_mix(settings: Settings, tables: TableStore, run: Run):
    watched.land_all(settings.root, TRAINED[0], "0015")
    run(TRAINED[0], TRAINED[-1])
    digest, _ = release(settings, tables)
    run("0013", "0015")
    for key in ("0013", "0014", "0015"):
        answered(tables, key, digest, shift=3.0 if key == "0014" else 0.0)
        watched.land(settings.root, "verdicts", key)
    run("0013", "0015")
    notes = {key: record.notes for key, record in tables.records("drift").items()}
    assert notes["0014"]["mix"] is None
    assert notes["0015"]["mix"]["keys"] == ["0013", "0015"]
    assert notes["0014"]["index"] is not None, "our own features are judged nevertheless"


@pytest.mark.costly
def test_a_key_too_large_to_hold_is_judged_as_any_other(
    settings: Settings, tables: TableStore, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.land_all(settings.root, TRAINED[0], "0014")
    run(TRAINED[0], TRAINED[-1])
    digest, _ = release(settings, tables)
    run("0013", "0014")
    for key in ("0013", "0014"):
        answered(tables, key, digest, flood(answered(tables, key, digest), 50))
    maker, product = Judging.for_product(SPEC), ProductStore(SPEC, settings)

    def judged() -> tuple[object, ...]:
        output = maker.make(maker.judge(product, ("0013", "0014")), ("0013", "0014"))
        notes = output.notes["0014"]
        assert notes["mix"] is not None and notes["index"] is not None
        return notes["mix"], notes["index"], notes["sketch"], output.frames["0014"].rows()

    in_memory = judged()
    monkeypatch.setattr(stage_inputs, "MOST_CELLS", 0)
    monkeypatch.setattr(compute_rows, "CELLS_AT_ONCE", ROWS)
    assert judged() == in_memory
