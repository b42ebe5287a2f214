"""Fit a tuned LightGBM on the folds of row Q1, without this project: `python lightgbm_peer.py FOLDER SETTINGS`.

Reads `x.npy` (float32 [N, F], categories as codes in the last columns), `y.npy`, `fold.npy` (the month of each row)
and `folds.json`; writes `lightgbm.npy` (the probability of each tested row, NaN elsewhere) and `lightgbm.json`
(CPU seconds per fold). SETTINGS is a JSON file with `rounds` and `settings`.
"""

import json
import sys
import time
from pathlib import Path

import lightgbm
import numpy as np


def main(folder: Path, frozen: Path) -> None:
    """Fit each fold on the months before it and predict it."""
    x, y, fold = (np.load(folder / f"{name}.npy") for name in ("x", "y", "fold"))
    options = json.loads((folder / "folds.json").read_text(encoding="utf-8"))
    tuned = json.loads(frozen.read_text(encoding="utf-8"))
    settings = {
        **tuned["settings"],
        "objective": "binary",
        "seed": 0,
        "deterministic": True,
        "num_threads": options["threads"],
        "verbose": -1,
    }
    categories = list(range(x.shape[1] - options["categories"], x.shape[1]))
    probabilities = np.full(len(y), np.nan)
    used_s = {}
    for tested in options["tested"]:
        begin_s = time.process_time()
        rows = fold < tested
        data = lightgbm.Dataset(x[rows], y[rows], categorical_feature=categories)
        booster = lightgbm.train(settings, data, tuned["rounds"])
        used_s[tested] = time.process_time() - begin_s
        probabilities[fold == tested] = booster.predict(x[fold == tested])
    np.save(folder / "lightgbm.npy", probabilities)
    (folder / "lightgbm.json").write_text(json.dumps(used_s), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
