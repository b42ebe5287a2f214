"""Gather what two demos of one recording must agree in, from records, and give it one sha256.

Belongs here: what is determined by recording, code and seed. Does not belong here: times, memory, paths, run ids and
whatever else is measured, nor how it is printed (`tables.py`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from platform_assets.demo.journal import Journal, Plan
from platform_assets.handle import Product
from platform_assets.history.faults import judgement
from platform_assets.history.performance import measured
from platform_assets.records.judgements import Judgement
from platform_assets.storage.artifacts import canonical, sha256

DIGITS = 9
"""Numbers are compared to so many decimals."""
ASKED = ("requests", "answered", "refused")
OF_A_FAULT = ("kind", "source", "check", "column", "came", "expected", "episode", "by", "why")
Cell = int | float | str | None
OF_A_RELEASE = ("cutoff", "outcome", "why", "by", "at_utc")
SENTENCES = ("why", "came", "expected", "description")
"""What is worded: two demos need not agree in it."""


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """The fault that was delivered without telling the platform."""

    kind: str
    description: str
    source: str
    check: str
    keys: list[str]


class Released(TypedDict):
    """A release."""

    number: int
    digest: str
    cutoff: str
    outcome: str
    why: str
    by: str
    at_utc: str


class Faulted(TypedDict):
    """A record of a key's fault ledger; None is what its kind does not have."""

    key: str
    number: int
    kind: str
    source: str | None
    check: str | None
    column: str | None
    came: str | None
    expected: str | None
    episode: str | None
    by: str | None
    why: str | None


@dataclass(frozen=True, kw_only=True)
class Results:
    """What must be equal.

    Attributes:
        columns: of the rows of keys, in order.
        keys: a row a key.
        releases: a row a release, oldest first.
        faults: a row a record of a key's fault ledger, in order.
        injected: the fault that was delivered; None without one.
    """

    columns: tuple[str, ...]
    keys: tuple[dict[str, Cell], ...]
    releases: tuple[Released, ...]
    faults: tuple[Faulted, ...]
    injected: Delivered | None

    def to_json(self) -> bytes:
        """Return the one JSON text of all of it."""
        return self._text(lambda whole: whole)

    @property
    def sha256(self) -> str:
        """By which two demos are compared: of all but its sentences."""
        return sha256(self._text(_unworded))

    def _text(self, told: Callable[[Any], Any]) -> bytes:
        injected = None if self.injected is None else asdict(self.injected)
        whole = {"keys": self.keys, "releases": self.releases, "faults": self.faults, "injected": injected}
        return canonical(told(whole))

    def caught(self) -> dict[str, str | None]:
        """Return for each key with the injected fault the check that named its source, or None."""
        if self.injected is None:
            return {}
        named = {
            fault["key"]: fault["check"]
            for fault in reversed(self.faults)
            if fault["kind"] == "fault" and fault["source"] == self.injected.source
        }
        return {key: named.get(key) for key in self.injected.keys}

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write `results.json`, and its keys as `results.csv`; return both places."""
        folder.mkdir(parents=True, exist_ok=True)
        as_json, as_csv = folder / "results.json", folder / "results.csv"
        as_json.write_bytes(self.to_json())
        text = io.StringIO()
        rows = csv.DictWriter(text, self.columns, lineterminator="\n")
        rows.writeheader()
        rows.writerows(self.keys)
        as_csv.write_text(text.getvalue(), encoding="utf-8")
        return as_json, as_csv


def collect(product: Product, plan: Plan, journal: Journal) -> Results:
    """Read the results of a demo's keys."""
    tables, history = product.tables, product.history
    records, judged = tables.records("performance", plan.keys), tables.records("drift", plan.keys)
    measures = [each.name for each in product.spec.task.measures[:2]]
    rows: list[dict[str, Cell]] = []
    for key in plan.keys:
        asked = journal.asked(key)
        numbers = measured(records[key]) if key in records else None
        quality = (numbers.quality if numbers else None) or {}
        drift = judgement(judged[key]) if key in judged else Judgement()
        decision = history.decision(key)
        rows.append(
            {
                "key": key,
                **{name: getattr(asked, name, None) for name in ASKED},
                "labelled": numbers.labelled if numbers else None,
                **{name: _rounded(quality.get(name)) for name in measures},
                "drift_percentile": _rounded(drift.index.percentile if drift.index else None),
                "answers_percentile": _rounded(drift.mix.percentile if drift.mix else None),
                "verdict": drift.verdict or None,
                "decision": None if decision is None else decision.action,
            }
        )
    injected = plan.injected
    return Results(
        columns=tuple(rows[0]),
        keys=tuple(rows),
        releases=tuple(
            msgspec.convert({"number": number, "digest": record.digest, **record.present(OF_A_RELEASE)}, Released)
            for number, record in history.releases()
        ),
        faults=tuple(
            msgspec.convert(
                {"key": key, "number": number, **dict.fromkeys(OF_A_FAULT), **record.present(OF_A_FAULT)}, Faulted
            )
            for key in plan.keys
            for number, record in history.faults(key)
        ),
        injected=None
        if injected is None
        else Delivered(
            kind=injected.kind.name,
            description=injected.kind.description,
            source=injected.kind.source,
            check=injected.kind.check,
            keys=list(injected.keys),
        ),
    )


def _unworded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unworded(inner) for name, inner in value.items() if name not in SENTENCES}
    return [_unworded(inner) for inner in value] if isinstance(value, list | tuple) else value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
