"""Fit the cheap models that every challenger must beat: a constant, and a linear model of the same inputs.

Both are JSON values scored with numpy alone, so evaluation needs no torch. The linear model reads the same columns as
the network: z-scores, missing indicators, one coefficient per known category, and for an image the mean grey levels of
a coarse grid. Its outputs go through the task: a logistic, a multinomial or a normal regression.

Shapes: N rows, D inputs of the linear model, O outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np

from platform_assets.compute.learn import Learned, codes
from platform_assets.compute.matrix import Inputs

if TYPE_CHECKING:
    from platform_assets.compute.tasks import Task

FORMAT = 2
Z_LIMIT = 6.0
MAX_ITERATIONS = 100
PENALTY_ROWS = 1.0
"""Ridge penalty: half the squared coefficients weigh as much as the loss of this many rows."""
MOST_CELLS = 14
"""Cells per side of the grid in which a linear model sees an image."""
CONSTANT, LINEAR = "constant", "linear"


class Baseline(TypedDict):
    """A fitted model: intercept [O] and coefficients [D][O]; a linear one names its inputs in `columns` [D]."""

    kind: str
    columns: NotRequired[list[str]]
    intercept: list[float]
    coefficients: list[list[float]]


class Baselines(TypedDict):
    """The fitted models and their mean loss on the training rows, by name."""

    format: int
    models: dict[str, Baseline]
    train_log_loss: dict[str, float]


def fit(learned: Learned, inputs: Inputs, labels: np.ndarray, task: Task) -> Baselines:
    """Fit both baselines on the training rows.

    Args:
        learned: from the same rows.
        labels: [N], in the task's encoding.
    """
    nothing = np.empty((len(inputs), 0), dtype=np.float32)
    linear = _fitted(LINEAR, _dense(learned, inputs), labels, task, learned)
    models: dict[str, Baseline] = {
        CONSTANT: _fitted(CONSTANT, nothing, labels, task, learned),
        LINEAR: {**linear, "columns": _columns(learned)},
    }
    losses = {
        name: float(task.losses(labels, score(model, learned, inputs, task)).mean()) for name, model in models.items()
    }
    return {"format": FORMAT, "models": models, "train_log_loss": losses}


def score(model: Baseline, learned: Learned, inputs: Inputs, task: Task) -> np.ndarray:
    """Return one baseline's answers, float64 [N] or [N, P].

    Args:
        model: one of those `fit` returned, or the same parsed from JSON.
        learned: from the rows on which it was fitted.
    """
    if model["kind"] not in (CONSTANT, LINEAR):
        raise ValueError(f"a baseline has kind {model['kind']!r}; expected {CONSTANT} or {LINEAR}.")
    outputs = np.repeat(np.array([model["intercept"]], dtype=np.float64), len(inputs), axis=0)
    if model["kind"] == LINEAR:
        outputs += _dense(learned, inputs).astype(np.float64) @ np.array(model["coefficients"], dtype=np.float64)
    return task.answer(outputs, learned.target)


def _columns(learned: Learned) -> list[str]:
    """Name the inputs of the linear model, in order."""
    names = [column.name for column in learned.numeric]
    names += [f"{column.name} is null" for column in learned.numeric if column.has_nulls]
    for column in learned.categorical:
        names += [f"{column.name} is unknown", *(f"{column.name} = {word}" for word in column.vocabulary)]
    if learned.image is not None:
        high, wide = _grid(learned.image.shape)
        names += [f"{learned.image.name} at {down}, {across}" for down in range(high) for across in range(wide)]
    return names


def _dense(learned: Learned, inputs: Inputs) -> np.ndarray:
    """Build the linear model's inputs, float32 [N, D]."""
    parts, indicators = [], []
    for i, column in enumerate(learned.numeric):
        z, is_null = _standardised(inputs.numeric[:, i], column.mean, column.std)
        parts.append(z[:, None])
        if column.has_nulls:
            indicators.append(is_null[:, None])
    parts += indicators
    for i, column_codes in enumerate(codes(learned, inputs.categorical).T):
        parts.append(np.eye(learned.categorical[i].size, dtype=np.float32)[column_codes])
    if learned.image is not None and inputs.image is not None:
        cells = _coarse(inputs.image, _grid(learned.image.shape))
        parts.append((cells - learned.image.mean) / learned.image.std)
    nothing = np.empty((len(inputs), 0), dtype=np.float32)
    return np.concatenate([nothing, *parts], axis=1).astype(np.float32)


def _grid(shape: tuple[int, int]) -> tuple[int, int]:
    return min(shape[0], MOST_CELLS), min(shape[1], MOST_CELLS)


def _coarse(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the mean grey levels of a grid of cells, float32 [N, cells], row by row."""
    rows = np.add.reduceat(image.astype(np.float32), _starts(image.shape[1], grid[0]), axis=1)
    cells = np.add.reduceat(rows, _starts(image.shape[2], grid[1]), axis=2)
    sizes = np.outer(*(np.diff([*_starts(n, count), n]) for n, count in zip(image.shape[1:], grid, strict=True)))
    return np.asarray((cells / sizes).reshape(len(image), -1).astype(np.float32))


def _starts(length: int, count: int) -> np.ndarray:
    return np.arange(count) * length // count


def _standardised(column: np.ndarray, mean: float, std: float) -> tuple[np.ndarray, np.ndarray]:
    is_null = np.isnan(column)
    z = (np.where(is_null, mean, column).astype(np.float64) - mean) / std
    return np.clip(z, -Z_LIMIT, Z_LIMIT), is_null


def _fitted(kind: str, dense: np.ndarray, labels: np.ndarray, task: Task, learned: Learned) -> Baseline:
    """Minimise the penalised loss; the result does not name its inputs."""
    import torch

    x, y = torch.from_numpy(dense), torch.from_numpy(labels)
    # float64 is free for a constant; for the inputs of a linear model it would double the time.
    exactness = torch.float32 if dense.shape[1] else torch.float64
    x, weight = x.to(exactness), torch.zeros(dense.shape[1], task.outputs, dtype=exactness)
    bias = torch.zeros(task.outputs, dtype=exactness)
    parameters = [parameter.requires_grad_() for parameter in ((weight, bias) if dense.shape[1] else (bias,))]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=MAX_ITERATIONS, tolerance_grad=1e-7, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        penalty = 0.5 * PENALTY_ROWS * weight.square().sum() / len(y)
        value = task.loss(x @ weight + bias, y, learned.target) + penalty
        value.backward()
        return value

    optimizer.step(loss)
    return {"kind": kind, "intercept": bias.tolist(), "coefficients": weight.tolist()}
