"""The numbered batches with enough epochs to beat every baseline, as a module of its own, which real steps load."""

from dataclasses import replace
from typing import Any

import polars as pl

from driftline import Tables, Training, Window
from tests.doubles import numbered_batches as batches


def features(tables: Tables, window: Window) -> pl.DataFrame:
    return batches.features(tables, window)


def label(verdicts: pl.DataFrame) -> pl.DataFrame:
    return batches.label(verdicts)


def model(learned: Any, training: Training) -> Any:
    return batches.model(learned, training)


SPEC = replace(
    batches.SPEC,
    features=features,
    label=label,
    model=model,
    training=Training(threads=1, epochs=60, batch_size=16, learning_rate=0.01, settings=batches.SPEC.training.settings),
    holdout=3,
    min_keys=8,
)
