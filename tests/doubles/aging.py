"""A past in which a fit loses `COST` nats per row and key of age: every number of a backtest is then a closed form."""

import math

import numpy as np

from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.operations.experiments.backtest_arithmetic import Past
from platform_assets.product.tasks import Binary

COST, KEYS, EVERY = 0.1, 12, 2
STARTS = tuple(range(0, KEYS, EVERY))


def aging(cost: float = COST, *, worst: int = 0, rows: int = 2) -> Past:
    """Return a past in which a fit loses its age on a key (1 on its cutoff) less `worst`, times `cost`."""
    labels = np.arange(rows) % 2 == 1

    def answers_at(age: int) -> np.ndarray:
        right = math.exp(-cost * (age - worst))
        return np.where(labels, right, 1 - right)

    return Past(
        measures=measures_of(Binary()),
        keys=tuple(f"{number:04d}" for number in range(1, KEYS + 1)),
        labels=tuple(labels for _ in range(KEYS)),
        starts=STARTS,
        answers=tuple(tuple(answers_at(path - start + 1) for path in range(start, KEYS)) for start in STARTS),
        cpu_s=tuple(10.0 * (fit + 1) for fit in range(len(STARTS))),
    )
