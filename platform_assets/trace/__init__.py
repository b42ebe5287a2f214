"""Follow an answer back: the model that gave it, its verdict, its training, the rows it read, the files they came from.

Belongs here: reading records and ledgers along that way: also what the answer was given (`inputs`), what came true and
which faults it was given on (`keys`), and the way as text (`words`). Does not belong here: judging any of it.

An answer's key does not stand in its id, so it is looked for among the newest `MOST_KEYS` keys with answers, the newest
first and `KEYS_A_READ` at a time, in one column of each; an older one is found when its key is given.
"""

from __future__ import annotations

import msgspec

from platform_assets import naming
from platform_assets.facts import unlabelled
from platform_assets.handle import Product
from platform_assets.history.attempts import frame
from platform_assets.history.reader import History
from platform_assets.problems import Problem
from platform_assets.records.notes import Raw
from platform_assets.storage.artifacts import Bundle
from platform_assets.storage.tables import PartitionRecord, TableStore
from platform_assets.trace import asked
from platform_assets.trace.way import (
    Allowed,
    Features,
    File,
    Judged,
    LearnedKey,
    Model,
    Read,
    Released,
    Rows,
    Span,
    Table,
    TrainedOn,
    Training,
    Tried,
    Way,
)
from platform_assets.trace.words import as_text

__all__ = ["UnknownPrediction", "as_text", "of_prediction"]

MOST_KEYS = 366
KEYS_A_READ = 31
MOST_ATTEMPTS = 500
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
OF_AN_ATTEMPT = (
    *("step", "fingerprint", "reason", "started_at_utc", "wall_s", "cpu_s", "profile", "is_spot", "host"),
    *("resumed_from_step", "steps_lost"),
)
OF_AN_OVERSPENDING = ("at_utc", "month", "over", "over_usd", "why", "run_id")
OF_A_VERDICT = ("passed", "reasons", "champion_digest", "challenger")
OF_A_FILE = ("uri", "bytes", "arrived_at_utc")


class UnknownPrediction(Problem, LookupError):
    """An id that no answer on record has."""


def of_prediction(product: Product, prediction_id: str, *, key: str | None = None) -> Way:
    """Return the way from an answer to the landed files.

    Args:
        product: whose service answered.
        prediction_id: as the answer gave it.
        key: the answer's key, where it is known; looked for by default.

    Raises:
        UnknownPrediction: no answer on record has that id.
    """
    spec, tables, history = product.spec, product.tables, product.history
    key = _key_of(product, prediction_id, key)
    there = tables.records("predictions", [key])[key].columns
    said = [name for name in spec.task.answer_types() if name in there]
    logged = [item.name for item in spec.fields if item.name in there]
    rows = tables.read("predictions", [key], columns=[*OF_AN_ANSWER, *said, *logged])
    row = rows.filter(rows["prediction_id"] == prediction_id).drop("key")
    (answer,) = row.select(*OF_AN_ANSWER, *said).to_dicts()
    bundle = product.artifacts.bundle(answer["digest"])
    return Way(
        product=spec.name,
        answer={"key": key, **{name: asked.plain(value) for name, value in answer.items()}},
        inputs=asked.inputs(product, key, row),
        outcome=asked.outcome(tables, key, answer["entity"]),
        faults=asked.faults(product, key),
        release=None if answer["release"] is None else _release(history, answer["release"]),
        model=_model(bundle),
        verdict=_verdict(history, answer["digest"]),
        training=_training(tables, history, bundle),
        features=_features(product, key),
        trained_on=_trained_on(product, bundle),
    )


def _key_of(product: Product, prediction_id: str, key: str | None) -> str:
    records = {each: record for each, record in product.tables.records("predictions").items() if record.rows}
    if key is not None:
        product.spec.grain.index(key)
        keys = [key] if key in records else []
    else:
        keys = sorted(records, key=product.spec.grain.index, reverse=True)[:MOST_KEYS]
    for place in range(0, len(keys), KEYS_A_READ):
        rows = product.tables.read("predictions", keys[place : place + KEYS_A_READ], columns=["prediction_id"])
        found = rows.filter(rows["prediction_id"] == prediction_id)
        if found.height:
            return str(found["key"][0])
    where = f"key {key}" if key is not None else f"the newest {len(keys)} keys with answers"
    raise UnknownPrediction(
        f"no answer of {product.name} in {where} has the id {prediction_id!r}. An answer is on record once its key is "
        "advanced; give --key for one older than that, or the product before the id for another product's."
    )


def _release(history: History, number: int) -> Released | None:
    release = history.release(number)
    return None if release is None else msgspec.convert({"number": number, **release.document()}, Released)


def _model(bundle: Bundle) -> Model:
    names = ("cutoff", "known_before", "contract_sha256")
    return Model(digest=bundle.digest, **{name: bundle.manifest[name] for name in names})


def _verdict(history: History, digest: str) -> Judged | None:
    verdict = history.verdict(digest)
    return None if verdict is None else Judged(**verdict.members(OF_A_VERDICT))


def _training(tables: TableStore, history: History, bundle: Bundle) -> Training:
    """Return the attempts that led to the bundle: by fingerprint while its training is the cutoff's newest."""
    cutoff = bundle.manifest["cutoff"]
    trained = tables.records("checkpoint", [cutoff]).get(cutoff)
    sealed = tables.records("onnx", [cutoff]).get(cutoff)
    is_exact = trained is not None and sealed is not None and sealed.content_digest == bundle.digest
    fingerprint = trained.inputs["fingerprint"] if trained is not None and is_exact else None
    tried = history.newest_attempts(MOST_ATTEMPTS)
    usd = dict(frame(tried).select("number", "usd").iter_rows())
    attempts = [
        Tried(number=number, **record.members(OF_AN_ATTEMPT), cost_usd=round(usd[number], 6))
        for number, record in tried
        if record.cutoff == cutoff and (fingerprint in (None, record.fingerprint) or record.digest == bundle.digest)
    ]
    over = [
        Allowed(**record.members(OF_AN_OVERSPENDING))
        for record in history.overspendings(MOST_OVERSPENDINGS)
        if record.cutoff == cutoff and fingerprint in (None, record.fingerprint)
    ]
    return Training(cutoff=cutoff, fingerprint=fingerprint, is_exact=is_exact, attempts=attempts, over_budget=over)


def _features(product: Product, key: str) -> Features:
    """Return what our features of the answer's key were made from: tables with versions, and files."""
    spec = product.spec
    record = product.tables.records("features", [key]).get(key)
    sources: list[Read] = []
    for source in spec.feature_sources:
        keys = (naming.UNPARTITIONED,) if source.is_slow else spec.grain.with_lookback((key,), spec.lookback)
        validated = product.tables.records(naming.stage("validated", source.name), keys)
        raw = product.tables.records(naming.stage("raw", source.name), keys)
        sources += [
            Read(source=source.name, key=each, validated=_table(validated.get(each)), file=_file(raw.get(each)))
            for each in keys
        ]
    return Features(record=_table(record), sources=sources)


def _trained_on(product: Product, bundle: Bundle) -> TrainedOn:
    """Return the keys that the model learned from and was judged on, each with the digest of its rows and files.

    A table version stands where the rows are still those of the newest record.
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
    of_each = {
        key: LearnedKey(
            **{stage: _rows(manifest["data"][stage][key], stages[stage].get(key)) for stage in stages},
            files={source: _file(records.get(key)) for source, records in raw.items()},
        )
        for key in keys
    }
    cutoff = manifest["cutoff"]
    window = spec.grain.window(cutoff, width=spec.window, label_delay=spec.label_delay)
    return TrainedOn(
        training=_span(manifest["training_keys"]),
        holdout=_span(manifest["holdout_keys"]),
        unlabelled={
            key: note["why"] for key, note in unlabelled.excluded(product.tables, spec.grain, window, cutoff).items()
        },
        keys=of_each,
    )


def _span(keys: list[str]) -> Span:
    return Span(keys=len(keys), first=keys[0], last=keys[-1])


def _rows(digest: str, record: PartitionRecord | None) -> Rows:
    is_newest = record is not None and record.content_digest == digest
    return Rows(content_digest=digest, table_version=record.sequence if record is not None and is_newest else None)


def _table(record: PartitionRecord | None) -> Table | None:
    if record is None:
        return None
    own = {name: getattr(record, name) for name in ("stage", "key", "rows", "content_digest")}
    return Table(**own, table_version=record.sequence)


def _file(record: PartitionRecord | None) -> File | None:
    noted = Raw() if record is None else Raw.of(record)
    return None if noted.sha256 is None else File(sha256=noted.sha256, **noted.members(OF_A_FILE))
