"""The lineage of an answer, back to the landed files, as types: what `driftline trace --json` prints, in this order.

None means unknown, or not on record.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from platform_assets.store.records.attempts import Attempt, Overspending
from platform_assets.store.records.performance import Differing, Value
from platform_assets.store.records.releases import Release
from platform_assets.store.records.verdicts import Verdict


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of an answer.

    Attributes:
        logged: by field.
        is_compared: whether we have features for the entity and time.
        differing: which differ from our features as they are now.
    """

    logged: dict[str, Value]
    is_compared: bool
    differing: list[Differing]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The label of an entity, and when it became known."""

    label: Value
    known_at: str | None


class OnRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record of a key's fault ledger; what its kind does not have is absent."""

    number: int
    kind: str | UnsetType = UNSET
    source: str | UnsetType | None = UNSET
    check: str | UnsetType | None = UNSET
    column: str | UnsetType | None = UNSET
    came: str | UnsetType | None = UNSET
    expected: str | UnsetType | None = UNSET
    why: str | UnsetType | None = UNSET
    by: str | UnsetType | None = UNSET
    at_utc: str | UnsetType | None = UNSET


class FaultyKey(msgspec.Struct, frozen=True, kw_only=True):
    """A faulty key that the answer's features look back on; `kind` is the newest record's. Records: oldest first."""

    key: str
    kind: str
    is_held: bool
    is_out: bool
    records: list[OnRecord]


class Released(Release, frozen=True, kw_only=True):
    """The release whose model answered, as its record."""

    number: int


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """The bundle that answered."""

    digest: str
    cutoff: str
    known_before: str | None
    contract_sha256: str


class Tried(Attempt, frozen=True, kw_only=True, omit_defaults=False):
    """An attempt at its training or export."""

    number: int


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What led to the model; `is_exact` says whether its own training is on record, and not another of its cutoff."""

    cutoff: str
    fingerprint: str | None
    is_exact: bool
    attempts: list[Tried]
    over_budget: list[Overspending]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a key."""

    stage: str
    key: str
    table_version: int | None
    rows: int
    content_digest: str


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A landed file."""

    uri: str | None
    sha256: str
    bytes: int | None
    arrived_at_utc: str | None


class SourceRows(msgspec.Struct, frozen=True, kw_only=True):
    """What features were made from: a source's rows of a key."""

    source: str
    key: str
    validated: Table | None
    file: File | None


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """Our features of the answer's key."""

    record: Table | None
    sources: list[SourceRows]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Keys in order."""

    keys: int
    first: str
    last: str


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that a model saw; a table version stands where they are still those of the newest record."""

    content_digest: str
    table_version: int | None


class LearnedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that a model learned from or was judged on; `files` by source."""

    features: Rows
    outcomes: Rows
    files: dict[str, File | None]


class TrainedOn(msgspec.Struct, frozen=True, kw_only=True):
    """The rows behind the model; `unlabelled` are the keys that it did without, and why."""

    training: Span
    holdout: Span
    unlabelled: dict[str, str]
    keys: dict[str, LearnedKey]


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """The whole lineage; `answer` is a row of the log, whose columns are of the product's kind of task."""

    product: str
    answer: dict[str, Value | list[float]]
    inputs: Inputs | None
    outcome: Outcome | None
    faults: list[FaultyKey]
    release: Released | None
    model: Model
    verdict: Verdict | None
    training: Training
    features: Features
    trained_on: TrainedOn
