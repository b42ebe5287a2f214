"""How answers compare with what came true: the notes of a key's record among the partition records of `performance`.

Members that `driftline status` prints are in the order of their names, in which notes are stored. What later code adds
is not an error here: records of keys are read by whatever code is installed.
"""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from platform_assets.records.base import Decided, Number, Part, Record, RecordKind, Row

Value = str | int | float | bool | None
"""A value of a field; of an image its digest, in words."""


class Interval(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A measure over a window; without an interval where one key cannot say."""

    high: Number | None
    low: Number | None
    value: Number


class Tested(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What the keys say about one promise: `compute.promises.Tested`, which learning can import without records."""

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
    """How one model does against what its answers promise, over labelled rows that it answered.

    Attributes:
        digest, rows: of a bundle and its rows; absent where a model is tested that was never released.
        log_loss, expected_log_loss: means over rows, in nats.
        excess: the one minus the other.
        p_value: of the excess; None when it cannot be tested.
        tests: each of the family by name, none with one key; absent in records of older code.
    """

    digest: str | UnsetType = UNSET
    excess: Number
    expected_log_loss: Number
    keys: int
    log_loss: Number
    p_value: Number | None
    rows: int | UnsetType = UNSET
    tests: dict[str, Tested] | UnsetType = UNSET


class Window(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """How the last labelled keys together were answered.

    Attributes:
        keys, rows: those with labels.
        key_names: all keys that were looked at, in order.
        quality: by measure; None where it is not defined.
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
    """A field that was served with another value than ours, and one example of it; `share` is of all entities."""

    field: str
    rows: int
    share: Number
    entity: str
    asked_at: str
    served: Value
    ours: Value


class Compared(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """How the features that were served compare with ours.

    Attributes:
        rows: distinct entities compared.
        rows_unknown: of which some moment is not ours.
        share: of those that are equal; None without any.
        fields: those that differ.
        limit, is_skewed: as `records.decisions.Skew`.
        not_compared: why features could not be compared; None when they could.
        own_answers: of a skewed key, the bundles that answered to our own features instead.
        not_scored: why others did not.
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
        decided: what is done with the answers, in the task's words.
        digest: the bundle that gave most of the answers; quality and expectation are of its rows.
        labels: the task's summary of all labels.
        models: the same in short, by bundle.
        quality: the task's measures; None without labels.
        skew: how the features that were served compare with ours.
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
