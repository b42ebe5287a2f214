"""What the records say of each product. Reading is bounded, however long the history: some thirty small reads each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, get_args

import obstore
from msgspec import UNSET
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings
from platform_assets.engine.product_files import Broken
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.launch import costs
from platform_assets.monitoring import performance_policy
from platform_assets.operations import status
from platform_assets.operations.intervals import inside
from platform_assets.product.spec import Product
from platform_assets.store.history.alerts import Alerts
from platform_assets.store.history.faults import judgement
from platform_assets.store.history.performance import measured
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import Action
from platform_assets.training import versions

if TYPE_CHECKING:
    from platform_assets.store.partition_records import PartitionRecord

ALERTS_BACK = 20
"""How many of the newest alerts are looked at."""
GAUGES = {
    "driftline_product_info": ("1, with the owner of the product's file.", ("owner",)),
    "driftline_product_up": ("1 while a product's file and records can be read.", ()),
    "driftline_newest_key": ("Place of the newest key of a stage, counted from 1; 0 for none.", ("stage",)),
    "driftline_newest_key_end_timestamp_seconds": ("When that key's period ended; not of batches.", ("stage",)),
    "driftline_held_keys": ("Keys left out for a fault, until it is settled.", ("source", "check")),
    "driftline_faults": ("Checks that the newest judged key fails.", ()),
    "driftline_drift_percentile_ratio": ("Drift of the newest judged key among windows of the training rows.", ()),
    "driftline_drift_limit_ratio": ("Above this it is drift.", ()),
    "driftline_failing_promises": ("Tests of the model's promises that fail on its newest labelled answers.", ()),
    "driftline_quality": ("Measured quality on the newest labelled answers.", ("measure",)),
    "driftline_quality_low": ("Lower end of its interval.", ("measure",)),
    "driftline_quality_high": ("Upper end of its interval.", ("measure",)),
    "driftline_release": ("Number of the newest release, 0 for none.", ()),
    "driftline_release_timestamp_seconds": ("When it was recorded, by the product's clock.", ()),
    "driftline_model_age_keys": ("Keys from the live model's cutoff to the key after the newest closed one.", ()),
    "driftline_model_age_limit_keys": ("From this age on it is trained again.", ()),
    "driftline_awaited_labels_keys": ("Closed keys whose labels are due and have not come.", ()),
    "driftline_label_patience_keys": ("For how many keys labels are waited for.", ()),
    "driftline_refused_models": ("1 while the newest evaluated model is not accepted.", ()),
    "driftline_training_waited_keys": ("For how many keys a due training has waited.", ()),
    "driftline_older_keys": ("Keys of the next training that an earlier version of the product made.", ()),
    "driftline_month_spent_usd": ("What the trainings of the newest decision's month have cost.", ()),
    "driftline_month_budget_usd": ("What they may cost.", ()),
    "driftline_unsent_alerts": (f"Alerts among the newest {ALERTS_BACK} that no receiver got.", ()),
}
COUNTERS = {
    "driftline_decisions": ("Decisions since the start of the exporter.", ("action",)),
    "driftline_cost_usd": ("What all attempts at trainings and exports have cost.", ()),
}
Sample = tuple[str, tuple[str, ...], float]
"""Name, values of labels besides the product's, and number."""


@dataclass
class _Followed:
    """A product, the newest closed key that was seen, and the decisions after the first one."""

    store: ProductStore
    closed: int | None = None
    decisions: Counter[str] = field(default_factory=Counter)

    def follow(self) -> str | None:
        """Go on to the newest closed key and return it; None before the first."""
        grain, history = self.store.spec.grain, self.store.history
        if self.closed is None:
            known = [grain.index(key) for key in self.store.tables.records("decision") if grain.contains(key)]
            if not known:
                return None
            self.closed = max(known)
        while grain.size is None or self.closed + 1 < grain.size:
            decision = history.decision(grain.key_at(self.closed + 1))
            if decision is None:
                break
            self.closed += 1
            self.decisions[decision.action] += 1
        return grain.key_at(self.closed)


class OfProducts:
    """The numbers of products. One that cannot be read is `driftline_product_up` 0, and the others stay."""

    def __init__(self, settings: Settings, products: Sequence[Product | Broken]) -> None:
        """Prepare without reading."""
        self._broken = [product.name for product in products if isinstance(product, Broken)]
        self._followed = [
            _Followed(ProductStore(product, settings)) for product in products if isinstance(product, Product)
        ]

    def __call__(self) -> list[Metric]:
        """Read each product's records."""
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
            **{
                name: GaugeMetricFamily(name, about, labels=("product", *labels))
                for name, (about, labels) in GAUGES.items()
            },
            **{
                name: CounterMetricFamily(name, about, labels=("product", *labels))
                for name, (about, labels) in COUNTERS.items()
            },
        }
        for name in self._broken:
            families["driftline_product_up"].add_metric([name], 0.0)
        for followed in self._followed:
            product = followed.store.name
            try:
                samples = [*_samples(followed)]
            except (Problem, OSError, ValueError, LookupError, obstore.exceptions.BaseError) as problem:
                logging.getLogger(__name__).warning("%s cannot be read: %s", product, f"{problem}".partition("\n")[0])
                samples = [("driftline_product_up", (), 0.0)]
            for metric, labels, value in samples:
                families[metric].add_metric([product, *labels], value)
        return [*families.values()]


def _samples(followed: _Followed) -> Iterator[Sample]:
    store = followed.store
    spec, history = store.spec, store.history
    closed = followed.follow()
    yield "driftline_product_up", (), 1.0
    yield "driftline_product_info", (spec.owner,), 1.0
    yield "driftline_label_patience_keys", (), spec.label_patience
    yield "driftline_refused_models", (), float(status.refused(store) is not None)
    for action in get_args(Action):
        yield "driftline_decisions", (action,), followed.decisions[action]
    held = [hold.record.present(("source", "check")) for hold in history.holds().values() if hold.is_held]
    where = Counter((f"{fault.get('source') or ''}", f"{fault.get('check') or ''}") for fault in held)
    yield "driftline_held_keys", ("", ""), where.pop(("", ""), 0)
    for place, count in where.items():
        yield "driftline_held_keys", place, count
    yield from _of_release(store, closed)
    yield from _of_money(store, closed)
    alerts = Alerts(store.settings.root, store.name)
    newest = alerts.newest_queued(ALERTS_BACK)
    yield "driftline_unsent_alerts", (), sum(not alerts.is_delivered(alert) for alert in newest)
    if closed is None:
        yield "driftline_newest_key", ("closed",), 0.0
        return
    behind = versions.of_next_training(store)
    yield "driftline_older_keys", (), 0 if behind is None else len(behind.keys)
    decision = history.decision(closed)
    if decision is not None:
        yield "driftline_awaited_labels_keys", (), len(decision.numbers.unlabelled)
        yield "driftline_training_waited_keys", (), decision.numbers.waited_keys
    back = spec.retraining.performance_window + spec.label_delay + spec.label_patience
    keys = spec.grain.with_lookback((closed,), back)
    judged = _newest(spec, store.tables.records("drift", keys))
    numbers = store.tables.records("performance", keys)
    window = _newest(spec, {key: record for key, record in numbers.items() if measured(record).window})
    newest_keys = (closed, None if judged is None else judged.key, None if window is None else window.key)
    for stage, key in zip(("closed", "judged", "measured"), newest_keys, strict=True):
        yield "driftline_newest_key", (stage,), 0 if key is None else spec.grain.index(key) + 1
        if key is not None and (end := spec.grain.instant_after(key)) is not None:
            yield "driftline_newest_key_end_timestamp_seconds", (stage,), end.timestamp()
    if judged is not None:
        yield from _of_judgement(spec, judged)
    if window is not None:
        yield from _of_window(spec, window)


def _of_release(store: ProductStore, closed: str | None) -> Iterator[Sample]:
    latest = store.history.live()
    yield "driftline_release", (), 0 if latest is None else latest[0]
    yield "driftline_model_age_limit_keys", (), store.spec.retraining.max_age
    if latest is not None:
        yield "driftline_release_timestamp_seconds", (), datetime.fromisoformat(latest[1].at_utc).timestamp()
        if closed is not None:
            age = store.spec.grain.index(closed) + 1 - store.spec.grain.index(latest[1].cutoff)
            yield "driftline_model_age_keys", (), age


def _of_money(store: ProductStore, closed: str | None) -> Iterator[Sample]:
    spec, attempts = store.spec, store.history.attempts()
    yield "driftline_cost_usd", (), costs.total_usd(attempts)
    decision = None if closed is None else store.history.decision(closed)
    if decision is not None:
        yield "driftline_month_spent_usd", (), decision.measured.spent_usd
    if spec.retraining.monthly_budget_usd is not None:
        yield "driftline_month_budget_usd", (), spec.retraining.monthly_budget_usd


def _of_judgement(spec: Product, record: PartitionRecord) -> Iterator[Sample]:
    judged = judgement(record)
    yield "driftline_faults", (), 0 if judged.faults is UNSET else judged.faults
    yield "driftline_drift_limit_ratio", (), spec.monitors.drift_limit
    if judged.index and judged.index.percentile is not None:
        yield "driftline_drift_percentile_ratio", (), judged.index.percentile


def _of_window(spec: Product, record: PartitionRecord) -> Iterator[Sample]:
    window = measured(record).window
    assert window  # the record was chosen for that
    tests = window.model.tests if window.model else {}
    yield "driftline_failing_promises", (), len(performance_policy.failing(tests, spec.retraining))
    for measure in measures_of(spec.task).every:
        interval = inside(window.quality.get(measure.name), measure)
        ends = {"": "value", "_low": "low", "_high": "high"}
        for suffix, end in ends.items():
            if interval is not None and (value := getattr(interval, end)) is not None:
                yield f"driftline_quality{suffix}", (measure.name,), value


def _newest(spec: Product, records: dict[str, PartitionRecord]) -> PartitionRecord | None:
    return max(records.values(), key=lambda record: spec.grain.index(record.key), default=None)
