"""Judge a challenger: the record that says whether it may be released, and every number behind it.

Belongs here: the default rule and its sentences. Does not belong here: the statistics (`compute.metrics`,
`compute.tasks`, `compute.slices`), where a verdict is kept, or which digest it is bound to.

The rule: a challenger passes when its log loss is below every baseline's and, where there is a champion, nothing shows
beyond chance that it is worse: neither in its headline (AUC, accuracy, R²: the task's first measure), nor in log loss,
nor in calibration error. An equally good challenger is refused with probability `1 - confidence` at most, over all of
it: a quarter of that goes to each measure, and another to a headline that is more than `max_drop` lower, of which
weaker evidence is enough. Against a baseline the lower log loss passes, but "beats" is said only when the interval says
so. The rule is applied to the rounded numbers of the record, so that the record alone reproduces it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from platform_assets.compute import paired, slices
from platform_assets.records.base import Document
from platform_assets.records.verdicts import FORMAT, Gates

if TYPE_CHECKING:
    from platform_assets.compute.tasks import Measure, Task

DIGITS = 6
GOOD_POWER = 0.8
Scores = Mapping[str, Mapping[str, float]]
"""The task's measures by model. Those that a verdict compares are known of each."""
Compared = dict[str, str | float | Mapping[str, float] | None]
"""A comparison as a verdict has it: `against`, `passed`, `reason`, members of `Comparison`, and measures by name."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A challenger minus another model, rounded: by measure, with intervals at `confidence`.

    `power` is how likely a true drop of `max_drop` in the headline is refused; `detectable_drop` is with `GOOD_POWER`.
    """

    confidence: float
    differences: Scores
    power: float | None
    detectable_drop: float | None

    def document(self) -> Compared:
        """Return it as a verdict has it."""
        power = {"power": self.power, "detectable_drop": self.detectable_drop}
        return {"confidence": self.confidence, **self.differences, **power}


def judge(
    rows: pl.DataFrame,
    challenger: ArrayLike,
    baselines: Mapping[str, ArrayLike],
    champion: ArrayLike | None,
    task: Task,
    *,
    max_drop: float,
    confidence: float,
    slice_columns: Sequence[str] = (),
) -> Document:
    """Return the verdict on a challenger over the rows of its holdout.

    Args:
        rows: `key`, `label` (null for a row that was scored and has no label) and each of `slice_columns`.
        challenger: answers, one a row; so are `champion` and each of `baselines`.
        champion: None when nothing is released yet: the challenger is then judged against the baselines only.
        max_drop: how much lower than the champion's its headline may be before weaker evidence counts.
        confidence: that an equally good challenger is not refused; also of the intervals against baselines.
        slice_columns: columns by which quality is broken down.

    Returns:
        The members of `records.verdicts.Verdict`, floats rounded to `DIGITS`, equal for equal inputs in any order of
        rows; without whose verdict it is.

    Raises:
        ValueError: no baseline, a missing column, an unequal number of rows, labels of one class, fewer than two
            labelled keys: none of these is a failed challenger.
    """
    _check_input(rows, baselines, max_drop, slice_columns)
    gates = Gates(headline=task.headline.name, max_drop=float(max_drop), confidence=float(confidence))
    has_label = rows["label"].is_not_null().to_numpy()
    labelled = rows.filter(has_label)
    label = task.labels_of(labelled["label"])
    models = {"challenger": _kept(challenger, has_label, "challenger")}
    if champion is not None:
        models["champion"] = _kept(champion, has_label, "champion")
    models |= {_role(name): _kept(baselines[name], has_label, name) for name in sorted(baselines)}

    quality: Scores = _rounded({name: task.quality(label, said) for name, said in models.items()})
    key = labelled["key"].cast(pl.String).to_numpy()
    if quality["challenger"][task.headline.name] is None:
        raise ValueError(
            f"{task.headline.words} is not defined on the {labelled.height} labelled rows of the holdout, whose labels "
            f"are {task.summary(labelled['label'])}; nothing can be judged. Raise ProductSpec.holdout, or mend `label`."
        )
    comparisons, judged = {}, []
    for name in list(models)[1:]:
        is_champion = name == "champion"
        comparison = compare(label, models["challenger"], models[name], key, task, gates, is_champion=is_champion)
        verdict_of = against_champion if is_champion else _against_baseline
        is_passed, reason = verdict_of(name, quality, comparison, task, gates)
        comparisons[name] = comparison
        judged.append({"against": name, "passed": is_passed, "reason": reason, **comparison.document()})
    groups = {column: slices.group(labelled[column]) for column in slice_columns}
    return {
        "format": FORMAT,
        "passed": all(item["passed"] for item in judged),
        "reasons": [item["reason"] for item in sorted(judged, key=lambda item: bool(item["passed"]))],
        "notes": _notes(rows.height - labelled.height, quality, comparisons, task, gates),
        "rows": _rounded(
            {
                "labelled": labelled.height,
                "without_label": rows.height - labelled.height,
                **task.summary(labelled["label"]),
                "keys": int(np.unique(key).size),
                "first_key": str(key.min()),
                "last_key": str(key.max()),
            }
        ),
        "gates": gates.document(),
        "models": quality,
        "comparisons": judged,
        "decided": _rounded({name: task.decided(label, models[name]) for name in _rivals(models)}),
        "calibration": _rounded({name: task.calibration_table(label, models[name]) for name in _rivals(models)}),
        "slices": _rounded({name: slices.slice_table(label, models[name], groups, task) for name in _rivals(models)}),
    }


def _check_input(
    rows: pl.DataFrame, baselines: Mapping[str, ArrayLike], max_drop: float, slice_columns: Sequence[str]
) -> None:
    if missing := {"key", "label", *slice_columns} - set(rows.columns):
        raise ValueError(f"rows lack {sorted(missing)}; they have {rows.columns}. Join features with outcomes first.")
    if not baselines:
        raise ValueError("there are no baselines; a challenger is judged against at least one. Look at the checkpoint.")
    if max_drop < 0:
        raise ValueError(f"Gates.max_drop is {max_drop}; expected 0 or more. Mend the product's file.")
    if rows.get_column("label").is_null().all():
        raise ValueError(f"none of {rows.height} rows has a label; nothing can be judged. Look at `outcomes`.")


def _kept(said: ArrayLike, has_label: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(said, dtype=np.float64)
    if values.shape[:1] != has_label.shape:
        raise ValueError(f"{name} gave answers of shape {values.shape} for {has_label.size} rows; expected one a row.")
    return values[has_label]


def _role(baseline: str) -> str:
    return f"baseline {baseline}"


def _rivals(models: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name in ("challenger", "champion") if name in models]


def compare(
    label: np.ndarray,
    challenger: np.ndarray,
    other: np.ndarray,
    key: np.ndarray,
    task: Task,
    gates: Gates,
    *,
    is_champion: bool,
) -> Comparison:
    """Return a challenger's differences from another model in the task's `compared` measures, rounded."""
    confidence = 1 - _share(gates, 2) if is_champion else gates.confidence
    found = {
        each.name: task.difference(each, label, challenger, other, key, confidence=confidence) for each in task.compared
    }
    headline = found[task.headline.name]
    limit = _limit(headline, gates)
    return Comparison(
        confidence=_rounded(confidence),
        differences=_rounded({each.name: _numbers(found[each.name], each) for each in task.compared}),
        power=_rounded(headline.power(gates.max_drop, limit)),
        detectable_drop=_rounded(headline.detectable(limit, GOOD_POWER)),
    )


def _share(gates: Gates, parts: int) -> float:
    """Return a part of the chance of refusing an equally good challenger."""
    return float((1 - gates.confidence) / parts)


def _limit(headline: paired.Difference, gates: Gates) -> float:
    """Return the drop of the headline from which on a challenger is refused."""
    weak, strong = (
        headline.standard_error * paired.student_t_quantile(1 - _share(gates, parts), headline.keys - 1)
        for parts in (2, 4)
    )
    return min(strong, max(weak, gates.max_drop))


def _numbers(difference: paired.Difference, measure: Measure) -> dict[str, float]:
    return {
        "difference": difference.value,
        "standard_error": difference.standard_error,
        "low": difference.low,
        "high": difference.high,
        "p_worse": difference.p_worse(is_more_better=bool(measure.is_more_better)),
    }


def _against_baseline(name: str, quality: Scores, comparison: Comparison, task: Task, gates: Gates) -> tuple[bool, str]:
    del task, gates
    mine, other = quality["challenger"]["log_loss"], quality[name]["log_loss"]
    found = comparison.differences["log_loss"]
    numbers = f"log loss {mine:.4f} against {other:.4f}, {_spread(found, comparison)}"
    if found["high"] < 0:
        return True, f"Beats {name}: {numbers}."
    if found["low"] > 0:
        return False, f"Worse than {name}: {numbers}."
    is_lower = mine < other
    outcome = "it passes because its own is lower" if is_lower else "it fails because its own is not lower"
    return is_lower, f"Cannot be told apart from {name}: {numbers}; {outcome}."


def against_champion(name: str, quality: Scores, comparison: Comparison, task: Task, gates: Gates) -> tuple[bool, str]:
    """Return whether a challenger passes beside the champion, and why, as a sentence."""
    numbers = "; ".join(
        f"{each.words} {quality['challenger'][each.name]:.4f} against {quality[name][each.name]:.4f}, "
        f"{_spread(comparison.differences[each.name], comparison)}"
        for each in task.compared
    )
    if faults := _faults(comparison, task, gates):
        return False, f"Worse than the champion: {' and '.join(faults)}. {numbers}."
    better = [each.words for each in task.compared if _is_better(comparison.differences[each.name], each)]
    opening = (
        f"Better than the champion in {' and '.join(better)}" if better else "Cannot be told apart from the champion"
    )
    return True, f"{opening}: {numbers}."


def _faults(comparison: Comparison, task: Task, gates: Gates) -> list[str]:
    faults = []
    for each in task.compared:
        numbers, share = comparison.differences[each.name], _share(gates, 4)
        is_beyond = each.name == task.headline.name and numbers["difference"] < -gates.max_drop
        if numbers["p_worse"] <= share:
            faults.append(f"{each.words} is worse beyond chance (p = {numbers['p_worse']:.4f}, limit {share:.4f})")
        elif is_beyond and numbers["p_worse"] <= _share(gates, 2):
            faults.append(
                f"{each.words} is lower by more than the margin of {gates.max_drop:.4f} "
                f"(p = {numbers['p_worse']:.4f}, limit {_share(gates, 2):.4f})"
            )
    return faults


def _is_better(numbers: Mapping[str, float], measure: Measure) -> bool:
    return numbers["low"] > 0 if measure.is_more_better else numbers["high"] < 0


def _spread(numbers: Mapping[str, float], comparison: Comparison) -> str:
    return (
        f"difference {numbers['difference']:+.4f}, "
        f"{100 * comparison.confidence:g} % interval {numbers['low']:+.4f} to {numbers['high']:+.4f}"
    )


def _notes(
    unlabelled: int, quality: Scores, comparisons: Mapping[str, Comparison], task: Task, gates: Gates
) -> list[str]:
    words = task.headline.words
    notes = []
    against = "champion"
    if against not in comparisons:
        against = min(comparisons, key=lambda name: quality[name]["log_loss"])
        notes.append("There is no champion yet; judged against the baselines only.")
    reference = comparisons[against]
    if reference.power is None:
        notes.append(f"Leaving out any one key does not change the difference in {words}, so power cannot be stated.")
    else:
        notes.append(
            f"Power: a true drop of {gates.max_drop:.4f} in {words} against the {against} would be "
            f"refused with probability {reference.power:.2f}; one of {reference.detectable_drop:.4f} with "
            f"probability {GOOD_POWER:.2f}."
        )
        if reference.power < GOOD_POWER:
            notes.append("The interval is wide: that it holds zero is weak evidence. A longer holdout says more.")
    if unlabelled:
        notes.append(f"{unlabelled} rows have no label and are left out.")
    return notes


def _rounded(value: Any) -> Any:
    """Round every float to `DIGITS`, so that the last bits of a sum never change a record; -0.0 becomes 0.0."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, DIGITS) + 0.0 if isinstance(value, float) else value
