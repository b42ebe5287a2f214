"""How a product stands, as types: what `driftline status --json` prints, in the order of its members.

Belongs here: what is told. Does not belong here: reading it (the package), or words (`words`). None is unknown.
"""

from __future__ import annotations

import msgspec

from platform_assets.records.base import Number
from platform_assets.records.decisions import Latency
from platform_assets.records.performance import Interval, Promised
from platform_assets.records.verdicts import Rows


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A part of what is told."""


class Released(Told, frozen=True, kw_only=True):
    """The newest release; `digest` is that of its bundle."""

    number: int
    digest: str
    cutoff: str
    outcome: str
    why: str
    by: str
    at_utc: str


class Judged(Told, frozen=True, kw_only=True):
    """How the live model was judged, each model's measures in the task's order."""

    passed: bool
    rows: Rows
    models: dict[str, dict[str, Number | None]]


class Live(Released, frozen=True, kw_only=True):
    """The live model.

    Attributes:
        age_keys: keys from its cutoff to the key after the newest closed one.
        age_hours: what passed on the product's clock since its release was recorded.
    """

    age_keys: int | None
    age_hours: float | None
    verdict: Judged | None


class Quality(Told, frozen=True, kw_only=True):
    """The newest window of labelled answers.

    Attributes:
        key: the newest of the window.
        promises: what the tests of the model's promises show, as a clause.
        held: what callers got on the keys that the window leaves out for a fault, by key: the task's `headline`.
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


class Drift(Told, frozen=True, kw_only=True):
    """The newest judgement."""

    key: str
    verdict: str
    percentile: Number | None
    mean_psi: Number | None
    limit: Number


class Decided(Told, frozen=True, kw_only=True):
    """The newest decision."""

    key: str
    action: str
    cutoff: str | None
    reasons: tuple[str, ...]
    at_utc: str


class Held(Told, frozen=True, kw_only=True):
    """A key that is left out for a fault."""

    key: str
    kind: str
    is_held: bool
    source: str | None = None
    check: str | None = None
    why: str | None = None
    at_utc: str | None = None


class PutAside(Told, frozen=True, kw_only=True):
    """How many rows of features the newest keys lack for values that no field declares."""

    rows: int
    built: int
    keys: int
    newest: str
    why: dict[str, int]


class Unlabelled(Told, frozen=True, kw_only=True):
    """A key whose labels were given up, also one whose labels came after all."""

    key: str
    at_utc: str | None
    by: str
    format: int
    from_cutoff: str
    kind: str
    until_cutoff: str | None
    why: str


class Failed(Told, frozen=True, kw_only=True):
    """The newest run that failed."""

    number: int
    job: str
    run_id: str
    first: str | None
    last: str | None
    step: str | None
    error: str
    attempt: str | None
    sensor: str | None
    at_utc: str


class Availability(Told, frozen=True, kw_only=True):
    """What the service answered since it started."""

    is_up: bool
    answered: int
    refused: int
    failed: int
    share: float | None
    since_utc: str


class State(Told, frozen=True, kw_only=True):
    """A product."""

    product: str
    title: str
    is_live: bool
    now_utc: str | None
    newest_closed_key: str | None
    release: Live | None
    quality: Quality | None
    drift: Drift | None
    decision: Decided | None
    held: list[Held]
    put_aside: PutAside | None
    unlabelled: list[Unlabelled]
    failure: Failed | None
    availability: Availability | None
    latency: Latency | None


class BrokenFile(Told, frozen=True, kw_only=True):
    """Why a product's file cannot be loaded."""

    file: str
    error: str


class BrokenState(Told, frozen=True, kw_only=True):
    """A product whose file is broken; what is released stays."""

    product: str
    broken: BrokenFile
    release: Released | None
