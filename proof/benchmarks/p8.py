"""Drift: CPU for 100,000 rows x 50 columns, against Evidently's PSI and one pass over the cells.

Ours counts the rows on the learned bins and compares them with a sealed reference, as stage `drift` does. Evidently
0.7 gets the same rows in memory and computes the PSI of every column in one report. The limit is one polars pass, the
mean of each column. Half of the columns take eight values, for which both bin alike: there the PSI must agree to one
thousandth. For the others Evidently cuts the range into equal parts and ours into equal shares of the training rows,
so only the columns called drifting (PSI above 0.1, Evidently's own threshold) must be the same. Medians of five
interleaved rounds, after a warm-up, every contestant in a process of its own.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from platform_assets.base.settings import Settings
from platform_assets.monitoring import drift_index
from platform_assets.product.learned import Learned
from platform_assets.product.spec import Field
from platform_assets.training.histograms import histograms
from platform_assets.training.learn import learn
from platform_assets.training.matrix import inputs_of
from platform_assets.training.reference import reference_of
from proof.benchmarks.harness import Disagreement, Measure

ROUNDS = 5
ROWS, COLUMNS, LEVELS = 100_000, 50, 8
PEER = ("evidently==0.7.23", "pandas<3", "pyarrow")
REPOSITORY = Path(__file__).resolve().parents[2]
THRESHOLD, TOLERANCE = 0.1, 1e-3
DISCRETE = [f"d{place}" for place in range(COLUMNS // 2)]
CONTINUOUS = [f"c{place}" for place in range(COLUMNS - COLUMNS // 2)]


def run() -> list[Measure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Write reference and current rows: every fifth column has drifted.
        stream = np.random.default_rng(8)
        for file, moved in (("reference", 0.0), ("current", 1.0)):
            columns: dict[str, Any] = {}
            for index, name in enumerate(DISCRETE):
                shares = np.exp(-0.08 * (1 if index % 5 else 1 - 2 * moved) * np.arange(LEVELS))
                columns[name] = stream.choice(LEVELS, ROWS, p=shares / shares.sum()).astype(np.float64)
            for index, name in enumerate(CONTINUOUS):
                columns[name] = stream.normal(0 if index % 5 else moved, 1, ROWS)
            pl.DataFrame(columns).write_parquet(folder / f"{file}.parquet")
        rounds = [
            {"evidently": _evidently(folder), **{contestant: _ours(contestant, folder) for contestant in OURS}}
            for _ in range(ROUNDS)
        ]
    for entry in rounds:
        _agree(entry["drift"]["psi"], entry["evidently"]["psi"])
    cpu_ms = {
        contestant: 1e3 * statistics.median(entry[contestant]["cpu_s"] for entry in rounds)
        for contestant in ("drift", "pass", "evidently")
    }
    return [
        Measure(
            "100,000 rows x 50 columns: CPU ms",
            cpu_ms["drift"],
            peers={"Evidently": cpu_ms["evidently"]},
            limit=cpu_ms["pass"],
            target="<= 10x limit",
        ),
        Measure("Evidently's CPU over the limit", None, peers={"Evidently": cpu_ms["evidently"] / cpu_ms["pass"]}),
        Measure(
            "largest difference in PSI from Evidently, columns of eight values",
            max(abs(entry["drift"]["psi"][c] - entry["evidently"]["psi"][c]) for entry in rounds for c in DISCRETE),
            target="<= 0.001",
        ),
    ]


def _agree(ours: dict[str, float], theirs: dict[str, float]) -> None:
    for name in DISCRETE:
        if abs(ours[name] - theirs[name]) > TOLERANCE:
            raise Disagreement(f"the PSI of {name} is {ours[name]:.5f} here and {theirs[name]:.5f} with Evidently.")
    drifting = [{name for name, value in item.items() if value > THRESHOLD} for item in (ours, theirs)]
    if drifting[0] != drifting[1] or not drifting[0]:
        raise Disagreement(f"ours calls {sorted(drifting[0])} drifting, Evidently {sorted(drifting[1])}.")


def _evidently(folder: Path) -> dict[str, Any]:
    """Run the peer in its own virtual environment, created on first use."""
    path = Settings.from_environment().state / "bench-envs" / "evidently"
    python = path / "bin" / "python"
    if not (path / "ready").exists():
        venv.create(path, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER], check=True)
        (path / "ready").touch()
    subprocess.run(
        [python, Path(__file__).with_name("evidently_peer.py"), folder], check=True, stdout=subprocess.DEVNULL
    )
    result: dict[str, Any] = json.loads((folder / "evidently.json").read_text(encoding="utf-8"))
    return result


def _ours(contestant: str, folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, __file__, contestant, folder]
    ended = subprocess.run(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


def _drift(folder: Path) -> Callable[[pl.DataFrame], dict[str, float]]:
    reference = pl.read_parquet(folder / "reference.parquet")
    fields = [Field(name=name, dtype="float", description="") for name in reference.columns]
    learned: Learned = learn(inputs_of(reference, fields), fields)
    sealed = reference_of({"reference": histograms(reference, learned)})

    def compute(frame: pl.DataFrame) -> dict[str, float]:
        received = histograms(frame, learned)
        return {
            name: float(drift_index.psi(np.array(received[name]), counts[0])) for name, counts in sealed.fields.items()
        }

    return compute


def _pass(folder: Path) -> Callable[[pl.DataFrame], dict[str, float]]:
    return lambda frame: frame.select(pl.all().mean()).row(0, named=True)


OURS: dict[str, Callable[[Path], Callable[[pl.DataFrame], dict[str, float]]]] = {"drift": _drift, "pass": _pass}


def _measure(contestant: str, folder: Path) -> None:
    """Prepare, warm up on a few rows, and print the answer with its CPU seconds."""
    compute, frame = OURS[contestant](folder), pl.read_parquet(folder / "current.parquet")
    compute(frame.head(1_000))
    begin_s = time.process_time()
    answer = compute(frame)
    print(json.dumps({"cpu_s": time.process_time() - begin_s, "psi": answer}))


if __name__ == "__main__":
    _measure(sys.argv[1], Path(sys.argv[2]))
