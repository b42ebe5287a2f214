"""Trace an answer back to the model that gave it, its verdict, its training, the rows that it read, and their files.

An answer's id does not contain its key, so the key is searched among the newest `MOST_KEYS` keys with answers, the
newest first, `KEYS_PER_READ` at a time, in one column; the key of an older answer must be named.
"""

from __future__ import annotations

from msgspec.structs import asdict

from platform_assets.base import naming
from platform_assets.base.problems import Problem
from platform_assets.base.wording import counted
from platform_assets.data import unlabelled
from platform_assets.operations.trace import answer as about
from platform_assets.operations.trace import lineage
from platform_assets.operations.trace.text import as_text
from platform_assets.store.artifacts import Bundle
from platform_assets.store.history import snapshots
from platform_assets.store.history.attempts import frame
from platform_assets.store.history.reader import History
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.attempts import BACKTEST, TRIAL, unique_attempts
from platform_assets.store.records.notes import Raw
from platform_assets.store.tables import PartitionRecord, TableStore

__all__ = ["UnknownPrediction", "as_text", "of_prediction"]

MOST_KEYS = 366
KEYS_PER_READ = 31
MOST_OVERSPENDINGS = 50
OF_AN_ANSWER = (
    "prediction_id",
    "entity",
    "service_time",
    "asked_at",
    "digest",
    "release",
    "answered_at_utc",
    "latency_us",
)
OF_A_FILE = ("uri", "bytes", "arrived_at_utc")


class UnknownPrediction(Problem, LookupError):
    """No answer on record has the id."""


def of_prediction(product: ProductStore, prediction_id: str, *, key: str | None = None) -> lineage.Lineage:
    """Return the lineage of an answer, back to the landed files.

    Args:
        prediction_id: the id in the answer.
        key: the answer's key; searched for by default.

    Raises:
        UnknownPrediction: no answer on record has that id.
    """
    spec, tables, history = product.spec, product.tables, product.history
    key = _key_of(product, prediction_id, key)
    columns = tables.records("predictions", [key])[key].columns
    answers = [name for name in spec.task.answer_types() if name in columns]
    logged = [item.name for item in spec.fields if item.name in columns]
    rows = tables.read("predictions", [key], columns=[*OF_AN_ANSWER, *answers, *logged])
    row = rows.filter(rows["prediction_id"] == prediction_id).drop("key")
    (answer,) = row.select(*OF_AN_ANSWER, *answers).to_dicts()
    bundle = product.artifacts.bundle(answer["digest"])
    release = None if answer["release"] is None else history.release(answer["release"])
    return lineage.Lineage(
        product=spec.name,
        answer={"key": key, **{name: about.plain(value) for name, value in answer.items()}},
        inputs=about.inputs(product, key, row),
        outcome=about.outcome(tables, key, answer["entity"]),
        faults=about.faults(product, key),
        release=None if release is None else lineage.Released(number=answer["release"], **asdict(release)),
        model=lineage.Model(
            digest=bundle.digest,
            **{name: bundle.manifest[name] for name in ("cutoff", "known_before", "contract_sha256")},
        ),
        verdict=history.verdict(answer["digest"]),
        training=_training(tables, history, bundle),
        features=_features(product, key),
        trained_on=_trained_on(product, bundle),
    )


def _key_of(product: ProductStore, prediction_id: str, key: str | None) -> str:
    records = {name: record for name, record in product.tables.records("predictions").items() if record.rows}
    if key is not None:
        product.spec.grain.index(key)
        keys = [key] if key in records else []
    else:
        keys = sorted(records, key=product.spec.grain.index, reverse=True)[:MOST_KEYS]
    for start in range(0, len(keys), KEYS_PER_READ):
        rows = product.tables.read("predictions", keys[start : start + KEYS_PER_READ], columns=["prediction_id"])
        matches = rows.filter(rows["prediction_id"] == prediction_id)
        if matches.height:
            return str(matches["key"][0])
    where = f"key {key}" if key is not None else f"the newest {counted(len(keys), 'key')} with answers"
    older = "" if key is not None else "Use --key for an older one. "
    raise UnknownPrediction(
        f"no answer of {product.name} in {where} has the id {prediction_id!r}. An answer is on record once "
        f"{naming.job('advance', product.name)} has closed its key. {older}Name the product before the id if it is not "
        "the first."
    )


def _training(tables: TableStore, history: History, bundle: Bundle) -> lineage.Training:
    """Return the attempts that led to the bundle: by fingerprint, while its training is the newest of the cutoff."""
    cutoff = bundle.manifest["cutoff"]
    trained = tables.records("checkpoint", [cutoff]).get(cutoff)
    sealed = tables.records("onnx", [cutoff]).get(cutoff)
    is_exact = trained is not None and sealed is not None and sealed.content_digest == bundle.digest
    fingerprint = trained.inputs["fingerprint"] if trained is not None and is_exact else None
    recent = unique_attempts(history.attempts_so_far())[::-1]
    usd = dict(frame(recent).select("number", "usd").iter_rows())
    attempts = [
        lineage.Tried(number=number, **asdict(record) | {"cost_usd": round(usd[number], 6)})
        for number, record in recent
        if record.step not in (BACKTEST, TRIAL)
        and record.cutoff == cutoff
        and (fingerprint in (None, record.fingerprint) or record.digest == bundle.digest)
    ]
    over = [
        record
        for record in history.overspendings(MOST_OVERSPENDINGS)
        if record.cutoff == cutoff and fingerprint in (None, record.fingerprint)
    ]
    return lineage.Training(
        cutoff=cutoff, fingerprint=fingerprint, is_exact=is_exact, attempts=attempts, over_budget=over
    )


def _features(product: ProductStore, key: str) -> lineage.Features:
    """Return the tables with their versions, and the files, from which our features of the answer's key were built."""
    spec = product.spec
    record = product.tables.records("features", [key]).get(key)
    sources: list[lineage.SourceRows] = []
    for source in spec.feature_sources:
        raw_stage, stage = naming.stage("raw", source.name), naming.stage("validated", source.name)
        keys, tables = spec.grain.with_lookback((key,), spec.lookback), product.tables
        if source.is_slow:  # the snapshot that the key's features were built with, and the file that it came from
            keys = (naming.UNPARTITIONED,)
            name = snapshots.of_key(tables, stage, key)
            snapshot = None if name is None else snapshots.by_name(tables, stage).get(name)
            landed = {record.content_digest: record for record in tables.versions(raw_stage, naming.UNPARTITIONED)}
            file = None if snapshot is None else landed.get(snapshot.inputs.get(raw_stage, ""))
            validated = {} if snapshot is None else {naming.UNPARTITIONED: snapshot}
            raw = {} if file is None else {naming.UNPARTITIONED: file}
        else:
            validated, raw = tables.records(stage, keys), tables.records(raw_stage, keys)
        sources += [
            lineage.SourceRows(
                source=source.name, key=name, validated=_table(validated.get(name)), file=_file(raw.get(name))
            )
            for name in keys
        ]
    return lineage.Features(record=_table(record), sources=sources)


def _trained_on(product: ProductStore, bundle: Bundle) -> lineage.TrainedOn:
    """Return the keys of training and holdout, each with the digests of its rows and files.

    A table version is there while the rows are still those of the newest record.
    """
    spec = product.spec
    manifest = bundle.manifest
    keys = [*manifest["training_keys"], *manifest["holdout_keys"]]
    stages = {stage: product.tables.records(stage, keys) for stage in ("features", "outcomes")}
    raw = {
        source.name: product.tables.records(naming.stage("raw", source.name), keys)
        for source in spec.sources
        if not source.is_slow
    }
    by_key = {}
    for key in keys:
        rows = {}
        for stage, records in stages.items():
            digest, record = manifest["data"][stage][key], records.get(key)
            is_newest = record is not None and record.content_digest == digest
            version = record.sequence if record is not None and is_newest else None
            rows[stage] = lineage.Rows(content_digest=digest, table_version=version)
        files = {source: _file(records.get(key)) for source, records in raw.items()}
        by_key[key] = lineage.LearnedKey(**rows, files=files)
    cutoff = manifest["cutoff"]
    window = spec.grain.window(cutoff, width=spec.window, label_delay=spec.label_delay)
    return lineage.TrainedOn(
        training=_span(manifest["training_keys"]),
        holdout=_span(manifest["holdout_keys"]),
        unlabelled={
            key: note["why"] for key, note in unlabelled.excluded(product.tables, spec.grain, window, cutoff).items()
        },
        keys=by_key,
    )


def _span(keys: list[str]) -> lineage.Span:
    return lineage.Span(keys=len(keys), first=keys[0], last=keys[-1])


def _table(record: PartitionRecord | None) -> lineage.Table | None:
    if record is None:
        return None
    members = {name: getattr(record, name) for name in ("stage", "key", "rows", "content_digest")}
    return lineage.Table(**members, table_version=record.sequence)


def _file(record: PartitionRecord | None) -> lineage.File | None:
    notes = Raw() if record is None else Raw.of(record)
    return None if notes.sha256 is None else lineage.File(sha256=notes.sha256, **notes.members(OF_A_FILE))
