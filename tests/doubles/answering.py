"""Draw windows of answers with known truth: honest models under shocks shared by a key's rows, and broken ones.

All draws of a world are made at once, in the order of keys, so that a thousand windows cost seconds. A key's shock
moves the log odds of its event, or a regression's labels in spreads; neighbouring keys' shocks are AR(1).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from platform_assets.evaluation import promises
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.monitoring.performance_policy import failing
from platform_assets.product.monitoring import Retraining
from platform_assets.product.tasks import Binary, MultiClass, Regression, Task
from platform_assets.store.records.performance import Tested

CLASSES = MultiClass(classes=("a", "b", "c", "d"))
RULES = Retraining()


@dataclass(frozen=True, kw_only=True)
class World:
    """Windows of answers.

    Attributes:
        shock: standard deviation of a key's shock.
        keys, rows: keys per window, and rows per key on average (from .7 to 1.3 times as many).
        neighbours: correlation of neighbouring keys' shocks.
        centre, spread: of the answers' log odds.
        level, slope: the error of the answers: the truth's log odds are higher by `level` and vary more by `slope`.
        is_gone: whether the truth does not depend on the answers, as if their signal were gone.
    """

    shock: float = 0.3
    keys: int = 14
    rows: int = 150
    neighbours: float = 0.7
    centre: float = -1.6
    spread: float = 1.1
    level: float = 0.0
    slope: float = 1.0
    is_gone: bool = False


Drawn = tuple[Task, np.ndarray, np.ndarray, np.ndarray]
"""Task, labels, answers, and each row's key, numbered through all windows."""


def binary(random: np.random.Generator, world: World, windows: int) -> Drawn:
    codes, shock = _rows(random, world, windows)
    odds = random.normal(world.centre, world.spread, codes.size)
    shape = random.normal(world.centre, world.spread, codes.size) if world.is_gone else odds
    truth = world.centre + world.slope * (shape - world.centre) + world.level + shock
    return Binary(), (random.random(codes.size) < _chance(truth)).astype(np.int8), _chance(odds), codes


def classes(random: np.random.Generator, world: World, windows: int) -> Drawn:
    """Draw answers of four classes; a shock and a level move the log odds of the likeliest."""
    codes, shock = _rows(random, world, windows)
    outputs = random.normal(0, 1.2 * world.spread, (codes.size, 4))
    shape = random.normal(0, 1.2 * world.spread, (codes.size, 4)) if world.is_gone else outputs.copy()
    truth = world.slope * shape
    truth[np.arange(codes.size), outputs.argmax(axis=1)] += world.level + shock
    drawn = truth + random.gumbel(size=truth.shape)
    return CLASSES, drawn.argmax(axis=1), CLASSES.answer(outputs, None), codes


def numbers(random: np.random.Generator, world: World, windows: int) -> Drawn:
    """Draw values around 20 with spreads around 2, labels normal around them."""
    codes, shock = _rows(random, world, windows)
    value, spread = random.normal(20, 5, codes.size), random.uniform(1, 3, codes.size)
    shape = random.normal(20, 5, codes.size) if world.is_gone else value
    labels = 20 + world.slope * (shape - 20) + spread * (world.level + shock + random.normal(size=codes.size))
    return Regression(), labels, np.stack([value, spread], axis=1), codes


KINDS: dict[str, Callable[[np.random.Generator, World, int], Drawn]] = {
    "binary": binary,
    "multi_class": classes,
    "regression": numbers,
}


def tested(kind: str, world: World, *, windows: int, seed: int) -> list[dict[str, Tested]]:
    """Return the family of tests of each window; windows are drawn in parts of about a million rows."""
    part = max(1, 1_000_000 // (world.keys * world.rows))
    sizes = [min(part, windows - start) for start in range(0, windows, part)]
    return [item for number, size in enumerate(sizes) for item in _part(kind, world, size, [seed, number, 14])]


def _part(kind: str, world: World, windows: int, seed: list[int]) -> list[dict[str, Tested]]:
    task, labels, answers, codes = KINDS[kind](np.random.default_rng(seed), world, windows)
    labels, answers = task.checked(labels, answers)
    family = measures_of(task).promises(labels, answers, codes, windows * world.keys)
    spans = [slice(window * world.keys, (window + 1) * world.keys) for window in range(windows)]
    return [
        promises.family(
            [replace(item, effects=item.effects[keys], variances=item.variances[keys]) for item in family],
            confidence=0.95,
        )
        for keys in spans
    ]


def alarms(windows: list[dict[str, Tested]]) -> dict[str, float]:
    """Return the share of windows in which a test is significant at 1 %, whatever its margin; `any` of the family."""
    by_test = {
        name: [item[name].p_adjusted is not None and item[name].p_adjusted <= 1 - RULES.confidence for item in windows]
        for name in windows[0]
    }
    return {name: float(np.mean(item)) for name, item in by_test.items()} | {
        "any": float(np.mean(np.any(list(by_test.values()), axis=0)))
    }


def power(windows: list[dict[str, Tested]]) -> float:
    """Return the share of windows in which a test fails: significant and beyond its margin."""
    return float(np.mean([bool(failing(item, RULES)) for item in windows]))


def _rows(random: np.random.Generator, world: World, windows: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = int(0.7 * world.rows), int(1.3 * world.rows)
    sizes = random.integers(low, high + 1, windows * world.keys)
    result = np.empty((windows, world.keys))
    result[:, 0] = random.normal(0, world.shock, windows)
    fresh = world.shock * np.sqrt(1 - world.neighbours**2)
    for key in range(1, world.keys):
        result[:, key] = world.neighbours * result[:, key - 1] + random.normal(0, fresh, windows)
    return np.repeat(np.arange(sizes.size), sizes), np.repeat(result.ravel(), sizes)


def _chance(odds: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-odds)))
