"""The tiny product with settings to search for, and a training that can be slowed down from outside."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from driftline import Choice, Network, Range, Training, Window
from platform_assets.base.settings import Settings
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from tests.doubles import tiny_product as tiny

SLOW_WHILE = "SLOW_WHILE"
"""Names a file: while it exists, a step of a training takes a tenth of a second longer."""


def features(tables: Any, window: Window) -> pl.DataFrame:
    return tiny.features(tables, window)


def model(learned: Any, training: Training) -> Any:
    from driftline import TabularNet

    class Net(TabularNet):
        def decide(self, *encoded: Any) -> Any:
            if self.training and Path(os.environ.get(SLOW_WHILE, "-")).exists():
                time.sleep(0.1)
            return super().decide(*encoded)

    return Net(learned, **training.settings)


SPEC = replace(
    tiny.SPEC,
    features=features,
    model=Network(model=model, validation_keys=1),
    training=replace(tiny.SPEC.training, epochs=6),
    search=(
        Range(name="learning_rate", low=1e-5, high=1e-1, is_log=True),
        Range(name="batch_size", low=16, high=256),
        Choice(name="settings.widths", values=((4,), (16, 16))),
    ),
)
BEFORE_HOLDOUT = tiny.TRAINING_KEYS
"""Only these keys have rows: the holdout's do not exist, let alone later ones."""


def product(settings: Settings) -> ProductStore:
    """Return the product; a new store gets rows of the training keys, and only records of the others."""
    if not TableStore(settings.root, "tiny").records("features"):
        tiny.store(settings, BEFORE_HOLDOUT, SPEC)
        outcomes = {key: pl.DataFrame({"key": [key], "known_at": [tiny.KNOWN_AT]}) for key in tiny.KEYS}
        for stage in ("validated_facts", "validated_outcomes"):
            TableStore(settings.root, "tiny").replace(stage, outcomes, inputs={key: {} for key in outcomes}, code="0")
    return ProductStore(SPEC, settings)
