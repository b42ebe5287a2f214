"""The tiny product with settings to search for; as a program, one search that may be killed at a named point.

`python -m tests.doubles.tuned_product ROOT STATE TRIALS [POINT]`; a point is `curve N` (after the Nth point of any
trial's curve), or `before N` and `after N` (the record of trial N).
"""

from __future__ import annotations

import io
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
from rich.console import Console

from platform_assets.experiments import tune
from platform_assets.handle import Product
from platform_assets.learners.network import Network
from platform_assets.settings import Settings
from platform_assets.specs.base import Choice, Range
from platform_assets.storage.ledger import LedgerWriter
from platform_assets.storage.tables import TableStore
from tests.doubles import tiny_product as tiny

SPEC = replace(
    tiny.SPEC,
    model=Network(model=tiny.model, validation_keys=1),
    training=replace(tiny.SPEC.training, epochs=6),
    search=(
        Range(name="learning_rate", low=1e-5, high=1e-1, is_log=True),
        Range(name="batch_size", low=16, high=256),
        Choice(name="settings.widths", values=((4,), (16, 16))),
    ),
)
BEFORE_HOLDOUT = tiny.TRAINING_KEYS
"""Only these keys have rows: the holdout's do not exist, let alone later ones."""


def product(settings: Settings) -> Product:
    """Return the product; a new store gets rows of the training keys, and only records of the others."""
    if not Path(settings.root).exists():
        tiny.store(settings, BEFORE_HOLDOUT)
        outcomes = {key: pl.DataFrame({"key": [key], "known_at": [tiny.KNOWN_AT]}) for key in tiny.KEYS}
        for stage in ("validated_facts", "validated_outcomes"):
            TableStore(settings.root, "tiny").replace(stage, outcomes, inputs={key: {} for key in outcomes}, code="0")
    return Product(SPEC, settings)


def die_at(point: str) -> None:
    """Kill this process with SIGKILL at a point of the search."""
    kind, count = point.split()
    seen, create, fit = [0], LedgerWriter.create_number, tune.TrialFit.judge

    def created(self: LedgerWriter, number: int, record: object) -> None:
        if kind == "before" and number == int(count):
            os.kill(os.getpid(), signal.SIGKILL)
        create(self, number, record)  # type: ignore[arg-type]
        if kind == "after" and number == int(count):
            os.kill(os.getpid(), signal.SIGKILL)

    LedgerWriter.create_number = created  # type: ignore[method-assign]

    def judged(self: tune.TrialFit, point: dict[str, float], steps: int) -> None:
        fit(self, point, steps)
        seen[0] += 1
        if kind == "curve" and seen[0] == int(count):
            os.kill(os.getpid(), signal.SIGKILL)

    tune.TrialFit.judge = judged  # type: ignore[method-assign]


def main(root: str, state: str, trials: str, point: str | None = None) -> None:
    """Search, or die at a point."""
    if point is not None:
        die_at(point)
    settings = Settings(root=root, state=Path(state))
    tune.run(product(settings), tiny.CUTOFF, int(trials), Console(file=io.StringIO()))


if __name__ == "__main__":
    main(*sys.argv[1:])
