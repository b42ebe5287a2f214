"""Draw holdouts on which two models of known quality are compared, with a shock shared by each key's rows."""

from dataclasses import dataclass

import numpy as np

from platform_assets.evaluation import verdict
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.product.tasks import Binary, MultiClass, Regression, Task
from platform_assets.store.records.verdicts import Gates

GATES = {"max_drop": 0.010, "confidence": 0.95}


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A challenger and a champion that see the truth through independent noise.

    Attributes:
        kind: kind of task.
        keys, rows: keys of the holdout, and rows per key.
        noise: the champion's noise, in log odds (or spreads of labels).
        extra: additional noise of the challenger.
        shift: shift of the challenger's answers.
    """

    kind: str = "binary"
    keys: int = 14
    rows: int = 60
    noise: float = 0.4
    extra: float = 0.0
    shift: float = 0.0


def judged(contest: Contest, seed: int) -> tuple[bool, verdict.Comparison]:
    """Return whether one drawn challenger passes against the champion, and the comparison."""
    random = np.random.default_rng([seed, 13])
    key = np.repeat([f"{number:03d}" for number in range(contest.keys)], contest.rows)
    shock = np.repeat(random.normal(0, 0.5, contest.keys), contest.rows)
    task, label, answers = _drawn(contest, random, shock)
    measures = measures_of(task)
    gates = Gates(**{"headline": measures.headline.name, **GATES, "max_drop": task.margin})
    challenger, champion = answers
    quality = {
        "challenger": measures.quality(label, challenger),
        "champion": measures.quality(label, champion),
    }
    result = verdict.compare(label, challenger, champion, key, measures, gates, is_champion=True)
    return verdict.against_champion("champion", quality, result, measures, gates)[0], result


def refused(contest: Contest, *, draws: int, seed: int) -> float:
    """Return the share of drawn challengers that are refused."""
    return float(np.mean([not judged(contest, seed * 1_000_003 + draw)[0] for draw in range(draws)]))


def _drawn(
    contest: Contest, random: np.random.Generator, shock: np.ndarray
) -> tuple[Task, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    rows = shock.size
    seen_by = ((contest.noise + contest.extra, contest.shift), (contest.noise, 0.0))
    if contest.kind == "binary":
        truth = random.normal(-1.3, 1.15, rows)
        label = random.random(rows) < _chance(truth + shock)
        answers = [_chance(truth + shift + random.normal(0, noise, rows)) for noise, shift in seen_by]
        return Binary(threshold=0.3), label, (answers[0], answers[1])
    if contest.kind == "multi_class":
        task, outputs = MultiClass(classes=("a", "b", "c")), random.normal(0, 1.5, (rows, 3))
        label = (outputs + shock[:, None] * [1, 0, 0] + random.gumbel(size=outputs.shape)).argmax(axis=1)
        answers = [
            task.answer((outputs + random.normal(0, noise, outputs.shape)) * (1 + shift), None)
            for noise, shift in seen_by
        ]
        return task, label, (answers[0], answers[1])
    value = random.normal(20, 5, rows)
    label = value + 2 * (shock + random.normal(size=rows))
    answers = [
        np.stack([value + shift + random.normal(0, 2 * noise, rows), np.full(rows, 2.2)], axis=1)
        for noise, shift in seen_by
    ]
    return Regression(), label, (answers[0], answers[1])


def _chance(odds: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-odds)))
