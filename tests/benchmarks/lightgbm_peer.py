"""Fit LightGBM on the folds of row Q1, in its own virtual environment: `python lightgbm_peer.py FOLDER`.

Reads `x.npy` (float32 [N, F], categories as codes in the last columns), `y.npy`, `fold.npy` (the month of each row)
and `folds.json`; writes `lightgbm.npy` (the probability of each tested row, NaN elsewhere) and `lightgbm.json`
(CPU seconds per fold). Independent of the project.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import lightgbm
import numpy as np

ROUNDS = 400
SETTINGS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "seed": 0,
    "deterministic": True,
    "verbose": -1,
}


def main(folder: Path) -> None:
    """Fit each fold on the months before it and predict it."""
    x, y, fold = (np.load(folder / f"{name}.npy") for name in ("x", "y", "fold"))
    options = json.loads((folder / "folds.json").read_text(encoding="utf-8"))
    categories = list(range(x.shape[1] - options["categories"], x.shape[1]))
    probabilities = np.full(len(y), np.nan)
    used_s = {}
    for tested in options["tested"]:
        begin_s = time.process_time()
        rows = fold < tested
        data = lightgbm.Dataset(x[rows], y[rows], categorical_feature=categories)
        booster = lightgbm.train({**SETTINGS, "num_threads": options["threads"]}, data, ROUNDS)
        used_s[tested] = time.process_time() - begin_s
        probabilities[fold == tested] = booster.predict(x[fold == tested])
    np.save(folder / "lightgbm.npy", probabilities)
    (folder / "lightgbm.json").write_text(json.dumps(used_s), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
