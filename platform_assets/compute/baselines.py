"""Fit the cheap models that every challenger must beat: a constant and a logistic regression.

Both are JSON values, scored with numpy alone, so that an evaluation needs no torch. The regression reads the
same columns as the network: z-scores, missing indicators and one coefficient a known category.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from platform_assets.compute.learn import Learned, codes

FORMAT = 1
Z_LIMIT = 6.0
MAX_ITERATIONS = 100
PENALTY_ROWS = 1.0
"""Ridge penalty: half the squared coefficients weigh as much as this many rows' loss."""


def fit(learned: Learned, numeric: np.ndarray, categorical: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Fit both on the training rows.

    Args:
        learned: from the same rows.
        numeric: float32 [N, F], NaN for null.
        categorical: text [N, C].
        labels: zeros and ones [N].

    Returns:
        JSON values `{"format", "models": {name: model}, "train_log_loss": {name: loss}}`; each model goes into `score`.
    """
    models = {
        "constant": {"kind": "constant", "probability": float(np.mean(labels, dtype=np.float64))},
        "logistic": _logistic(learned, numeric, categorical, labels),
    }
    losses = {name: _log_loss(score(model, numeric, categorical), labels) for name, model in models.items()}
    return {"format": FORMAT, "models": models, "train_log_loss": losses}


def score(model: dict[str, Any], numeric: np.ndarray, categorical: np.ndarray) -> np.ndarray:
    """Return probabilities float64 [N] of one baseline.

    Args:
        model: one of the models that `fit` returned, or its JSON twin.
        numeric: float32 [N, F], NaN for null.
        categorical: text [N, C], "" for null.
    """
    if model["kind"] == "constant":
        return np.full(len(numeric), model["probability"], dtype=np.float64)
    if model["kind"] != "logistic":
        raise ValueError(f"a baseline has kind {model['kind']!r}; expected constant or logistic.")
    logit = np.full(len(numeric), model["intercept"], dtype=np.float64)
    for i, column in enumerate(model["numeric"]):
        z, is_null = _standardised(numeric[:, i], column["mean"], column["std"])
        logit += z * column["coefficient"] + is_null * column["missing"]
    for i, column in enumerate(model["categorical"]):
        values, places = np.unique(np.asarray(categorical[:, i], dtype=str), return_inverse=True)
        known = column["coefficients"]
        logit += np.array([known.get(str(value), column["unknown"]) for value in values], dtype=np.float64)[places]
    return 1.0 / (1.0 + np.exp(-logit))


def _log_loss(chance: np.ndarray, labels: np.ndarray) -> float:
    said = np.where(labels == 1, chance, 1.0 - chance)
    return float(-np.log(np.maximum(said, 1e-12)).mean())


def _standardised(column: np.ndarray, mean: float, std: float) -> tuple[np.ndarray, np.ndarray]:
    is_null = np.isnan(column)
    z = (np.where(is_null, mean, column).astype(np.float64) - mean) / std
    return np.clip(z, -Z_LIMIT, Z_LIMIT), is_null


def _logistic(learned: Learned, numeric: np.ndarray, categorical: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, embedding

    with_nulls = [i for i, column in enumerate(learned.numeric) if column.has_nulls]
    dense = np.empty((len(labels), len(learned.numeric) + len(with_nulls)), dtype=np.float32)
    for i, column in enumerate(learned.numeric):
        dense[:, i], is_null = _standardised(numeric[:, i], column.mean, column.std)
        if column.has_nulls:
            dense[:, len(learned.numeric) + with_nulls.index(i)] = is_null
    sizes = [column.size for column in learned.categorical]
    starts = np.cumsum([0, *sizes])
    x, places = torch.from_numpy(dense), torch.from_numpy(codes(learned, categorical) + starts[:-1])
    y = torch.from_numpy(np.asarray(labels, dtype=np.float32))
    weight, table, bias = torch.zeros(dense.shape[1]), torch.zeros(int(starts[-1]), 1), torch.zeros(1)
    parameters = [parameter.requires_grad_() for parameter in (weight, table, bias)]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=MAX_ITERATIONS, tolerance_grad=1e-5, tolerance_change=1e-8, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logit = x @ weight + bias
        if sizes:
            logit = logit + embedding(places, table).sum(dim=(1, 2))
        penalty = 0.5 * PENALTY_ROWS * (weight.square().sum() + table.square().sum()) / len(y)
        value = binary_cross_entropy_with_logits(logit, y) + penalty
        value.backward()
        return value

    optimizer.step(loss)
    coefficients, effects = weight.detach().tolist(), table.detach()[:, 0].tolist()
    missing = dict(zip(with_nulls, coefficients[len(learned.numeric) :], strict=True))
    return {
        "kind": "logistic",
        "intercept": bias.item(),
        "numeric": [
            {
                "name": column.name,
                "mean": column.mean,
                "std": column.std,
                "coefficient": coefficients[i],
                "missing": missing.get(i, 0.0),
            }
            for i, column in enumerate(learned.numeric)
        ],
        "categorical": [
            {
                "name": column.name,
                "unknown": effects[starts[i]],
                "coefficients": dict(zip(column.vocabulary, effects[starts[i] + 1 : starts[i + 1]], strict=True)),
            }
            for i, column in enumerate(learned.categorical)
        ],
    }
