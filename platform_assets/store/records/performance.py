"""Define how answers compare with outcomes: the notes of a key's partition record of `performance`.

Members that `driftline status` prints are in alphabetical order, as notes are stored. Members added by later code are
not an error, because records of keys are read by whatever code is installed.
"""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from platform_assets.store.records.base import Decided, Number, Part, Record, RecordKind, Row

Value = str | int | float | bool | None
"""A value of a field; an image's is a text with its digest."""


class Interval(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A measure over a window; without an interval where there is only one key."""

    high: Number | None
    low: Number | None
    value: Number


class Tested(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The result of testing one promise; `low`, `high` and both p-values are None where too few keys can tell.

    Attributes:
        name, words, side, margin: as in `evaluation.promises.Promise`; `words` is its description.
        keys: number of keys that can tell.
        effect: the mean over keys.
        low, high: its interval.
        p_value: probability of an effect at least as bad for a model that keeps the promise.
        p_adjusted: the same for the whole family: at most `alpha` in a share `alpha` of windows of honest models.
    """

    effect: Number | None
    high: Number | None
    keys: int
    low: Number | None
    margin: Number | None
    name: str
    p_adjusted: Number | None
    p_value: Number | None
    side: int
    words: str


class Promised(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """One model's loss against the loss its predictions promise, over labelled rows that it answered.

    Attributes:
        digest, rows: the bundle and its number of rows; absent for a model that was never released.
        log_loss, expected_log_loss: means over rows, in nats.
        excess: `log_loss - expected_log_loss`.
        p_value: of the excess; None when it cannot be tested.
        tests: the family by name, empty with one key.
    """

    digest: str | UnsetType = UNSET
    excess: Number
    expected_log_loss: Number
    keys: int
    log_loss: Number
    p_value: Number | None
    rows: int | UnsetType = UNSET
    tests: dict[str, Tested]


class Window(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Quality over the last labelled keys.

    Attributes:
        keys, rows: those with labels.
        key_names: all keys considered, in order.
        quality: by measure; None where it is undefined.
        model: the bundle that gave most of the newest key's answers.
    """

    first: str
    key_names: list[str]
    keys: int
    last: str
    model: Promised | None
    quality: dict[str, Interval | None]
    rows: int


class Differing(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A field whose served value differs from ours, with one example; `share` is of all entities."""

    field: str
    rows: int
    share: Number
    entity: str
    asked_at: str
    served: Value
    ours: Value


class Compared(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Served features against ours.

    Attributes:
        rows: distinct entities compared.
        rows_unknown: entities with a moment that we do not have.
        share: share of equal entities among the compared ones; None without any.
        fields: those that differ.
        limit, is_skewed: as `store.records.decisions.Skew`.
        not_compared: why features could not be compared; None when they could.
        own_answers: for a skewed key, the bundles that answered our own features instead.
        not_scored: why other bundles did not.
    """

    rows: int
    rows_equal: int
    rows_unknown: int
    share: Number | None
    fields: list[Differing]
    limit: Number | UnsetType = UNSET
    is_skewed: bool | UnsetType = UNSET
    not_compared: str | UnsetType | None = UNSET
    own_answers: list[str] | UnsetType = UNSET
    not_scored: list[str] | UnsetType = UNSET


class Measured(Record, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The numbers of a key.

    Attributes:
        decided: how the answers would be used, as the task describes it.
        digest: the bundle that gave most of the answers; quality and expectation are over its rows.
        labels: the task's summary of all labels.
        models: the same numbers in short, per bundle.
        quality: the task's measures; None without labels.
        window: None before the first label.
    """

    decided: Decided | None
    digest: str | None
    excess_log_loss: Number | None
    expected_log_loss: Number | None
    labelled: int
    labels: dict[str, Number | dict[str, int] | None]
    models: list[Row]
    quality: dict[str, Number | None] | None
    rows: int
    skew: Compared | UnsetType = UNSET
    window: Window | UnsetType | None = UNSET


MEASURED = RecordKind("performance", Measured)
