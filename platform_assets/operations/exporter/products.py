"""What the records say of each product. Reading is bounded, however long the history: some forty requests each.

Products are read side by side. A part of a product's records that cannot be read is `driftline_product_up` 0 and one
sentence in the log; the other parts and products stay.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import obstore
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings
from platform_assets.engine.product_files import Broken
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.launch import costs
from platform_assets.monitoring import performance_policy
from platform_assets.operations.intervals import inside
from platform_assets.operations.status.facts import Facts
from platform_assets.product.spec import Product
from platform_assets.serving.run.metrics import LATENCY_BUCKETS_S
from platform_assets.store.history.reader import History, judgement
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import Action, Decision
from platform_assets.store.records.notes import measured

if TYPE_CHECKING:
    from platform_assets.store.partition_records import PartitionRecord

ALERTS_BACK = 20
"""How many of the newest alerts are looked at."""
AT_A_TIME = 8
"""How many products are read side by side: a store answers in tens of milliseconds, and does little."""
AWAY_S = 1.0
"""After a part that failed only then, by retries, the others are not tried: the store is away. Fifty products would
take three minutes, and their numbers would come and go, so that no rule fires."""
GAUGES = {
    "driftline_product_info": ("1, with the owner of the product's file.", ("owner",)),
    "driftline_product_up": ("1 while a product's file and records can be read.", ()),
    "driftline_newest_key": ("Place of the newest key of a stage, counted from 1; 0 for none.", ("stage",)),
    "driftline_held_keys": ("Keys left out for a fault, until it is settled.", ("source", "check")),
    "driftline_drift_percentile_ratio": ("Drift of the newest judged key among windows of the training rows.", ()),
    "driftline_drift_limit_ratio": ("Above this it is drift.", ()),
    "driftline_failing_promises": ("Tests of the model's promises that fail on its newest labelled answers.", ()),
    "driftline_quality": ("Measured quality on the newest labelled answers.", ("measure",)),
    "driftline_quality_low": ("Lower end of its interval.", ("measure",)),
    "driftline_quality_high": ("Upper end of its interval.", ("measure",)),
    "driftline_latency_objective_seconds": (
        "One request in a thousand may take longer; with the bucket of driftline_request_seconds that holds it.",
        ("bucket",),
    ),
    "driftline_newest_release": ("Number of the newest release, 0 for none.", ()),
    "driftline_model_age_keys": ("Keys from the live model's cutoff to the key after the newest closed one.", ()),
    "driftline_model_age_limit_keys": ("From this age on it is trained again.", ()),
    "driftline_awaited_labels_keys": ("Closed keys whose labels are due and have not come.", ()),
    "driftline_label_patience_keys": ("For how many keys labels are waited for.", ()),
    "driftline_refused_models": ("1 while the newest evaluated model is not accepted.", ()),
    "driftline_month_spent_usd": ("What the trainings of the newest decision's month have cost.", ()),
    "driftline_month_budget_usd": ("What they may cost.", ()),
    "driftline_unsent_alerts": (f"Of the newest {ALERTS_BACK} alerts and ends, how many Alertmanager lacks.", ()),
}
COUNTERS = {
    "driftline_decisions": ("Decisions since the start of the exporter.", ("action",)),
    "driftline_cost_usd": ("What all attempts at trainings and exports have cost.", ()),
}
Sample = tuple[str, tuple[str, ...], float]
"""Name, values of labels besides the product's, and number."""


PROBLEMS = (Problem, OSError, ValueError, LookupError, obstore.exceptions.BaseError)


@dataclass
class _Followed:
    """A product, the newest closed key that was seen, and the decisions after the first one.

    Attributes:
        problems: what could not be read last; said once.
    """

    store: ProductStore
    closed: str | None = None
    decision: Decision | None = None
    decisions: Counter[str] = field(default_factory=Counter)
    problems: tuple[str, ...] = ()

    def follow(self) -> None:
        """Go on to the newest closed key; there is none before the first."""
        grain, history = self.store.spec.grain, self.store.history
        if self.closed is None:
            known = [grain.index(key) for key in self.store.tables.records("decision") if grain.contains(key)]
            if not known:
                return
            self.closed = grain.key_at(max(known))
        self.decision = history.decision(self.closed)
        index = grain.index(self.closed) + 1
        while grain.size is None or index < grain.size:
            decision = history.decision(grain.key_at(index))
            if decision is None:
                break
            self.closed, self.decision, index = decision.key, decision, index + 1
            self.decisions[decision.action] += 1


class OfProducts:
    """The numbers of products."""

    def __init__(self, settings: Settings, products: Sequence[Product | Broken]) -> None:
        """Prepare without reading."""
        self._broken = [product.name for product in products if isinstance(product, Broken)]
        self._followed = [
            _Followed(ProductStore(product, settings)) for product in products if isinstance(product, Product)
        ]

    def __call__(self) -> list[Metric]:
        """Read each product's records."""
        families = dict[str, GaugeMetricFamily | CounterMetricFamily]()
        for name, (about, labels) in GAUGES.items():
            families[name] = GaugeMetricFamily(name, about, labels=("product", *labels))
        for name, (about, labels) in COUNTERS.items():
            families[name] = CounterMetricFamily(name, about, labels=("product", *labels))
        for name in self._broken:
            families["driftline_product_up"].add_metric([name], 0.0)
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            for followed, samples in zip(self._followed, threads.map(_read, self._followed), strict=True):
                for metric, values, value in samples:
                    families[metric].add_metric([followed.store.name, *values], value)
        return [*families.values()]


def _read(followed: _Followed) -> list[Sample]:
    samples, problems = list[Sample](), list[str]()
    for part in PARTS:
        began_s = time.monotonic()
        try:
            samples += part(followed)
        except PROBLEMS as problem:
            problems.append(f"{problem}".partition("\n")[0])
            if time.monotonic() - began_s > AWAY_S:
                break
    found = tuple(dict.fromkeys(problems))
    if found and found != followed.problems:
        logging.getLogger(__name__).warning("%s cannot be read: %s", followed.store.name, "; ".join(found))
    followed.problems = found
    return [*samples, ("driftline_product_up", (), float(not problems))]


def _of_decisions(followed: _Followed) -> Iterator[Sample]:
    store, spec = followed.store, followed.store.spec
    yield "driftline_product_info", (spec.owner,), 1.0  # also of one whose records cannot be read
    objective_s = spec.service.latency_ms / 1000
    bucket = next((end for end in LATENCY_BUCKETS_S if end >= objective_s), math.inf)
    yield "driftline_latency_objective_seconds", (floatToGoString(bucket),), objective_s
    followed.follow()
    yield "driftline_label_patience_keys", (), spec.label_patience
    yield "driftline_refused_models", (), float(Facts(store).refused is not None)
    for action in get_args(Action):
        yield "driftline_decisions", (action,), followed.decisions[action]
    if followed.decision is not None:
        yield "driftline_awaited_labels_keys", (), len(followed.decision.numbers.unlabelled)


def _of_holds(followed: _Followed) -> Iterator[Sample]:
    holds = followed.store.history.holds().values()
    held = [hold.record.present(("source", "check")) for hold in holds if hold.is_held]
    where = Counter((f"{fault.get('source') or ''}", f"{fault.get('check') or ''}") for fault in held)
    yield "driftline_held_keys", ("", ""), where.pop(("", ""), 0)
    for place, count in where.items():
        yield "driftline_held_keys", place, count


def _of_alerts(followed: _Followed) -> Iterator[Sample]:
    settings = followed.store.settings
    alerts = History(settings.root, followed.store.name)
    newest = alerts.newest_queued(ALERTS_BACK)
    yield "driftline_unsent_alerts", (), sum(alerts.delivery(queued) is None for queued in newest)


def _of_keys(followed: _Followed) -> Iterator[Sample]:
    spec, closed = followed.store.spec, followed.closed
    if closed is None:
        yield "driftline_newest_key", ("closed",), 0.0
        return
    back = spec.retraining.performance_window + spec.label_delay + spec.label_patience
    keys = spec.grain.with_lookback((closed,), back)
    judged = _newest(spec, followed.store.tables.records("drift", keys))
    numbers = followed.store.tables.records("performance", keys)
    window = _newest(spec, {key: record for key, record in numbers.items() if measured(record).window})
    newest_keys = (closed, None if judged is None else judged.key, None if window is None else window.key)
    for stage, key in zip(("closed", "judged", "measured"), newest_keys, strict=True):
        yield "driftline_newest_key", (stage,), 0 if key is None else spec.grain.index(key) + 1
    if judged is not None:
        yield "driftline_drift_limit_ratio", (), spec.monitors.drift_limit
        if (index := judgement(judged).index) and index.percentile is not None:
            yield "driftline_drift_percentile_ratio", (), index.percentile
    if window is not None and (of_window := measured(window).window):
        tests = of_window.model.tests if of_window.model else {}
        yield "driftline_failing_promises", (), len(performance_policy.failing(tests, spec.retraining))
        for measure in measures_of(spec.task).every:
            interval = inside(of_window.quality.get(measure.name), measure)
            for suffix, member in {"": "value", "_low": "low", "_high": "high"}.items():
                if interval is not None and (value := getattr(interval, member)) is not None:
                    yield f"driftline_quality{suffix}", (measure.name,), value


def _of_release(followed: _Followed) -> Iterator[Sample]:
    store, closed = followed.store, followed.closed
    latest = store.history.live()
    yield "driftline_newest_release", (), 0 if latest is None else latest[0]
    yield "driftline_model_age_limit_keys", (), store.spec.retraining.max_age
    if latest is not None and closed is not None:
        age = store.spec.grain.index(closed) + 1 - store.spec.grain.index(latest[1].cutoff)
        yield "driftline_model_age_keys", (), age


def _of_money(followed: _Followed) -> Iterator[Sample]:
    spec = followed.store.spec
    yield "driftline_cost_usd", (), costs.total_usd(followed.store.history.attempts())
    if followed.decision is not None:
        yield "driftline_month_spent_usd", (), followed.decision.measured.spent_usd
    if spec.retraining.monthly_budget_usd is not None:
        yield "driftline_month_budget_usd", (), spec.retraining.monthly_budget_usd


def _newest(spec: Product, records: dict[str, PartitionRecord]) -> PartitionRecord | None:
    return max(records.values(), key=lambda record: spec.grain.index(record.key), default=None)


PARTS: tuple[Callable[[_Followed], Iterator[Sample]], ...] = (
    _of_decisions,
    _of_holds,
    _of_release,
    _of_money,
    _of_alerts,
    _of_keys,
)
"""In order: the first one finds the newest closed key."""
