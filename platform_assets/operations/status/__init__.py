"""Report a product's state: what serves, how old it is, how good it was, what was decided, what is wrong, what to do.

Reads records and ledgers into `state`, which `words` renders as text. Judges nothing: what no record says is unknown.
Measures one thing, the slices of the newest window, because no record holds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import asdict

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data import unlabelled
from platform_assets.engine import project
from platform_assets.engine.product_files import Broken
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.launch import rebuilding
from platform_assets.monitoring import performance_policy, recent_latency
from platform_assets.operations.intervals import inside
from platform_assets.operations.status import serving, slices, todo, waits
from platform_assets.operations.status.live import left_out, live, released
from platform_assets.operations.status.state import (
    BrokenFile,
    BrokenState,
    Drift,
    Failed,
    Older,
    PutAside,
    Quality,
    Rare,
    Received,
    Refused,
    Snapshot,
    State,
    Undeclared,
    Unlabelled,
)
from platform_assets.operations.status.text import as_text
from platform_assets.product.spec import Product
from platform_assets.store.history.faults import judgement
from platform_assets.store.history.performance import measured
from platform_assets.store.history.reader import History
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.alerts import Failure
from platform_assets.store.records.notes import Features, Raw
from platform_assets.store.tables import PartitionRecord
from platform_assets.training import versions
from platform_assets.training.rare import AVERAGE_PRECISION, BASE_RATE

__all__ = ["as_text", "newest_window", "of_broken", "of_product", "read", "refused"]


def read(settings: Settings, product: Product | Broken, failed: Failure | None = None) -> State | BrokenState:
    """Return a product's state, also of one whose file is broken; see `of_product`."""
    if isinstance(product, Broken):
        return of_broken(settings, product)
    return of_product(ProductStore(product, settings), failed)


def of_product(product: ProductStore, failed: Failure | None = None) -> State:
    """Return a product's state; what is not known is None.

    Args:
        failed: the newest failed run that Dagster knows of, which no sensor may have recorded yet.
    """
    spec, tables, history = product.spec, product.tables, product.history
    try:
        now = product.now
    except LookupError:
        now = None
    newest, holds = _newest(spec, tables.records("decision")), history.holds()
    closed = None if newest is None else newest.key
    decision, latest = None if closed is None else history.decision(closed), history.live()
    window = newest_window(product)
    held = [left_out(key, hold) for key, hold in sorted(holds.items()) if hold.is_excluded]
    attendance = None if closed is None else history.attendance(closed)
    refusal, given_up = refused(product), unlabelled.notes(tables)
    behind = versions.of_next_training(product)
    # The newest failure, of the product's records and of what Dagster knows.
    number, failure = history.failure() or (None, None)
    if failure is None or (failed is not None and failed.run_id != failure.run_id and failed.at_utc > failure.at_utc):
        number, failure = None, failed
    return State(
        product=spec.name,
        title=spec.title,
        is_live=spec.is_live,
        now_utc=now.isoformat() if now else None,
        newest_closed_key=closed,
        waits_for=waits.next_event(product, closed, now),
        release=None if latest is None else live(product, *latest, closed, now),
        quality=None if window is None else _quality(product, window, [hold.key for hold in held]),
        drift=_drift(product),
        decision=decision,
        held=held,
        put_aside=None if closed is None else _put_aside(product, closed),
        unlabelled=[Unlabelled(key=key, **given_up[key]) for key in sorted(given_up, key=spec.grain.index)],
        failure=None if failure is None else Failed(number=number, **asdict(failure)),
        latency=None if closed is None else recent_latency.recent_latency(product, closed),
        grain=spec.grain.kind,
        slices=[] if window is None else slices.by_group(product, window),
        todo=[
            *todo.all_of(product, holds, decision),
            *todo.of_older(product, behind),
            *todo.of_refused(product, refusal),
            *serving.todos(product),
        ],
        automation=_automation(spec),
        heard=None if closed is None or attendance is None else Received(key=closed, **asdict(attendance)),
        rare=_rare(product),
        refused=refusal,
        older=None
        if behind is None
        else Older(
            keys=len(behind.keys),
            among=behind.among,
            first=behind.keys[0],
            last=behind.keys[-1],
            stages=dict(behind.stages),
            since_utc=None if behind.since_utc is None else behind.since_utc.isoformat(timespec="seconds"),
            cpu_s=round(behind.cpu_s, 2),
            usd=round(rebuilding.usd(behind), 6),
            renewal=versions.renewing(product, behind),
            outlook=rebuilding.outlook(product, behind),
        ),
        snapshots=_snapshots(product),
        slow=history.slow_sources() or None,
        undeclared=[] if closed is None else _undeclared(product, closed),
    )


def _automation(spec: Product) -> str | None:
    """Return whether sensors of a project's component run by themselves, with its file; None without a component."""
    component = project.component_of(spec.module)
    if component is None:
        return None
    if component.is_automatic:
        return f"on: sensors and schedules run unless a person stops them ({component.file})"
    return (
        f"off: sensors and schedules are stopped until a person starts them, or {component.file} says automation: true"
    )


def of_broken(settings: Settings, broken: Broken) -> BrokenState:
    """Return the state of a product whose file is broken: why, and what is released, which stays."""
    latest = History(settings.root, broken.name).live()
    release = None if latest is None else released(*latest)
    steps = todo.of_broken(broken.name, broken.file, broken.error)
    file = BrokenFile(file=broken.file, error=broken.error)
    return BrokenState(product=broken.name, broken=file, release=release, todo=steps)


def newest_window(product: ProductStore) -> PartitionRecord | None:
    """Return the newest record of `performance` that has a window of labelled answers; None before the first."""
    records = product.tables.records("performance")
    return _newest(product.spec, {key: record for key, record in records.items() if measured(record).window})


def _newest(spec: Product, records: Mapping[str, PartitionRecord]) -> PartitionRecord | None:
    return max(records.values(), key=lambda record: spec.grain.index(record.key), default=None)


def refused(product: ProductStore) -> Refused | None:
    """Return the newest evaluated model if its verdict refuses it and nobody released it all the same.

    Otherwise the newest one that was not released, because it does not answer logged requests.
    """
    newest = _newest(product.spec, product.tables.records("evaluation"))
    record = None if newest is None else product.tables.records("onnx", [newest.key]).get(newest.key)
    verdict = None if record is None else product.history.verdict(record.content_digest)
    latest = product.history.live()
    if newest is None or verdict is None or verdict.passed or (latest and latest[1].digest == verdict.digest):
        refusal = product.history.refusal()
        if refusal is None:
            return None
        return Refused(cutoff=refusal.cutoff, digest=refusal.digest, reasons=(refusal.reason,))
    return Refused(cutoff=newest.key, digest=verdict.digest, reasons=tuple(verdict.reasons))


def _rare(product: ProductStore) -> Rare | None:
    """Return how the live model does on a rare class, from the record of its training."""
    latest = product.history.live() if product.spec.task.kind == "binary" else None
    record = None if latest is None else product.tables.records("onnx", [latest[1].cutoff]).get(latest[1].cutoff)
    if latest is None or record is None or record.content_digest != latest[1].digest:
        return None
    training = product.history.training_of(str(record.inputs.get("checkpoint")))
    quality = {} if training is None else training.quality
    precision, rate = quality.get(AVERAGE_PRECISION), quality.get(BASE_RATE)
    return None if precision is None or rate is None else Rare(average_precision=precision, base_rate=rate)


def _quality(product: ProductStore, newest: PartitionRecord, held: Sequence[str]) -> Quality:
    """Return the window of labelled answers that ends at a key."""
    spec = product.spec
    window, headline = measured(newest).window, measures_of(spec.task).headline.name
    assert window  # the key was chosen for that
    tests = window.model.tests if window.model else None
    records = product.tables.records("performance", held) if held else {}
    of_held = {key: measured(record).quality for key, record in records.items()}
    return Quality(
        key=newest.key,
        **window.members(("keys", "first", "last", "rows", "model")),
        quality={
            measure.name: inside(window.quality.get(measure.name), measure) for measure in measures_of(spec.task).every
        },
        promises=performance_policy.describe(tests or {}, spec.retraining) or None,
        held={
            key: quality[headline]
            for key in held
            if (quality := of_held.get(key)) and spec.grain.index(key) >= spec.grain.index(window.first)
        },
        headline=headline,
    )


def _drift(product: ProductStore) -> Drift | None:
    newest = _newest(product.spec, product.tables.records("drift"))
    if newest is None:
        return None
    judged = judgement(newest)
    index = judged.index or None
    return Drift(
        key=newest.key,
        verdict=judged.verdict or "unknown",
        percentile=None if index is None else index.percentile,
        mean_psi=None if index is None else index.mean_psi,
        limit=product.spec.monitors.drift_limit,
    )


def _put_aside(product: ProductStore, key: str) -> PutAside | None:
    """Return how many rows of features the newest keys lack for values that no field declares; None without any."""
    keys = product.spec.grain.with_lookback((key,), product.spec.retraining.performance_window - 1)
    records = product.tables.records("features", keys)
    notes = {key: Features.of(record) for key, record in records.items()}
    with_rows_aside = {key: note for key, note in notes.items() if note.rows_put_aside}
    if not with_rows_aside:
        return None
    rows = sum(note.rows_put_aside for note in with_rows_aside.values())
    newest = list(with_rows_aside)[-1]
    return PutAside(
        rows=rows,
        built=rows + sum(record.rows for record in records.values()),
        keys=len(records),
        newest=newest,
        why=with_rows_aside[newest].put_aside_by_reason,
    )


def _undeclared(product: ProductStore, key: str) -> list[Undeclared]:
    """Return the columns of the newest keys' deliveries that no schema declares, per source."""
    result = []
    keys = product.spec.grain.with_lookback((key,), product.spec.retraining.performance_window - 1)
    for source in product.spec.sources:
        source_keys = (naming.UNPARTITIONED,) if source.is_slow else keys
        records = product.tables.records(naming.stage("raw", source.name), source_keys)
        declared = product.spec.declared_by_twins(source)
        columns = {
            at: tuple(name for name in Raw.of(records[at]).undeclared if name not in declared)
            for at in source_keys
            if at in records
        }
        newest = next((at for at in reversed(columns) if columns[at]), None)
        if newest is not None:
            result.append(Undeclared(source=source.name, columns=columns[newest], newest=newest))
    return result


def _snapshots(product: ProductStore) -> list[Snapshot]:
    """Return the slow tables of which keys keep older snapshots, or that a rebuild has yet to cover."""
    standing, newest = product.snapshots.standing(), product.history.newest_rebuild()
    number = None if newest is None else newest[0]
    has_begun = number is not None and product.history.rebuild_snapshots(number) is not None
    result = []
    for source in product.spec.feature_sources:
        one = standing.get(naming.stage("validated", source.name)) if source.is_slow else None
        if one is not None and (one.older or one.left):
            is_over = has_begun and not one.left
            result.append(
                Snapshot(
                    source=source.name,
                    keys=one.keys,
                    older=one.older,
                    rebuild=None if is_over else number,
                    left=one.left if has_begun else None,
                )
            )
    return result
