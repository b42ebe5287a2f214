"""Measure the memory of a call in a process of its own: `python -m tests.doubles.memory CALL [ARGUMENT ...]`."""

import ctypes
import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from platform_assets.product.inputs import Inputs
from platform_assets.product.learner import Alone, Context
from platform_assets.product.modelling import Training
from platform_assets.product.spec import Field
from platform_assets.product.tasks import Binary, MultiClass, Regression, Task
from platform_assets.training import baselines
from platform_assets.training.learn import codes, learn
from platform_assets.training.learners.boosted import LightGbm
from platform_assets.training.matrix import categorical_matrix
from platform_assets.training.steps import process
from platform_assets.training.suspects import giving_away
from tests.doubles import inputs as doubles

REPOSITORY = Path(__file__).resolve().parents[2]
TASKS: dict[str, Task] = {
    "binary": Binary(),
    "multi_class": MultiClass(classes=("a", "b", "c", "d", "e")),
    "regression": Regression(unit="m"),
}
LETTERS = 8_000


def above_inputs_mb(call: str, *arguments: object) -> float:
    """Return by how many 10^6 bytes the memory of a call exceeds that before it, at its peak."""
    command = [sys.executable, "-m", "tests.doubles.memory", call, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def text(rows: int, kind: str) -> np.ndarray:
    """Return texts [N, 1], each an object of its own: one long, every one long, of any length, or none."""
    numbers = range(rows)
    column = {
        "one": lambda: [f"{number % 50}" + "x" * LETTERS * (number == 7) for number in numbers],
        "every": lambda: [f"{number:08d}" * (LETTERS // 8) for number in numbers],
        "of_any_length": lambda: [f"{number}" + "x" * (number * 7919 % LETTERS) for number in numbers],
        "null": lambda: [""] * rows,
    }[kind]()
    return np.array(column, dtype=object).reshape(-1, 1)


def drawn(rows: int, numbers: int, columns: int, categories: int, side: int, task: Task) -> tuple[Inputs, np.ndarray]:
    """Return random rows and their labels; `columns` columns of `categories` categories each."""
    stream = np.random.default_rng(0)
    numeric = stream.normal(size=(rows, numbers)).astype(np.float32)
    vocabulary = np.array([f"category {number}" for number in range(categories)], dtype=object)
    places = stream.integers(0, categories, (rows, columns))
    image = stream.integers(0, 256, (rows, side, side)).astype(np.uint8) if side else None
    signal = numeric.sum(axis=1) + (places % 7).sum(axis=1) + stream.normal(size=rows)
    ranks = np.argsort(np.argsort(signal))
    labels = {
        "binary": (ranks * 2 // rows).astype(np.int8),
        "multi_class": ranks * 5 // rows,
        "regression": signal,
    }[task.kind]
    return doubles.inputs_of(numeric, vocabulary[places], image), labels


def learning(kind: str, rows: str) -> Callable[[], object]:
    """Learn a text column, as a training does before it fits."""
    inputs = doubles.inputs_of(np.zeros((int(rows), 1), np.float32), text(int(rows), kind))
    labels, fields = np.arange(int(rows)) % 2, doubles.fields(inputs)

    def call() -> object:
        giving_away(inputs, labels, fields, Binary())
        return codes(learn(inputs, fields), inputs.categorical)

    return call


def encoding(rows: str) -> Callable[[], object]:
    frame = pl.DataFrame({"c": pl.Series(np.arange(int(rows)) % 200).cast(pl.String)})
    return lambda: categorical_matrix(frame, [Field(name="c", dtype="category", description="")])


def baseline(task: str, *shape: str) -> Callable[[], object]:
    """Fit the baselines, after small ones of the same kind."""

    def prepared(rows: int) -> Callable[[], object]:
        inputs, labels = drawn(rows, *map(int, shape[1:]), TASKS[task])
        learned = doubles.learned(inputs, target=TASKS[task].target_of(labels))
        return lambda: baselines.fit(learned, inputs, labels, TASKS[task])

    prepared(1_000)()
    return prepared(int(shape[0]))


def trees(task: str, *shape: str) -> Callable[[], object]:
    """Fit a few boosted trees, after small ones of the same kind."""
    import torch  # noqa: F401  # brings OpenMP's library, which a bare Debian lacks, as in a step

    def prepared(rows: int) -> Callable[[], object]:
        inputs, labels = drawn(rows, *map(int, shape[1:]), TASKS[task])
        judged = rows // 10
        context = Context(
            task=TASKS[task],
            training=Training(threads=2),
            learned=doubles.learned(inputs, target=TASKS[task].target_of(labels)),
            judged=judged,
            progress=Alone(),
        )
        return lambda: LightGbm(rounds=10, validation_keys=1).fit(inputs, labels, context)

    prepared(1_000)()
    return prepared(int(shape[0]))


def main(name: str, *arguments: str) -> None:
    """Print the peak of a call above the memory before it."""
    calls = {call.__name__: call for call in (learning, encoding, baseline, trees)}
    call = calls[name](*arguments)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    before = int(next(line for line in status if line.startswith("VmRSS")).split()[1]) * 1024 / 1e6
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is forgotten
    call()
    print(process.peak_memory_mb() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
