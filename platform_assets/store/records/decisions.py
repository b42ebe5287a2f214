"""Define the decision on a key: written once, with every number it was based on."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from platform_assets.base import naming
from platform_assets.store.records.base import Number, Part, Record, RecordKind
from platform_assets.store.records.performance import Tested

Action = Literal["retrain", "wait", "alert_fault"]


class DecidedFault(Part, frozen=True, kw_only=True):
    """The key's fault: its primary failed check (absent where none is known) and its episode."""

    source: str | UnsetType = UNSET
    check: str | UnsetType = UNSET
    column: str | UnsetType | None = UNSET
    came: str | UnsetType = UNSET
    expected: str | UnsetType = UNSET
    episode: str


class Performance(Part, frozen=True, kw_only=True):
    """The live model's loss against the loss its own predictions promise.

    Attributes:
        keys: number of labelled keys that it answered.
        log_loss, expected: means over their rows, in nats.
        excess: `log_loss - expected`.
        p_value: of an excess this large if the model were as good as promised, as a single test; None from one key.
        tests: the whole family, by name.
        failing: the names of the failing tests.
    """

    keys: int
    log_loss: Number
    expected: Number
    excess: Number
    p_value: Number | None
    tests: dict[str, Tested]
    failing: tuple[str, ...]


class Skew(Part, frozen=True, kw_only=True):
    """Training-serving skew: `share` of `rows` have equal features; `limit` is the minimum."""

    rows: int
    share: Number | None
    limit: Number
    is_skewed: bool


class Latency(Part, frozen=True, kw_only=True):
    """Latency on the newest keys; the last three members are None with too few requests to judge."""

    first: str
    last: str
    keys: int
    limit_ms: Number
    requests: int
    slow: int
    stalls: int
    share: Number | None
    p_value: Number | None
    is_slow: bool | None


class Numbers(Part, frozen=True, kw_only=True):
    """The numbers behind a decision."""

    is_decision_key: bool
    decide_every: int
    model_age_keys: int | None
    training_age_keys: int | None
    live_digest: str | None
    max_age_keys: int
    cooldown_keys: int
    usable_keys: int
    min_keys: int
    unlabelled: tuple[str, ...]
    given_up: tuple[str, ...]
    given_up_now: tuple[str, ...]
    lacks_newest: bool
    waited_keys: int
    fresh_keys: int | None
    held: tuple[str, ...]
    performance: Performance | None
    skew: Skew | None
    min_excess_loss: Number
    confidence: Number
    verdict: str
    drift_index: Number | None
    drift_percentile: Number | None
    answers_percentile: Number | None
    is_drift_enough: bool
    budget_usd: Number | None
    is_newest: bool
    overdue_keys: int | None
    awaits_labels: bool


class Measured(Part, frozen=True, kw_only=True):
    """Numbers that depend on the machine and the moment, so two replays of the same keys may differ in them."""

    spent_usd: Number
    next_usd: Number | None
    latency: Latency | None


class Decision(Record, frozen=True, kw_only=True):
    """The decision on a key.

    Attributes:
        cutoff: of a model trained now; None at the end of the grain.
        reasons: sentences, the decisive one first.
        is_free: whether the key was free to decide; if not, the next key decides instead.
        request: the number of the request that it answers.
    """

    product: str
    key: str
    action: Action
    cutoff: str | None
    reasons: tuple[str, ...]
    numbers: Numbers
    is_free: bool
    fault: DecidedFault | None
    request: int | None
    at_utc: str
    measured: Measured


DECISIONS = RecordKind(naming.DECISIONS, Decision)
