"""Fit the cheap models that every challenger must beat: a constant, and a linear model of the same inputs.

Both are JSON values scored with numpy alone, so evaluation needs no torch. The linear model reads the same columns as
the network: z-scores, missing indicators, one coefficient per known category, and for an image the mean grey levels of
a coarse grid. Its outputs go through the task: a logistic, a multinomial or a normal regression.

Shapes: N rows, D inputs of the linear model, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np

from platform_assets.product.inputs import Inputs
from platform_assets.product.learned import Learned
from platform_assets.training import libraries
from platform_assets.training.learn import codes

if TYPE_CHECKING:
    from platform_assets.product.tasks import Task
    from platform_assets.product.tasks.base import Target

FORMAT = 2
Z_LIMIT = 6.0
MAX_ITERATIONS = 100
PENALTY_ROWS = 1.0
"""Ridge penalty: half the squared coefficients weigh as much as the loss of this many rows."""
MOST_CELLS = 14
"""Cells per side of the grid in which a linear model sees an image."""
CONSTANT, LINEAR = "constant", "linear"
# A column per value of two categories with 200 each took 13 GB for two million rows.
MOST_EXPANDED = 2**22
"""Cells of a matrix with one column per known category; what would be larger looks coefficients up instead."""
LOOKED_UP = 2**18
"""Coefficients looked up at once, or as many as there are if that is more."""
ROWS_AT_ONCE = 1024


class Baseline(TypedDict):
    """A fitted model: intercept [O] and coefficients [D][O]; a linear one names its inputs in `columns` [D]."""

    kind: str
    columns: NotRequired[list[str]]
    intercept: list[float]
    coefficients: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Rows as the linear model reads them: numbers that multiply coefficients, and places of coefficients that count 1.

    Attributes:
        numbers: float32 [N, K].
        places: which coefficients multiply them, int64 [K].
        looked_up: the place of each category's coefficient, int64 [N, C]; C is 0 where `numbers` has a column for each.
    """

    numbers: np.ndarray
    places: np.ndarray
    looked_up: np.ndarray


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
    blocks = [*_blocks(learned, inputs, task.outputs)]
    linear = _fitted(LINEAR, blocks, labels, task, learned)
    without_inputs = [_without_inputs(len(block.numbers)) for block in blocks]
    del blocks
    models: dict[str, Baseline] = {
        CONSTANT: _fitted(CONSTANT, without_inputs, labels, task, learned),
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
    intercept, coefficients = (np.array(model[name], dtype=np.float64) for name in ("intercept", "coefficients"))
    is_linear = model["kind"] == LINEAR
    blocks = _blocks(learned, inputs, task.outputs) if is_linear else [_without_inputs(len(inputs))]
    coefficients = coefficients.reshape(-1, task.outputs)
    return np.concatenate(
        [
            task.answer(
                intercept
                + block.numbers.astype(np.float64) @ coefficients[block.places]
                + coefficients[block.looked_up].sum(axis=1),
                learned.target,
            )
            for block in blocks
        ]
    )


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


def _without_inputs(rows: int) -> _Block:
    places = np.empty(0, dtype=np.int64)
    return _Block(numbers=np.empty((rows, 0), np.float32), places=places, looked_up=np.empty((rows, 0), dtype=np.int64))


def _blocks(learned: Learned, inputs: Inputs, outputs: int) -> Iterator[_Block]:
    """Yield the rows in order: all of them at once, or in blocks where categories are looked up."""
    categories, width = len(learned.categorical), len(_columns(learned))
    if not categories or len(inputs) * width <= MOST_EXPANDED:
        yield _block(learned, inputs, is_expanded=True)
        return
    # A block costs a gradient of all coefficients, so it looks up as many.
    rows = max(LOOKED_UP // outputs, width) // categories
    for part in inputs.in_batches(max(1, rows)):
        yield _block(learned, part, is_expanded=False)


def _block(learned: Learned, inputs: Inputs, *, is_expanded: bool) -> _Block:
    sizes = [column.size for column in learned.categorical]
    first = len(learned.numeric) + sum(column.has_nulls for column in learned.numeric)
    starts = first + np.cumsum([0, *sizes])
    places = np.arange(starts[-1] + (0 if learned.image is None else np.prod(_grid(learned.image.shape))))
    if not is_expanded:
        places = np.delete(places, np.s_[first : starts[-1]])
    numbers = np.zeros((len(inputs), len(places)), dtype=np.float32)
    nullable = [i for i, column in enumerate(learned.numeric) if column.has_nulls]
    # All but categories: numbers and their indicators first, cells last. In parts, which are copied as wider types.
    for start in range(0, len(inputs), ROWS_AT_ONCE):
        block, part = numbers[start : start + ROWS_AT_ONCE], inputs[start : start + ROWS_AT_ONCE]
        for i, column in enumerate(learned.numeric):
            filled = np.where(np.isnan(part.numeric[:, i]), column.mean, part.numeric[:, i]).astype(np.float64)
            block[:, i] = np.clip((filled - column.mean) / column.std, -Z_LIMIT, Z_LIMIT)
        block[:, len(learned.numeric) : first] = np.isnan(part.numeric[:, nullable])
        if learned.image is not None and part.image is not None:
            (high, wide), shape = _grid(learned.image.shape), part.image.shape
            rows = np.add.reduceat(part.image.astype(np.float32), _starts(shape[1], high), axis=1)
            sums = np.add.reduceat(rows, _starts(shape[2], wide), axis=2)
            areas = np.outer(*(np.diff([*_starts(n, count), n]) for n, count in ((shape[1], high), (shape[2], wide))))
            cells = (sums / areas).reshape(len(part), -1).astype(np.float32)
            block[:, block.shape[1] - cells.shape[1] :] = (cells - learned.image.mean) / learned.image.std
    looked_up = codes(learned, inputs.categorical) + starts[:-1]
    if is_expanded:
        np.put_along_axis(numbers, looked_up, 1.0, axis=1)
        looked_up = looked_up[:, :0]
    return _Block(numbers=numbers, places=places, looked_up=looked_up)


def _grid(shape: tuple[int, int]) -> tuple[int, int]:
    return min(shape[0], MOST_CELLS), min(shape[1], MOST_CELLS)


def _starts(length: int, count: int) -> np.ndarray:
    return np.arange(count) * length // count


def _fitted(kind: str, blocks: list[_Block], labels: np.ndarray, task: Task, learned: Learned) -> Baseline:
    """Minimise the penalised loss; the result does not name its inputs."""
    width = 0 if kind == CONSTANT else len(_columns(learned))
    # torch takes a tenth of the time. What is installed is part of a training's fingerprint.
    minimised = _minimised_by_torch if libraries.has_torch() else _minimised_by_scipy
    weight, bias = minimised(width, blocks, labels, task, learned)
    return {"kind": kind, "intercept": bias.tolist(), "coefficients": weight.tolist()}


def _minimised_by_scipy(
    width: int, blocks: list[_Block], labels: np.ndarray, task: Task, learned: Learned
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients [D, O] and intercept [O]."""
    from scipy.optimize import minimize

    rows = len(labels)
    parts = list(zip(blocks, np.split(labels, np.cumsum([len(block.numbers) for block in blocks])[:-1]), strict=True))

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = flat.reshape(width + 1, task.outputs)
        weight, bias = parameters[:-1], parameters[-1]
        total, slope = 0.5 * PENALTY_ROWS * float((weight**2).sum()), np.vstack([PENALTY_ROWS * weight, 0 * bias])
        for block, y in parts:
            # einsum adds up in one order; a product of matrices in one that depends on the machine's cores.
            outputs = np.einsum("nk,ko->no", block.numbers, weight[block.places]) + bias
            outputs += weight[block.looked_up].sum(axis=1)
            total += float(task.losses(y, task.answer(outputs, learned.target)).sum())
            gradient = _gradient(task, outputs, y, learned.target)
            slope[block.places] += np.einsum("nk,no->ko", block.numbers, gradient)
            for places in block.looked_up.T:
                # With += a place that comes twice would count once.
                np.add.at(slope, places, gradient)
            slope[-1] += gradient.sum(axis=0)
        return total / rows, slope.reshape(-1) / rows

    found = minimize(
        loss,
        np.zeros((width + 1) * task.outputs),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_ITERATIONS, "gtol": 1e-7, "ftol": 1e-12},
    )
    parameters = found.x.reshape(width + 1, task.outputs)
    return parameters[:-1], parameters[-1]


def _gradient(task: Task, outputs: np.ndarray, labels: np.ndarray, target: Target) -> np.ndarray:
    """Return how each row's loss grows with its outputs [N, O]."""
    if target is None:
        likely = task.answer(outputs, target).reshape(len(labels), -1)
        return likely - (labels[:, None] if task.outputs == 1 else np.eye(task.outputs)[labels])
    value, spread = task.answer(outputs, target).T / target["std"]
    beyond = (value - labels / target["std"]) / spread
    slope = 1.0 / (1.0 + np.exp(-outputs[:, 1]))  # of the spread, a softplus
    return np.stack([beyond / spread, (1.0 - beyond**2) / spread * slope], axis=1)


def _minimised_by_torch(
    width: int, blocks: list[_Block], labels: np.ndarray, task: Task, learned: Learned
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients [D, O] and intercept [O]."""
    import torch

    rows = len(labels)
    # float64 is free for a constant; for the inputs of a linear model it would double the time.
    exactness = torch.float32 if width else torch.float64
    weight = torch.zeros(width, task.outputs, dtype=exactness)
    bias = torch.zeros(task.outputs, dtype=exactness)
    parameters = [parameter.requires_grad_() for parameter in ((weight, bias) if width else (bias,))]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=MAX_ITERATIONS, tolerance_grad=1e-7, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )
    ends = np.cumsum([len(block.numbers) for block in blocks])
    parts = [
        [torch.from_numpy(values) for values in (block.numbers, block.places, block.looked_up, block_labels)]
        for block, block_labels in zip(blocks, np.split(labels, ends[:-1]), strict=True)
    ]

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = torch.zeros((), dtype=exactness)
        for numbers, places, looked_up, y in parts:
            penalty = 0.5 * PENALTY_ROWS * weight.square().sum() / rows
            outputs = numbers.to(exactness) @ weight[places] + bias
            if looked_up.shape[1]:
                outputs = outputs + weight[looked_up].sum(dim=1)
            value = (task.loss(outputs, y, learned.target) + penalty) * (len(y) / rows)
            value.backward()
            total = total + value.detach()
        return total

    optimizer.step(loss)
    return weight.detach().numpy(), bias.detach().numpy()
