"""Say how a product is watched and when it is trained again: `Monitors`, `CrossRule` and `Retraining`.

Belongs here: thresholds and rules as data. Does not belong here: applying them (`compute.faults`, `compute.drift`,
`compute.policy`). Every number of keys is counted in partition keys, whatever the grain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


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
        max_quarantined_share: above it a source's key is faulty.
        record_keys: with how many of the last accepted keys a key is compared.
        min_record_keys: with fewer accepted keys nothing is compared, only rules and shares are judged.
        season: keys after which traffic repeats: volume is compared with keys of the same phase, an overlap with what
            keys as many phases apart usually share; 1 for none.
        max_volume_log_ratio: how far the rows of a source may be from the median of their phase, as a natural log.
        max_repeated_share: duplicates within a key, above which it is faulty.
        max_overlap: rows that a key shares with one of the `record_keys` keys before it, above which it is faulty.
        max_statistic_shift: how far a key's mean of one of a source's `statistics` may lie from the accepted keys', in
            standard deviations of single rows, above which it is faulty.
        min_frozen_columns: how many columns of a source must stand still before it counts as frozen.
        margin: how many times the worst accepted overlap, or the drift limit below, must be exceeded to count.
        drift_window: keys that make one drift index (a week of days).
        drift_limit: the quantile of the contiguous training windows' own indexes; drift begins at `margin` times it.
        repair_within: keys for which a fault waits for a person; then the platform nulls the source, or drops the key.
        min_equal_share: share of a key's distinct entities whose served features must all equal ours. Below it the
            key is skewed: a person is told, and the key is measured by its bundles' answers to our own features.
    """

    rules: tuple[CrossRule, ...] = ()
    max_quarantined_share: float = 0.01
    record_keys: int = 56
    min_record_keys: int = 14
    season: int = 7
    max_volume_log_ratio: float = 0.5
    max_repeated_share: float = 0.01
    max_overlap: float = 0.5
    max_statistic_shift: float = 0.5
    min_frozen_columns: int = 3
    margin: float = 1.25
    drift_window: int = 7
    drift_limit: float = 0.99
    repair_within: int = 3
    min_equal_share: float = 0.99

    def __post_init__(self) -> None:
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

    decide_every: int = 7
    anchor: str | None = None
    max_age: int = 28
    cooldown: int = 7
    label_patience: int | None = None
    performance_window: int = 14
    min_excess_loss: float = 0.01
    confidence: float = 0.99
    is_drift_enough: bool = False
    max_attempts: int = 3
    monthly_budget_usd: float | None = None
    expected_hours: float | None = None

    def __post_init__(self) -> None:
        for name in ("decide_every", "max_age", "performance_window", "max_attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"Retraining.{name} is {getattr(self, name)}; expected at least 1.")
        if self.cooldown < 0 or not 0.5 < self.confidence < 1:
            raise ValueError(
                f"Retraining has cooldown={self.cooldown} and confidence={self.confidence}; "
                "expected at least 0, and between 0.5 and 1."
            )
        patience: object = self.label_patience
        if patience is not None and (not isinstance(patience, int) or isinstance(patience, bool) or patience < 0):
            raise ValueError(
                f"Retraining.label_patience is {patience!r}; expected a number of keys, at least 0, or None for the "
                "grain's."
            )
        budget: object = self.monthly_budget_usd
        if budget is not None and not (isinstance(budget, int | float) and 0 <= budget < math.inf):
            raise ValueError(f"Retraining.monthly_budget_usd is {budget!r}; expected a number, at least 0, or None.")
        hours = self.expected_hours
        if hours is not None and not (type(hours) in (int, float) and 0 < hours < math.inf):
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
