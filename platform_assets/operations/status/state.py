"""A product's state as types: what `driftline status --json` prints, members in this order. None means unknown."""

from __future__ import annotations

import msgspec

from platform_assets.store.records.alerts import Failure
from platform_assets.store.records.base import Number
from platform_assets.store.records.decisions import Decision, Latency
from platform_assets.store.records.performance import Interval, Promised
from platform_assets.store.records.prediction_log import Attendance
from platform_assets.store.records.sources import SlowSource
from platform_assets.store.records.verdicts import Rows


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """The newest release; `digest` is that of its bundle."""

    number: int
    digest: str
    cutoff: str
    outcome: str
    why: str
    by: str
    at_utc: str


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """The live model's verdict, with each model's measures in the task's order."""

    passed: bool
    rows: Rows
    models: dict[str, dict[str, Number | None]]


class Live(Released, frozen=True, kw_only=True):
    """The live model.

    Attributes:
        age_keys: keys from its cutoff to the key after the newest closed one.
        age_hours: since its release was recorded, on the product's clock.
    """

    age_keys: int | None
    age_hours: float | None
    verdict: Judged | None


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """The newest window of labelled answers.

    Attributes:
        key: the newest of the window.
        quality: by measure; intervals end where the measure does.
        promises: which tests of the model's promises fail, as a clause.
        held: the task's `headline` on the keys that the window leaves out for a fault, by key.
    """

    key: str
    keys: int
    first: str
    last: str
    rows: int
    model: Promised | None
    quality: dict[str, Interval | None]
    promises: str | None
    held: dict[str, Number | None]
    headline: str


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """The measures of one group of a column, over the newest window; `note` says which are undefined, and why."""

    slice: str
    value: str
    rows: int
    quality: dict[str, Number | None]
    note: str | None


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """The newest judgement."""

    key: str
    verdict: str
    percentile: Number | None
    mean_psi: Number | None
    limit: Number


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A key that is left out for a fault."""

    key: str
    kind: str
    is_held: bool
    source: str | None = None
    check: str | None = None
    why: str | None = None
    at_utc: str | None = None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of any moment; `grain` is `daily`, `hourly` or `batch`."""

    product: str
    title: str
    grain: str
    newest_closed_key: str | None
    release: Live | None
    decision: Decision | None
    held: list[Held]


class Past(Standing, frozen=True, kw_only=True):
    """A product's state at a past moment."""

    at_utc: str


class PutAside(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of features that the newest keys lack, because their values are not what the fields declare."""

    rows: int
    built: int
    keys: int
    newest: str
    why: dict[str, int]


class Older(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of the next training's window whose rows an earlier version of the product made.

    Attributes:
        among: the keys of the window.
        stages: whose version differs, with the number of keys.
        since_utc: when the first rows of the present version were made.
        usd: what making them again costs, by their own records; `cpu_s` likewise.
        renewal: the number of the renewal that makes them again.
        outlook: what becomes of them, as a clause.
    """

    keys: int
    among: int
    first: str
    last: str
    stages: dict[str, int]
    since_utc: str | None
    cpu_s: float
    usd: float
    renewal: int | None
    outlook: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A slow table of which some keys keep an older snapshot than the newest, or that a rebuild has yet to cover.

    Attributes:
        keys: with features.
        older: of these, with an older snapshot.
        rebuild: the number of the newest rebuild while it is not over.
        left: how many keys it has yet to make; None before its first run.
    """

    source: str
    keys: int
    older: int
    rebuild: int | None
    left: int | None


class Undeclared(msgspec.Struct, frozen=True, kw_only=True):
    """Columns that a source delivers, does not declare, and that are left out; `newest` is the last key with any."""

    source: str
    columns: tuple[str, ...]
    newest: str


class Unlabelled(msgspec.Struct, frozen=True, kw_only=True):
    """A key whose labels were given up, including one whose labels arrived later."""

    key: str
    at_utc: str | None
    by: str
    format: int
    from_cutoff: str
    kind: str
    until_cutoff: str | None
    why: str


class Failed(Failure, frozen=True, kw_only=True):
    """The newest run that failed; `number` is that of its record, which a sensor writes."""

    number: int | None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A command for a shell, and when to run it."""

    when: str
    command: str


class Todo(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person should do now.

    Attributes:
        about: `held`, `older_rows`, `stale_model`, `missing_label`, `broken_file`, `refused` or `service`.
        key: which key it concerns; None where it is the whole product.
        text: what is wrong and what happens next, in sentences.
        steps: alternatives; usually one of them is run.
    """

    about: str
    key: str | None
    text: str
    steps: list[Step]


class Rare(msgspec.Struct, frozen=True, kw_only=True):
    """How the live model does on the rare class of its holdout."""

    average_precision: Number
    base_rate: Number


class Received(Attendance, frozen=True, kw_only=True, omit_defaults=False):
    """What the service's processes sent for the newest closed key."""

    key: str


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """The newest evaluated model, where it was not accepted; `digest` is that of its bundle."""

    cutoff: str
    digest: str
    reasons: tuple[str, ...]


class State(Standing, frozen=True, kw_only=True, omit_defaults=True):
    """A product's state. `heard` is there on a cluster, `rare` for a rare class,
    `refused` while the newest evaluated model is not accepted, `older` while rows of several versions exist,
    `waits_for` while more keys can come, `snapshots` while keys keep older ones, `slow` while sources hold the ticks
    up, `undeclared` while deliveries have columns that nothing declares.
    """

    is_live: bool
    now_utc: str | None
    quality: Quality | None
    drift: Drift | None
    put_aside: PutAside | None
    unlabelled: list[Unlabelled]
    failure: Failed | None
    latency: Latency | None
    slices: list[Slice] | None
    todo: list[Todo]
    heard: Received | None = None
    automation: str | None = None
    rare: Rare | None = None
    refused: Refused | None = None
    older: Older | None = None
    snapshots: list[Snapshot] = msgspec.field(default_factory=list)
    slow: list[SlowSource] | None = None
    undeclared: list[Undeclared] = []
    waits_for: str | None = None


class BrokenFile(msgspec.Struct, frozen=True, kw_only=True):
    """Why a product's file cannot be loaded."""

    file: str
    error: str


class BrokenState(msgspec.Struct, frozen=True, kw_only=True):
    """A product whose file is broken; what is released stays."""

    product: str
    broken: BrokenFile
    release: Released | None
    todo: list[Todo]
