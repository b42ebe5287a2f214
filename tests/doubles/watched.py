"""A store after a few replayed keys, for any product: written directly, so that it takes a second.

The first key is the cutoff of the only release; the third has a fault, which was nulled later; the last has no labels.
"""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from msgspec.structs import replace

from platform_assets.base import clock, naming
from platform_assets.base.keys import BatchGrain
from platform_assets.base.settings import Settings
from platform_assets.evaluation import releases
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.monitoring import measured
from platform_assets.product.spec import Product
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import TableStore
from tests.doubles import documents

ROWS = 40
ARRIVED, EXPECTED = '0 <rows> & "nothing"', "about 1,000 rows"
QUALITY = {"auc": 0.76, "log_loss": 0.46, "brier": 0.15, "ece": 0.02}
FINGERPRINT = "f" * 64


@dataclass(frozen=True)
class Kept:
    """What was written for a product's keys in this process; its folder goes with it."""

    spec: Product
    keys: tuple[str, ...]
    folder: TemporaryDirectory[str]
    settings: Settings
    digest: str


_kept: list[Kept] = []


def write(settings: Settings, spec: Product, keys: tuple[str, ...]) -> str:
    """Write everything for at least four keys, and return the model's digest.

    A process writes it once and copies it from then on: nothing of it names its folder.
    """
    kept = next((item for item in _kept if item.spec is spec and item.keys == keys), None)
    if kept is None:
        folder = TemporaryDirectory()
        own = Settings(root=f"{folder.name}/store", state=Path(folder.name, "state"))
        kept = Kept(spec, keys, folder, own, write_records(own, spec, keys))
        clock.move(own, spec.name, _moment(spec, keys[-1]) + timedelta(days=1))
        _kept.append(kept)
    shutil.copytree(kept.settings.root, settings.root, dirs_exist_ok=True)
    shutil.copytree(kept.settings.state, settings.state, dirs_exist_ok=True)
    return kept.digest


def write_records(settings: Settings, spec: Product, keys: tuple[str, ...]) -> str:
    """Write the same in place, of batches too, and without the clock of a recording."""
    assert len(keys) >= 4
    grain = spec.grain
    tables, ledgers = TableStore(settings.root, spec.name), Ledgers(settings.root, spec.name)
    with_lookback = grain.with_lookback(keys, max(spec.lookback, 6))
    artifacts = ArtifactStore(settings.root)
    for source in spec.sources:
        source_keys = (naming.UNPARTITIONED,) if source.is_slow else with_lookback
        raw = {key: pl.DataFrame({"row": [f"{source.name} {key}"] * 3}) for key in source_keys}
        notes = {
            key: {
                "uri": f"landing/{source.name}/{key}.csv",
                "sha256": artifacts.put(f"{source.name} {key}".encode()),
                "bytes": 9,
                "arrived_at_utc": "2026-01-01T00:00:00+00:00",
            }
            for key in source_keys
        }
        _put(tables, naming.stage("raw", source.name), raw, notes)
        _put(tables, naming.stage("validated", source.name), {key: frame.head(2) for key, frame in raw.items()})
        reason = f"is not a <{source.name}>"
        reasons = {key: pl.DataFrame({"reason": [reason]}) for key in source_keys}
        counts = {"rows_in": 3, "rows_quarantined": 1, "rows_repeated": 0, "quarantined_by_kind": {reason: 1}}
        _put(tables, naming.stage("quarantine", source.name), reasons, dict.fromkeys(source_keys, counts))
    for stage in ("features", "outcomes"):
        _put(tables, stage, {key: pl.DataFrame({"row": [f"{stage} {key}"]}) for key in with_lookback}, cpu_s=0.5)
    digest = _train(settings, spec, tables, ledgers, cutoff=keys[0], trained=with_lookback[: -len(keys)])
    stream = np.random.default_rng(0)
    predictions, joined = {}, {}
    for key in keys:
        probability = stream.uniform(0.05, 0.95, ROWS)
        label = (stream.random(ROWS) < probability).astype(np.int8)
        moment = _moment(spec, key)
        predictions[key] = pl.DataFrame(
            {
                "prediction_id": [prediction_id(key, row) for row in range(ROWS)],
                "digest": digest,
                "release": 1,
                "entity": [f"{key} thing {row}" for row in range(ROWS)],
                "service_time": [moment + timedelta(hours=2)] * ROWS,
                "asked_at": [moment] * ROWS,
                "probability": probability,
                "answered_at_utc": [datetime(2026, 1, 1, tzinfo=UTC)] * ROWS,
                "latency_us": 900,
            },
            schema_overrides={"release": pl.Int64, "latency_us": pl.Int64},
        )
        labels = pl.Series("label", [None] * ROWS if key == keys[-1] else label.tolist(), dtype=pl.Int8)
        joined[key] = predictions[key].select("prediction_id", "entity", "digest", "probability").with_columns(labels)
    _put(tables, "predictions", predictions)
    notes = {}
    for index, key in enumerate(keys):
        window = {earlier: joined[earlier] for earlier in keys[: min(index + 1, len(keys) - 1)]}
        window_result = measured.window(window, digest, measures_of(spec.task), confidence=0.95)
        assert window_result is not None
        notes[key] = replace(measured.measure(joined[key], measures_of(spec.task)), window=window_result).document()
    _put(tables, "performance", joined, notes)
    _judge(spec, tables, ledgers, keys, digest)
    return digest


def _moment(spec: Product, key: str) -> datetime:
    """Return when a key begins; batches come once a day."""
    if isinstance(spec.grain, BatchGrain):
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=spec.grain.index(key))
    return spec.grain.instant(key)


def prediction_id(key: str, row: int = 0) -> str:
    return f"{key}-{row:04d}"


def _train(
    settings: Settings,
    spec: Product,
    tables: TableStore,
    ledgers: Ledgers,
    *,
    cutoff: str,
    trained: tuple[str, ...],
) -> str:
    data = {
        stage: {key: record.content_digest for key, record in tables.records(stage, trained).items()}
        for stage in ("features", "outcomes")
    }
    facts = {
        "product": spec.name,
        "cutoff": cutoff,
        "contract_sha256": "c" * 64,
        "known_before": _moment(spec, cutoff).isoformat(),
        "training_keys": list(trained[:-2]),
        "holdout_keys": list(trained[-2:]),
        "data": data,
    }
    digest = ArtifactStore(settings.root).write_bundle({"weights": b"weights"}, facts)
    tables.record(
        "checkpoint", cutoff, content_digest="w", inputs={"fingerprint": FINGERPRINT}, code="0", notes={"cpu_s": 12.0}
    )
    for stage in ("onnx", "evaluation", "service"):
        tables.record(stage, cutoff, content_digest=digest, inputs={}, code="0", notes={"cpu_s": 1.0})
    for fingerprint, reason in ((FINGERPRINT, "preempted"), (FINGERPRINT, "finished"), ("0" * 64, "finished")):
        ledgers.append(
            naming.ATTEMPTS,
            {
                "fingerprint": fingerprint,
                "cutoff": cutoff,
                "reason": reason,
                "profile": "cpu_small",
                "usd_per_hour": 0.08,
                "wall_s": 90.0,
                "cpu_s": 60.0,
                "host": "here",
                "resumed_from_step": 0,
                "started_at_utc": "2026-01-01T00:00:00+00:00",
            },
        )
    verdict = documents.verdict(
        digest,
        reasons=["Beats every baseline."],
        rows={"labelled": 1_234, "first_key": trained[-2], "last_key": trained[-1]},
        models={"challenger": QUALITY, "baseline constant": QUALITY | {"auc": 0.5}},
    )
    ledgers.create(naming.VERDICTS, digest, verdict)
    at = _moment(spec, cutoff)
    ledgers.append(
        naming.RELEASES,
        releases.next_release(
            product=spec.name,
            digest=digest,
            contract_sha256="c" * 64,
            cutoff=cutoff,
            reason="passed its evaluation",
            author="retrain",
            at=at,
            previous=None,
        ).document(),
    )
    return digest


def _judge(spec: Product, tables: TableStore, ledgers: Ledgers, keys: tuple[str, ...], digest: str) -> None:
    source = spec.feature_sources[0].name
    faulty = keys[2]
    primary = {"source": source, "check": "volume", "column": None, "came": ARRIVED, "expected": EXPECTED}
    checks = pl.DataFrame({"check": ["volume"]})
    for number, key in enumerate(keys):
        is_faulty = key == faulty
        numbers = {"mean_psi": 0.01, "limit": 0.02, "percentile": 0.1 * number}
        index = None if is_faulty else {**numbers, "windows": 9, "keys": [key]}
        drift: dict[str, Any] = {
            "verdict": "alert_fault" if is_faulty else "fine",
            "is_faulty": is_faulty,
            "primary": primary if is_faulty else None,
            "index": index,
            "reference": digest,
        }
        _put(tables, "drift", {key: checks}, {key: drift})
        at = (_moment(spec, key) + timedelta(days=1)).isoformat()
        reasons = [f"{source} of {key} is faulty (volume)."] if is_faulty else ["no reason to train."]
        decision = documents.decision(
            key,
            "alert_fault" if is_faulty else "wait",
            product=spec.name,
            cutoff=spec.grain.shift(key, 1),
            reasons=reasons,
            at_utc=at,
        )
        ledgers.create(naming.DECISIONS, key, decision)
        tables.record("decision", key, content_digest="d", inputs={}, code="0", notes={"action": decision["action"]})
        if is_faulty:
            signed = {"product": spec.name, "by": "drift", "at_utc": at}
            fault = documents.fault("fault", key, **primary, **signed, why="volume")
            ledgers.append(f"{naming.FAULTS}/{key}", fault)
    reason = f"nobody reacted within 3 keys: {source} is left out and the rows stay."
    at = (_moment(spec, keys[-1]) + timedelta(days=1)).isoformat()
    signed = {"product": spec.name, "by": "drift", "at_utc": at}
    ledgers.append(f"{naming.FAULTS}/{faulty}", documents.fault("null", faulty, source, why=reason, **signed))


def _put(
    tables: TableStore,
    stage: str,
    frames: dict[str, pl.DataFrame],
    notes: dict[str, dict[str, Any]] | None = None,
    *,
    cpu_s: float = 0.25,
) -> None:
    all_notes = {key: {**(notes or {}).get(key, {}), "cpu_s": cpu_s} for key in frames}
    tables.replace(stage, frames, inputs={key: {} for key in frames}, code="0", notes=all_notes)
