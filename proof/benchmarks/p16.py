"""Memory of measuring and judging a key of a million labelled answers of 89 fields, under a limit of 1 GB.

The key's answers, our own features of the same million entities, their labels and a live model's reference are in the
store. A process like a run pod's materialises `performance`, another one `drift`, each in a memory cgroup with that
limit where one can be made.
"""

import os
import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data import answer_rows
from platform_assets.evaluation.releases import next_release
from platform_assets.monitoring import drift_index as index
from platform_assets.store.artifacts import canonical
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.notes import judgement, measured
from platform_assets.store.tables import PartitionRecord
from platform_assets.training.histograms import histograms
from platform_assets.training.learn import learn
from platform_assets.training.matrix import inputs_of
from proof.benchmarks.harness import Disagreement, Measure
from proof.benchmarks.limited_stage import FIELDS, KEY, SPEC
from proof.benchmarks.million_answers import ANSWERS, BUCKET, LIMIT_BYTES, MIDNIGHT, limited
from tests.doubles import s3_server

TRAINED = ("2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04")
TRAINING_ROWS = 2_000
EDGES = [0.5]
UNEQUAL = ANSWERS // 1000
"""Answers that were given on other features than ours."""
shown: list[str] = []


def run() -> list[Measure]:
    with tempfile.TemporaryDirectory() as folder, s3_server.running(Path(folder)) as server:
        os.environ.update(server.environment())
        server.make_bucket(BUCKET)
        settings = Settings(environment="cluster", root=f"s3://{BUCKET}/judged", state=Path(folder, "state"))
        product = ProductStore(SPEC, settings)
        # Seal a bundle with the inputs of drift, and make it live.
        by_key = {key: numbers(TRAINING_ROWS, seed) for seed, key in enumerate(TRAINED, start=1)}
        learned = learn(inputs_of(pl.concat(by_key.values()), SPEC.fields), SPEC.fields)
        answers = np.linspace(0.0, 1.0, TRAINING_ROWS)
        reference = index.reference_of(
            {key: histograms(rows, learned) for key, rows in by_key.items()},
            {key: SPEC.task.mix(answers, EDGES) for key in TRAINED},
            EDGES,
            SPEC.task.document(),
        )
        blobs = {"learned.json": canonical(learned.to_json()), "reference.json": canonical(reference.to_json())}
        digest = product.artifacts.write_bundle(blobs, {"cutoff": TRAINED[-1]})
        members = {"product": SPEC.name, "contract_sha256": "c" * 64, "reason": "", "author": "P16", "previous": None}
        record = next_release(digest=digest, cutoff=TRAINED[-1], at=MIDNIGHT - timedelta(days=1), **members)
        Ledgers(product.settings.root, SPEC.name).append(naming.RELEASES, record.document())
        # Store the key's features, answers, labels and sources.
        at = pl.lit(MIDNIGHT).cast(answer_rows.MOMENT) + pl.duration(microseconds=pl.col("number") * 80_000)
        about = pl.select(number=pl.int_range(ANSWERS)).select(
            entity=pl.format("job-{}", "number"), service_time=at, asked_at=at
        )
        ours = pl.concat([about, numbers(ANSWERS, 0)], how="horizontal")
        for source in ("plans", "readings"):
            _store(product, naming.stage("validated", source), _source(source), rows_in=1, rows_quarantined=0)
        _store(product, "features", ours)
        labels = ours.select("entity", label=(pl.int_range(pl.len()) % 3 == 0).cast(pl.Int8))
        _store(product, "outcomes", labels)
        answers = ours.with_columns(
            pl.format("{}", pl.int_range(pl.len())).str.zfill(32).alias("prediction_id"),
            pl.lit(digest).alias("digest"),
            pl.lit(1, dtype=pl.Int64).alias("release"),
            pl.col("asked_at").alias("answered_at_utc"),
            pl.lit(900, dtype=pl.Int64).alias("latency_us"),
            pl.lit(False).alias(answer_rows.LATE),
            ((pl.int_range(pl.len()) % 97) / 97).alias("probability"),
            pl.when(pl.int_range(pl.len()) < UNEQUAL).then(2.0).otherwise(FIELDS[0]).alias(FIELDS[0]),
        )
        _store(product, "predictions", answers.select(list(answer_rows.schema(SPEC.fields, SPEC.task))), late=0)
        assert product.tables.records("predictions", [KEY])[KEY].rows == ANSWERS
        print(f"{ANSWERS:,} answers, features and labels are in the store", flush=True)
        peaks = {stage: _peak(settings, stage) for stage in ("performance", "drift")}
        # Refuse numbers of other rows than those in the store.
        result = measured(product.tables.records("performance", [KEY])[KEY])
        judged = judgement(product.tables.records("drift", [KEY])[KEY])
        compared = result.skew
        if (result.labelled, compared.rows, compared.rows_equal) != (ANSWERS - UNEQUAL, ANSWERS, ANSWERS - UNEQUAL):
            raise Disagreement(f"measured {result}")
        if judged.index is None or judged.mix is None:
            raise Disagreement(f"not ranked: {judged}")
    return [
        Measure(f"MB, peak of the process of {stage}", peak / 1e6, target=f"<= {LIMIT_BYTES / 1e6:.0f} MB")
        for stage, peak in peaks.items()
    ]


def _peak(settings: Settings, stage: str) -> int:
    peak, cpu_s = limited(settings, stage)
    shown.append(f"{stage} of {ANSWERS:,} answers: peak {peak / 1e6:.0f} MB, {cpu_s:.0f} s of CPU")
    print(shown[-1], flush=True)
    return peak


def numbers(rows: int, seed: int) -> pl.DataFrame:
    """Return the fields of some rows; every seventh value of each is null."""
    chance = np.random.default_rng(seed)
    return pl.DataFrame({name: chance.random(rows).round(4) for name in FIELDS}).with_columns(
        pl.when(pl.int_range(pl.len()) % 7 != place % 7).then(pl.col(name)).alias(name)
        for place, name in enumerate(FIELDS)
    )


def _store(product: ProductStore, stage: str, rows: pl.DataFrame, **notes: int) -> PartitionRecord:
    return product.tables.replace(stage, {KEY: rows}, inputs={KEY: {}}, code="0", notes={KEY: notes})[KEY]


def _source(name: str) -> pl.DataFrame:
    at = pl.lit(MIDNIGHT).cast(answer_rows.MOMENT)
    if name == "plans":
        return pl.select(job_id=pl.lit("job-0"), site=pl.lit("north"), starts_utc=at, known_at_utc=at)
    return pl.select(read_at_utc=at, value=pl.lit(1, dtype=pl.Int64), known_at_utc=at)
