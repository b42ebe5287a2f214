"""Say how a product is watched and when it is trained again: `Monitors`, `CrossRule` and `Retraining`.

Belongs here: thresholds and rules as data, what they are by default for a grain, and which of them contradict each
other. Does not belong here: applying them (`compute.faults`, `compute.drift`, `compute.policy`). Every number of keys
is counted in partition keys, whatever the grain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from platform_assets import kinds

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.specs.base import ProductSpec

LEAST_OF_A_PHASE = 3
"""Keys of each phase that a record must have room for: of two, one odd key moves the median."""


class _ByGrain(int):
    """A default number of keys: for days, until a product says which grain it has."""

    of_kind: Mapping[str, int]


def _by_grain(*, days: int, hours: int, batches: int) -> int:
    """Return a default that spans the same time in days and in hours; batches have no period and count as days do."""
    number = _ByGrain(days)
    number.of_kind = {"daily": days, "hourly": hours, "batch": batches}
    return number


@dataclass(frozen=True, kw_only=True)
class CrossRule:
    """A rule that two or more sources of one key must keep together.

    Attributes:
        name: one clause that says what must hold, as it stands in an alert.
        sources: which are read; the first is the one that a broken rule blames.
        broken: `(validated rows of one key by source) -> the offending rows`.
        max_share: offending rows over the rows of its largest source, above which the rule counts as broken.
    """

    name: str
    sources: tuple[str, ...]
    broken: Callable[[Mapping[str, pl.DataFrame]], pl.DataFrame]
    max_share: float = 0.01

    def __post_init__(self) -> None:
        kinds.check(self, "CrossRule.")
        if not self.sources or not 0 <= self.max_share < 1:
            raise ValueError(
                f"rule {self.name!r} has sources={self.sources} and max_share={self.max_share}; "
                "expected at least one source and a share from 0 to below 1."
            )


@dataclass(frozen=True, kw_only=True)
class Monitors:
    """How each key is told to be fine, drifting or faulty.

    Attributes:
        rules: between sources.
        max_quarantined_share: above it a source's key is faulty; also a key of whose features a larger share was put
            aside, because their values are not what the fields declare.
        is_comparing: whether a key is compared with accepted keys; False judges rules and shares alone.
        record_keys: with how many of the last accepted keys a key is compared. For hours three weeks, not eight,
            because judging a key reads as many sketches.
        min_record_keys: with fewer accepted keys nothing is compared.
        season: keys after which traffic repeats: volume is compared with keys of the same phase, an overlap with what
            keys as many phases apart usually share; 1 for none.
        max_volume_log_ratio: how far the rows of a source may be from the median of their phase, as a natural log.
        max_repeated_share: duplicates within a key, above which it is faulty.
        max_overlap: rows that a key shares with one of the `record_keys` keys before it, above which it is faulty.
        max_statistic_shift: how far a key's mean of one of a source's `statistics` may lie from the accepted keys', in
            standard deviations of single rows, above which it is faulty.
        min_frozen_columns: how many columns of a source must stand still before it counts as frozen.
        margin: how many times the worst accepted overlap, or the drift limit below, must be exceeded to count.
        drift_window: keys that make one drift index.
        drift_limit: the quantile of the contiguous training windows' own indexes; drift begins at `margin` times it.
        repair_within: keys for which a fault waits for a person; then the platform nulls the source, or drops the key.
        min_equal_share: share of a key's distinct entities whose served features must all equal ours. Below it the
            key is skewed: a person is told, and the key is measured by its bundles' answers to our own features.
    """

    rules: tuple[CrossRule, ...] = ()
    max_quarantined_share: float = 0.01
    is_comparing: bool = True
    record_keys: int = _by_grain(days=56, hours=504, batches=56)
    min_record_keys: int = _by_grain(days=14, hours=336, batches=14)
    season: int = _by_grain(days=7, hours=168, batches=7)
    max_volume_log_ratio: float = 0.5
    max_repeated_share: float = 0.01
    max_overlap: float = 0.5
    max_statistic_shift: float = 0.5
    min_frozen_columns: int = 3
    margin: float = 1.25
    drift_window: int = _by_grain(days=7, hours=168, batches=7)
    drift_limit: float = 0.99
    repair_within: int = _by_grain(days=3, hours=72, batches=3)
    min_equal_share: float = 0.99

    def __post_init__(self) -> None:
        kinds.check(self, "Monitors.", CrossRule=CrossRule)
        if self.max_statistic_shift <= 0:
            raise ValueError(f"Monitors.max_statistic_shift is {self.max_statistic_shift}; expected more than 0.")
        for name in ("record_keys", "min_record_keys", "season", "min_frozen_columns", "drift_window", "repair_within"):
            if getattr(self, name) < 1:
                raise ValueError(f"Monitors.{name} is {getattr(self, name)}; expected at least 1.")
        if not 0 <= self.min_equal_share <= 1:
            raise ValueError(f"Monitors.min_equal_share is {self.min_equal_share}; expected a share from 0 to 1.")
        if not 0 < self.drift_limit <= 1 or self.margin < 1:
            raise ValueError(
                f"Monitors has drift_limit={self.drift_limit} and margin={self.margin}; "
                "expected a limit above 0 and up to 1, and a margin of at least 1."
            )


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """When a model is trained again.

    Attributes:
        decide_every: keys from one decision day to the next; on others the answer is "wait", unless asked for.
        anchor: a key that is a decision day; None for the grain's first.
        max_age: keys since the last training after which a model is trained again whatever its quality.
        cooldown: keys that must pass between two trainings.
        label_patience: how many keys after labels were due a training waits for them; then their key leaves the
            window, by a record. None for the grain's: 7 days, 48 hours, 5 batches.
        performance_window: how many of the last labelled keys are tested against what the model's answers promise.
        min_excess_loss: nats by which its log loss must exceed its own expectation, besides being significant.
        confidence: of the whole family of those tests; the margins of the others are the task's.
        is_drift_enough: whether drift alone is a reason.
        max_attempts: how often a training that failed is launched again.
        monthly_budget_usd: what the trainings of a calendar month may cost; None for no limit.
        expected_hours: that a training and its export take together, until one of the profile's size was measured, or
            when the next takes longer than that one; None expects every try to last until its deadline.
    """

    decide_every: int = _by_grain(days=7, hours=168, batches=7)
    anchor: str | None = None
    max_age: int = _by_grain(days=28, hours=672, batches=28)
    cooldown: int = _by_grain(days=7, hours=168, batches=7)
    label_patience: int | None = None
    performance_window: int = _by_grain(days=14, hours=336, batches=14)
    min_excess_loss: float = 0.01
    confidence: float = 0.99
    is_drift_enough: bool = False
    max_attempts: int = 3
    monthly_budget_usd: float | None = None
    expected_hours: float | None = None

    def __post_init__(self) -> None:
        kinds.check(self, "Retraining.")
        for name in ("decide_every", "max_age", "performance_window", "max_attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"Retraining.{name} is {getattr(self, name)}; expected at least 1.")
        if self.cooldown < 0 or not 0.5 < self.confidence < 1:
            raise ValueError(
                f"Retraining has cooldown={self.cooldown} and confidence={self.confidence}; "
                "expected at least 0, and between 0.5 and 1."
            )
        if self.label_patience is not None and self.label_patience < 0:
            raise ValueError(
                f"Retraining.label_patience is {self.label_patience!r}; expected a number of keys, at least 0, or None "
                "for the grain's."
            )
        budget = self.monthly_budget_usd
        if budget is not None and not 0 <= budget < math.inf:
            raise ValueError(f"Retraining.monthly_budget_usd is {budget!r}; expected a number, at least 0, or None.")
        hours = self.expected_hours
        if hours is not None and not 0 < hours < math.inf:
            raise ValueError(f"Retraining.expected_hours is {hours!r}; expected a number above 0, or None.")


def check_rules(rules: tuple[CrossRule, ...], sources: set[str], product: str) -> None:
    """Refuse rules about sources that the product does not have."""
    for rule in rules:
        if strangers := set(rule.sources) - sources:
            raise ValueError(
                f"{product}: rule {rule.name!r} names {sorted(strangers)}; the sources are {sorted(sources)}."
            )
    if len({rule.name for rule in rules}) != len(rules):
        raise ValueError(f"{product}: two rules of monitors share a name: {[rule.name for rule in rules]}.")


Rules = TypeVar("Rules", Monitors, Retraining)


def of_grain(rules: Rules, kind: str) -> Rules:
    """Return rules whose numbers of keys are plain: a default that depends on the grain is that of its kind."""
    found = {each.name: getattr(rules, each.name) for each in fields(rules)}
    own: dict[str, Any] = {name: each.of_kind[kind] for name, each in found.items() if isinstance(each, _ByGrain)}
    return replace(rules, **own)


def check_possible(spec: ProductSpec) -> None:
    """Refuse numbers of keys that contradict each other, and so would switch something off that a person counts on."""
    monitors, retraining = spec.monitors, spec.retraining
    if monitors.is_comparing and monitors.min_record_keys > monitors.record_keys:
        raise ValueError(
            f"{spec.name}: Monitors.min_record_keys is {monitors.min_record_keys} and record_keys is "
            f"{monitors.record_keys}, so no key would ever be compared; expected min_record_keys of at most "
            "record_keys, or is_comparing=False to judge rules and shares alone."
        )
    least = LEAST_OF_A_PHASE * monitors.season
    if monitors.is_comparing and monitors.season > 1 and monitors.record_keys < least:
        raise ValueError(
            f"{spec.name}: Monitors.season is {monitors.season} and record_keys is {monitors.record_keys}, which hold "
            f"{monitors.record_keys // monitors.season} keys of each phase; expected record_keys of at least {least}, "
            f"{LEAST_OF_A_PHASE} of each, or season=1 for none."
        )
    if retraining.cooldown > retraining.max_age:
        raise ValueError(
            f"{spec.name}: Retraining.cooldown is {retraining.cooldown} and max_age is {retraining.max_age}, at which "
            "the cooldown would forbid the training that is due; expected a cooldown of at most max_age."
        )
    if spec.window is None:
        return
    labelled = spec.window - spec.label_delay
    if labelled < spec.min_keys:
        raise ValueError(
            f"{spec.name}: window is {spec.window} and min_keys is {spec.min_keys}, of which a window has at most "
            f"{labelled} that are labelled (label_delay={spec.label_delay}), so no training would ever be allowed; "
            f"expected a window of at least {spec.min_keys + spec.label_delay}, or fewer min_keys."
        )
    if labelled - spec.holdout <= monitors.drift_window:
        raise ValueError(
            f"{spec.name}: window is {spec.window} and Monitors.drift_window is {monitors.drift_window}; a model is "
            f"trained on {labelled - spec.holdout} of its keys (label_delay={spec.label_delay}, holdout="
            f"{spec.holdout}), and drift is ranked among more training keys than drift_window. Expected a window of at "
            f"least {monitors.drift_window + spec.holdout + spec.label_delay + 1}, or a smaller drift_window."
        )
