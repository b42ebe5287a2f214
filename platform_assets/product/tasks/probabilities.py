"""Probabilities of yes: validate them, and measure how likely they make the labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Labels = NDArray[np.bool_]
Floats = NDArray[np.float64]

SMALLEST_PROBABILITY = 1e-7
"""Log loss clips at this distance from 0 and 1, near float32's step below 1: a saturated error costs 16.1 nats."""


def checked(label: ArrayLike, probability: ArrayLike) -> tuple[Labels, Floats]:
    """Validate labels and probabilities; return bool [N] and float64 [N].

    Raises:
        ValueError: no rows, unequal lengths, labels other than 0 and 1, or probabilities outside [0, 1].
    """
    raw = np.asarray(label)
    labels = raw.astype(bool)
    probabilities = np.asarray(probability, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != probabilities.shape:
        raise ValueError(
            f"labels have shape {labels.shape} and probabilities {probabilities.shape}; expected one of each per row."
        )
    if labels.size == 0:
        raise ValueError("there are no labelled rows; a model is measured on at least one. Look at `outcomes`.")
    if not np.array_equal(raw, labels):
        raise ValueError(f"labels hold {np.unique(raw)[:5].tolist()}; expected only 0 and 1. Drop null labels before.")
    wrong = ~((probabilities >= 0) & (probabilities <= 1))
    if wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} of {wrong.size} probabilities lie outside [0, 1], "
            f"the first is {probabilities[wrong][0]} in row {int(np.argmax(wrong))}; check the model that gave them."
        )
    return labels, probabilities


def log_losses(label: ArrayLike, probability: ArrayLike) -> Floats:
    """Return each row's negative log likelihood in nats [N], clipped by `SMALLEST_PROBABILITY`."""
    labels, probabilities = checked(label, probability)
    likelihood = np.where(labels, probabilities, 1.0 - probabilities)
    return -np.log(np.clip(likelihood, SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY))
