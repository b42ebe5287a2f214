"""Read from records what recording, code and seed determine, so that two demos can be compared by one sha256.

Times, memory, paths and run ids are left out: they are measured.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from platform_assets.demo.journal import Journal, Plan
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.history.faults import judgement
from platform_assets.store.history.performance import measured
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.judgements import Judgement

DIGITS = 9
"""Decimals to which numbers are compared."""
ASKED = ("requests", "answered", "refused")
OF_A_FAULT = ("kind", "source", "check", "column", "came", "expected", "episode", "by", "why")
Cell = int | float | str | None
OF_A_RELEASE = ("cutoff", "outcome", "why", "by", "at_utc")
SENTENCES = ("why", "came", "expected", "description")
"""Members that are sentences: they are not part of the sha256."""


@dataclass(frozen=True, kw_only=True)
class InjectedFault:
    """The injected fault, which the platform is not told about."""

    kind: str
    description: str
    source: str
    check: str
    keys: list[str]


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results that must be equal between two demos.

    Attributes:
        columns: of `keys`, in order.
        keys: one row per key.
        releases: one row per release, oldest first.
        faults: one row per record of a key's fault ledger, in order.
        injected: None without a fault.
    """

    columns: tuple[str, ...]
    keys: tuple[dict[str, Cell], ...]
    releases: tuple[dict[str, Cell], ...]
    faults: tuple[dict[str, Cell], ...]
    injected: InjectedFault | None

    def to_json(self) -> bytes:
        """Return the results as canonical JSON."""
        return self._text(lambda whole: whole)

    @property
    def sha256(self) -> str:
        """The digest of everything but sentences."""
        return sha256(self._text(_without_sentences))

    def _text(self, select: Callable[[Any], Any]) -> bytes:
        injected = None if self.injected is None else asdict(self.injected)
        whole = {"keys": self.keys, "releases": self.releases, "faults": self.faults, "injected": injected}
        return canonical(select(whole))

    def checks_by_key(self) -> dict[str, Cell]:
        """Return the check that named the faulty source, by key with the injected fault; None where no check did."""
        if self.injected is None:
            return {}
        named = {
            fault["key"]: fault["check"]
            for fault in reversed(self.faults)
            if fault["kind"] == "fault" and fault["source"] == self.injected.source
        }
        return {key: named.get(key) for key in self.injected.keys}

    def injection_text(self) -> str:
        """Return which fault the upstream delivered, and on which keys the platform named its source."""
        injected = self.injected
        if injected is None:
            return "No fault was injected: too few keys are replayed, or the recording declares none."
        first = (
            f"Injected without telling the platform: {injected.kind} ({injected.description}), {injected.source} of "
            f"{', '.join(injected.keys)}."
        )
        lines = (
            f"  {key}: not named; expected {injected.check}"
            if check is None
            else f"  {key}: named by {check} of {injected.source}"
            for key, check in self.checks_by_key().items()
        )
        return "\n".join([first, *lines])

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write `results.json`, and its keys as `results.csv`; return both paths."""
        folder.mkdir(parents=True, exist_ok=True)
        as_json, as_csv = folder / "results.json", folder / "results.csv"
        as_json.write_bytes(self.to_json())
        text = io.StringIO()
        rows = csv.DictWriter(text, self.columns, lineterminator="\n")
        rows.writeheader()
        rows.writerows(self.keys)
        as_csv.write_text(text.getvalue(), encoding="utf-8")
        return as_json, as_csv


def collect(product: ProductStore, plan: Plan, journal: Journal) -> Results:
    """Read the results of the keys of a demo."""
    tables, history = product.tables, product.history
    records, judged = tables.records("performance", plan.keys), tables.records("drift", plan.keys)
    measures = [measure.name for measure in measures_of(product.spec.task).of_answers[:2]]
    rows: list[dict[str, Cell]] = []
    for key in plan.keys:
        requests = journal.results_of(key)
        numbers = measured(records[key]) if key in records else None
        quality = (numbers.quality if numbers else None) or {}
        drift = judgement(judged[key]) if key in judged else Judgement()
        decision = history.decision(key)
        rows.append(
            {
                "key": key,
                **{name: getattr(requests, name, None) for name in ASKED},
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
            {"number": number, "digest": record.digest, **record.present(OF_A_RELEASE)}
            for number, record in history.releases()
        ),
        faults=tuple(
            {"key": key, "number": number, **dict.fromkeys(OF_A_FAULT), **record.present(OF_A_FAULT)}
            for key in plan.keys
            for number, record in history.faults(key)
        ),
        injected=None
        if injected is None
        else InjectedFault(
            kind=injected.kind.name,
            description=injected.kind.description,
            source=injected.kind.source,
            check=injected.kind.check,
            keys=list(injected.keys),
        ),
    )


def _without_sentences(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_sentences(inner) for name, inner in value.items() if name not in SENTENCES}
    return [_without_sentences(inner) for inner in value] if isinstance(value, list | tuple) else value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
