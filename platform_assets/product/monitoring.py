"""Configure how a product is monitored and when it is retrained: `Monitors`, `CrossRule` and `Retraining`.

Thresholds and rules as data, their defaults per grain, and checks for contradictions. Every number of keys is counted
in partition keys, whatever the grain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from platform_assets.base import kinds

if TYPE_CHECKING:
    import polars as pl

LEAST_OF_A_PHASE = 3
"""Keys per phase that a record must have room for: with two, one odd key moves the median."""


class _ByGrain(int):
    """A default number of keys: for days, until the product's grain is known."""

    of_kind: Mapping[str, int]


def _by_grain(*, days: int, hours: int, batches: int) -> int:
    """Return a default that spans the same time in days and in hours; batches have no period and count like days."""
    number = _ByGrain(days)
    number.of_kind = {"daily": days, "hourly": hours, "batch": batches}
    return number


@dataclass(frozen=True, kw_only=True)
class CrossRule:
    """A rule that two or more sources of one key must keep together.

    Attributes:
        name: one clause that says what must hold; alerts quote it.
        sources: names of the sources that it reads; a broken rule is blamed on the first.
        broken: `(validated rows of one key by source) -> the offending rows`.
        max_share (share): the rule is broken when there are more offending rows than this share of its largest source.
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
    """How to tell whether a key is sound, drifting or faulty.

    Attributes:
        rules: rules between sources.
        max_quarantined_share (share of rows): a key with more quarantined rows in one source is faulty; so is a key
            that loses more rows of features because their values are not what `fields` declares.
        is_comparing: whether a key is compared with accepted keys; False applies only rules and shares.
        record_keys (keys): how many of the last accepted keys a key is compared with. Three weeks of hours, not eight,
            because judging a key reads as many sketches.
        min_record_keys (keys): with fewer accepted keys nothing is compared.
        season (keys): after how many keys traffic repeats; 1 for never. Volume is compared with keys of the same phase,
            overlap with an older key with what accepted keys the same number of phases apart usually share.
        max_volume_log_ratio (natural log): how far the number of rows of a source may be from the median of its phase.
        max_repeated_share (share of rows): a key with more duplicates is faulty.
        max_overlap (share of rows): a key that shares more rows with one of the `record_keys` keys before it is faulty.
        max_statistic_shift (standard deviations): a key whose mean of one of a source's `statistics` is farther from
            that of the accepted keys is faulty; the standard deviation is that of single rows.
        min_frozen_columns (columns): a source counts as frozen when at least this many of its columns stop varying.
        margin (factor): by how much the worst accepted overlap, or the drift limit below, must be exceeded to count.
        drift_window (keys): how many keys one drift index covers.
        drift_limit (quantile): of the drift indexes of the training keys' own windows; drift begins at
            `margin` times it.
        repair_within (keys): how long a fault waits for a person; then the platform leaves out the source, or drops the
            key.
        min_equal_share (share of entities): how many of a key's distinct entities must be served with exactly our
            features. Below it the key is skewed: an alert is raised, and the key is measured by its bundles' answers to
            our own features.
    """

    rules: tuple[CrossRule, ...] = ()
    # Thresholds were chosen with a look at the year of flights on which false alarms are counted, which flatters them.
    max_quarantined_share: float = 0.01
    is_comparing: bool = True
    # Not eight weeks of hours, because each key reads as many sketches.
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
        decide_every (keys): from one decision day to the next; on other keys the decision is "wait", unless one is
            requested.
        anchor: a key that is a decision day; None for the grain's first key.
        max_age (keys): since the last training; after that a model is trained again whatever its quality.
        cooldown (keys): at least this many between two trainings.
        label_patience (keys): how long after labels were due a training waits for them; then their key leaves the
            window, by a record. None takes the grain's default: 7 days, 48 hours, 5 batches.
        performance_window (keys): how many of the last labelled keys are tested against what the model's answers
            promise.
        min_excess_loss (nats): by how much log loss must exceed the model's own expectation, besides being significant.
        confidence (probability): that a model whose answers are right fails none of the tests over
            `performance_window`. Their margins come from the task, but for `min_excess_loss`.
        is_drift_enough: whether drift alone is a reason to train.
        max_attempts (runs): how many runs a training gets in all; if the last one fails it is given up, with an alert.
        monthly_budget_usd (US dollars): what the trainings of one calendar month may cost; None for no limit.
        rebuild_usd (US dollars): up to which price a training makes keys that an earlier version of the product made
            again first, by itself. Above it the training waits, with an alert. None takes the price of one training.
        expected_hours (hours): how long a training and its export take, until one of this size has been measured, or
            where the next one takes longer than that. None expects every try to run until its deadline.
    """

    decide_every: int = _by_grain(days=7, hours=168, batches=7)
    anchor: str | None = None
    max_age: int = _by_grain(days=28, hours=672, batches=28)
    cooldown: int = _by_grain(days=7, hours=168, batches=7)
    label_patience: int | None = None
    performance_window: int = _by_grain(days=14, hours=336, batches=14)
    min_excess_loss: float = 0.01
    # A model of March that is too low by 1 in log odds in July reaches p = .03 in a fortnight: max_age trains it.
    confidence: float = 0.99
    is_drift_enough: bool = False
    max_attempts: int = 3
    monthly_budget_usd: float | None = None
    rebuild_usd: float | None = None
    # Counts where it is above what was measured, too: a person knows first of growing epochs or rows.
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
        for name in ("monthly_budget_usd", "rebuild_usd"):
            usd = getattr(self, name)
            if usd is not None and not 0 <= usd < math.inf:  # NaN fails it too
                raise ValueError(f"Retraining.{name} is {usd!r}; expected a number, at least 0, or None.")
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
    """Replace defaults that depend on the grain by those of this kind of grain."""
    values = {field.name: getattr(rules, field.name) for field in fields(rules)}
    of_kind: dict[str, Any] = {
        name: value.of_kind[kind] for name, value in values.items() if isinstance(value, _ByGrain)
    }
    return replace(rules, **of_kind)


def check_possible(monitors: Monitors, retraining: Retraining, product: str) -> None:
    """Refuse numbers of keys that contradict each other and would silently switch something off."""
    if monitors.is_comparing and monitors.min_record_keys > monitors.record_keys:
        raise ValueError(
            f"{product}: Monitors.min_record_keys is {monitors.min_record_keys} and record_keys is "
            f"{monitors.record_keys}, so no key would ever be compared; expected min_record_keys of at most "
            "record_keys, or is_comparing=False to judge rules and shares alone."
        )
    least = LEAST_OF_A_PHASE * monitors.season
    if monitors.is_comparing and monitors.season > 1 and monitors.record_keys < least:
        raise ValueError(
            f"{product}: Monitors.season is {monitors.season} and record_keys is {monitors.record_keys}, which hold "
            f"{monitors.record_keys // monitors.season} keys of each phase; expected record_keys of at least {least}, "
            f"{LEAST_OF_A_PHASE} of each, or season=1 for none."
        )
    if retraining.cooldown > retraining.max_age:
        raise ValueError(
            f"{product}: Retraining.cooldown is {retraining.cooldown} and max_age is {retraining.max_age}, at which "
            "the cooldown would forbid the training that is due; expected a cooldown of at most max_age."
        )
