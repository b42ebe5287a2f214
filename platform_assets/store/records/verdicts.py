"""Define the verdict on a challenger: one per bundle, written once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from platform_assets.base import naming
from platform_assets.store.records.base import Decided, Number, Part, Record, RecordKind, Row
from platform_assets.store.records.releases import Digest, Signature

FORMAT = 3
CHALLENGER, CHAMPION = "challenger", "champion"
T = TypeVar("T")


class Rows(Part, frozen=True, kw_only=True):
    """The holdout and its labels: positives, rows per class, or the range of numbers."""

    labelled: int
    without_label: int
    keys: int
    first_key: str
    last_key: str
    positives: int | None = None
    classes: dict[str, int] | None = None
    lowest: Number | None = None
    highest: Number | None = None
    mean: Number | None = None


class Gates(Part, frozen=True, kw_only=True):
    """The gates of the evaluation; `headline` names the task's first measure."""

    headline: str
    max_drop: Number
    confidence: Number


class Verdict(Record, frozen=True, kw_only=True):
    """The verdict on the bundle `digest`.

    `models` has the measures of each model: the challenger, the champion if there is one, and the baselines.
    `comparisons`, `decided`, `calibration` and `slices` have the members of the task's measures.
    """

    product: str
    digest: Digest
    cutoff: str
    champion_digest: Digest | None
    passed: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    rows: Rows
    gates: Gates
    models: dict[str, dict[str, Number | None]]
    comparisons: list[dict[str, Number | str | bool | dict[str, Number] | None]]
    decided: dict[str, Decided]
    calibration: dict[str, list[Row]]
    slices: dict[str, list[Row]]
    signed: Signature | None = None

    @property
    def challenger(self) -> dict[str, Number | None]:
        """The challenger's measures."""
        return self.models[CHALLENGER]


VERDICTS = RecordKind(naming.VERDICTS, Verdict, newest=FORMAT)


def contestants(models: Mapping[str, T]) -> dict[str, T]:
    """Order values by model: challenger, champion, then the baselines by name."""
    order = sorted(models, key=lambda name: (CHALLENGER, CHAMPION, name).index(name))
    return {name: models[name] for name in order}
