"""Configure how a product's model is trained, judged and served: `Training`, `Gates` and `Service`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from platform_assets.base import kinds

LEAST_EPOCHS = 4
LEAST_STEPS = 1_000
"""Measured: this many steps teach the default network a smooth function of ten numbers from 3,500 rows, where 56 steps
leave most of it unlearned. They overfit 3,500 noisy rows of 89 fields, where 56 steps are best. So the best epoch's
weights are kept.
"""
LEAST_ROWS = 100
"""With fewer rows, none are set aside to choose the epoch."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Everything that may vary between trainings; part of the training's fingerprint and of the bundle.

    Attributes:
        profile: size of the machine: a name in `platform_assets.launch.profiles`.
        seed (number): of the weights, the order of rows and dropout.
        threads (threads): CPU threads of a fit; fixed here, because the order of floating-point sums depends on it.
        epochs (passes over the rows): None for as many as make 1,000 steps, at least 4. Then the newest tenth of the
            rows is not learned from: after each epoch the weights are judged on it, and the best ones become the model.
        batch_size (rows): per step of the optimizer.
        learning_rate (per step): of AdamW.
        weight_decay (per step): of AdamW.
        settings: what the product's `model` reads, such as widths, dropout, bins.
    """

    profile: str = "cpu_small"
    seed: int = 0
    threads: int = 1
    epochs: int | None = None
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds.check(self, "Training.")
        for name in ("threads", "epochs", "batch_size", "learning_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"Training.{name} is {value}; expected more than 0.")

    def epochs_of(self, rows: int) -> int:
        """Return the number of passes for a training on `rows` rows."""
        if self.epochs is not None:
            return self.epochs
        return max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / math.ceil(rows / self.batch_size)))

    def judged_of(self, rows: int) -> int:
        """Return how many of the newest rows choose the epoch to keep; 0 keeps the last one."""
        # Of 3,500 flights 1,000 steps gave a log loss of 1.70, 56 steps .527, a constant .554, a chosen epoch .544.
        return 0 if self.epochs is not None or rows < LEAST_ROWS else rows // 10


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What a challenger must show before it may be released.

    Attributes:
        max_drop (of the headline metric): how far AUC, accuracy or R² may fall below the champion's before weaker
            evidence suffices to refuse a challenger; None takes the task's own margin.
        confidence (probability): that a challenger as good as the champion is not refused, over headline, log loss and
            calibration error together. Also the confidence of intervals, which are clustered by key.
    """

    max_drop: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        kinds.check(self, "Gates.")
        if (self.max_drop is not None and self.max_drop < 0) or not 0 < self.confidence < 1:
            raise ValueError(
                f"Gates has max_drop={self.max_drop} and confidence={self.confidence}; "
                "expected a drop of at least 0 and a confidence between 0 and 1."
            )


@dataclass(frozen=True, kw_only=True)
class Service:
    """How the product answers requests.

    Attributes:
        latency_ms (milliseconds): at most one request in a thousand may take longer (the 99.9th percentile).
        max_rows (rows): the longest list that one request may hold.
        max_body_bytes (bytes): a longer request is refused with 413.
        logs_features: whether the prediction log may hold the inputs (privacy).
        asked_within: how far `asked_at` may lie outside the time that the grain's keys span; None takes `lookback` and
            one key more, at least one day. Numbered batches span no such time.
        clock_within: for a live product, how far both moments of a request may be from the server's clock; None takes
            `lookback`, `label_delay` and one key more, at least a week; for numbered batches one year.
        answers_patience: on a cluster, how long after its end a key waits for answers that service processes have not
            sent to the store; then it is measured without them, and its record names these processes.
    """

    latency_ms: float = 100.0
    max_rows: int = 256
    max_body_bytes: int = 1_000_000
    logs_features: bool = True
    asked_within: timedelta | None = None
    clock_within: timedelta | None = None
    # Not forever, because what a process had not sent when its node died never comes.
    answers_patience: timedelta = timedelta(minutes=15)

    def __post_init__(self) -> None:
        kinds.check(self, "Service.")
        if not 0 < self.latency_ms < math.inf:
            raise ValueError(f"Service.latency_ms is {self.latency_ms!r}; expected a number above 0.")
        for name in ("asked_within", "clock_within"):
            value = getattr(self, name)
            if value is not None and value <= timedelta(0):
                raise ValueError(f"Service.{name} is {value}; expected more than nothing, such as timedelta(days=7).")
        if self.answers_patience < timedelta(0):
            raise ValueError(f"Service.answers_patience is {self.answers_patience}; expected nothing or more.")
