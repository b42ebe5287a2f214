"""Judge a challenger: build the record that says whether it may be released, with every number behind it.

The default rule and its sentences; the statistics are `evaluation.metrics`, `evaluation.measures` and
`evaluation.slices`.

The rule: a challenger passes if its log loss is below every baseline's and, where there is a champion, nothing shows
beyond chance that it is worse: neither its headline (AUC, accuracy, R²: the task's first measure), nor log loss, nor
calibration error. An equally good challenger is refused with probability `1 - confidence` at most in total: a quarter
of that for each of the three measures, and a quarter for a headline that is more than `max_drop` lower, where weaker
evidence suffices. Against a baseline the lower log loss passes, but "beats" is said only if the interval supports it.
The rule is applied to the rounded numbers of the record, so that the record alone reproduces it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from platform_assets.evaluation import paired, slices
from platform_assets.store.records.base import Document
from platform_assets.store.records.verdicts import FORMAT, Gates

if TYPE_CHECKING:
    from platform_assets.evaluation.measures.base import Measures

DIGITS = 6
GOOD_POWER = 0.8
Scores = Mapping[str, Mapping[str, float]]
"""The task's measures by model. Those that a verdict compares are never None."""
Compared = dict[str, str | float | Mapping[str, float] | None]
"""A comparison as a verdict stores it: `against`, `passed`, `reason`, members of `Comparison`, and measures by name."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A challenger minus another model, rounded, by measure, with intervals at `confidence`.

    `power` is the probability that a true drop of `max_drop` in the headline is refused; `detectable_drop` is the drop
    that is refused with probability `GOOD_POWER`.
    """

    confidence: float
    differences: Scores
    power: float | None
    detectable_drop: float | None

    def document(self) -> Compared:
        """Return the comparison as a verdict stores it."""
        power = {"power": self.power, "detectable_drop": self.detectable_drop}
        return {"confidence": self.confidence, **self.differences, **power}


def judge(
    rows: pl.DataFrame,
    challenger: ArrayLike,
    baselines: Mapping[str, ArrayLike],
    champion: ArrayLike | None,
    measures: Measures,
    *,
    max_drop: float,
    confidence: float,
    slice_columns: Sequence[str] = (),
) -> Document:
    """Return the verdict on a challenger over the rows of its holdout.

    Args:
        rows: `key`, `label` (null for a scored row without label) and each of `slice_columns`.
        challenger: answers, one per row; so are `champion` and each of `baselines`.
        champion: None if nothing is released yet: the challenger is then judged against the baselines only.
        max_drop: how much lower than the champion's its headline may be before weaker evidence suffices.
        confidence: probability that an equally good challenger is not refused; also of the intervals against baselines.
        slice_columns: columns by which quality is broken down.

    Returns:
        The members of `store.records.verdicts.Verdict`, floats rounded to `DIGITS`, equal for equal inputs in any order
        of rows; without the digest it is bound to.

    Raises:
        ValueError: no baseline, a missing column, unequal numbers of rows, labels of one class, or fewer than two
            labelled keys: none of these is a failed challenger.
    """
    _check_input(rows, baselines, max_drop, slice_columns)
    gates = Gates(headline=measures.headline.name, max_drop=float(max_drop), confidence=float(confidence))
    has_label = rows["label"].is_not_null().to_numpy()
    labelled = rows.filter(has_label)
    label = measures.task.labels_of(labelled["label"])
    answered = {"challenger": challenger} | ({} if champion is None else {"champion": champion})
    answered |= {f"baseline {name}": baselines[name] for name in sorted(baselines)}
    models = {name: _labelled_answers(answer, has_label, name) for name, answer in answered.items()}
    quality: Scores = _rounded({name: measures.quality(label, answer) for name, answer in models.items()})
    key = labelled["key"].cast(pl.String).to_numpy()
    if quality["challenger"][measures.headline.name] is None:
        raise ValueError(
            f"{measures.headline.title} is not defined on the {labelled.height} labelled rows of the holdout, whose "
            f"labels are {measures.task.summary(labelled['label'])}; nothing can be judged. Raise Product.holdout, "
            "or fix `label`."
        )
    comparisons, judged = {}, []
    for name, answer in list(models.items())[1:]:
        is_champion = name == "champion"
        comparisons[name] = compare(label, models["challenger"], answer, key, measures, gates, is_champion=is_champion)
        if is_champion:
            is_passed, reason = against_champion(name, quality, comparisons[name], measures, gates)
        else:
            is_passed, reason = _against_baseline(name, quality, comparisons[name])
        judged.append({"against": name, "passed": is_passed, "reason": reason, **comparisons[name].document()})
    groups = {column: slices.group(labelled[column]) for column in slice_columns}
    rivals = [(name, models[name]) for name in ("challenger", "champion") if name in models]
    return {
        "format": FORMAT,
        "passed": all(item["passed"] for item in judged),
        "reasons": [item["reason"] for item in sorted(judged, key=lambda item: bool(item["passed"]))],
        "notes": _notes(rows.height - labelled.height, quality, comparisons, measures, gates),
        "rows": _rounded(
            {
                "labelled": labelled.height,
                "without_label": rows.height - labelled.height,
                **measures.task.summary(labelled["label"]),
                "keys": int(np.unique(key).size),
                "first_key": str(key.min()),
                "last_key": str(key.max()),
            }
        ),
        "gates": gates.document(),
        "models": quality,
        "comparisons": judged,
        "decided": _rounded({name: measures.decided(label, answer) for name, answer in rivals}),
        "calibration": _rounded({name: measures.calibration_table(label, answer) for name, answer in rivals}),
        "slices": _rounded({name: slices.slice_table(label, answer, groups, measures) for name, answer in rivals}),
    }


def _check_input(
    rows: pl.DataFrame, baselines: Mapping[str, ArrayLike], max_drop: float, slice_columns: Sequence[str]
) -> None:
    if missing := {"key", "label", *slice_columns} - set(rows.columns):
        raise ValueError(f"rows lack {sorted(missing)}; they have {rows.columns}. Join features with outcomes first.")
    if not baselines:
        raise ValueError("there are no baselines; a challenger is judged against at least one. Look at the checkpoint.")
    if max_drop < 0:
        raise ValueError(f"Gates.max_drop is {max_drop}; expected 0 or more. Fix the product's file.")
    if rows.get_column("label").is_null().all():
        raise ValueError(f"none of {rows.height} rows has a label; nothing can be judged. Look at `outcomes`.")


def _labelled_answers(answer: ArrayLike, has_label: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(answer, dtype=np.float64)
    if values.shape[:1] != has_label.shape:
        raise ValueError(
            f"{name} gave answers of shape {values.shape} for {has_label.size} rows; expected one per row."
        )
    return values[has_label]


def compare(
    label: np.ndarray,
    challenger: np.ndarray,
    other: np.ndarray,
    key: np.ndarray,
    measures: Measures,
    gates: Gates,
    *,
    is_champion: bool,
) -> Comparison:
    """Return a challenger's differences from another model in the task's `compared` measures, rounded."""
    confidence = 1 - _share(gates, 2) if is_champion else gates.confidence
    differences = {
        measure.name: measures.difference(measure, label, challenger, other, key, confidence=confidence)
        for measure in measures.compared
    }
    headline = differences[measures.headline.name]
    # The headline has a quarter of the probability of refusal, and another one for drops of more than `max_drop`.
    weak, strong = (
        headline.standard_error * paired.student_t_quantile(1 - _share(gates, parts), headline.keys - 1)
        for parts in (2, 4)
    )
    limit = min(strong, max(weak, gates.max_drop))  # the drop of the headline at which a challenger is refused
    numbers = {
        measure.name: {
            "difference": difference.value,
            "standard_error": difference.standard_error,
            "low": difference.low,
            "high": difference.high,
            "p_worse": difference.p_worse(is_more_better=bool(measure.is_more_better)),
        }
        for measure, difference in zip(measures.compared, differences.values(), strict=True)
    }
    return Comparison(
        confidence=_rounded(confidence),
        differences=_rounded(numbers),
        power=_rounded(headline.power(gates.max_drop, limit)),
        detectable_drop=_rounded(headline.detectable(limit, GOOD_POWER)),
    )


def _share(gates: Gates, parts: int) -> float:
    """Return one of `parts` equal parts of the probability of refusing an equally good challenger."""
    return float((1 - gates.confidence) / parts)


def _against_baseline(name: str, quality: Scores, comparison: Comparison) -> tuple[bool, str]:
    challenger_loss, baseline_loss = quality["challenger"]["log_loss"], quality[name]["log_loss"]
    difference = comparison.differences["log_loss"]
    numbers = f"log loss {challenger_loss:.4f} against {baseline_loss:.4f}, {_spread(difference, comparison)}"
    if difference["high"] < 0:
        return True, f"Beats {name}: {numbers}."
    if difference["low"] > 0:
        return False, f"Worse than {name}: {numbers}."
    is_lower = challenger_loss < baseline_loss
    outcome = "it passes because its log loss is lower" if is_lower else "it fails because its log loss is not lower"
    return is_lower, f"Cannot be told apart from {name}: {numbers}; {outcome}."


def against_champion(
    name: str, quality: Scores, comparison: Comparison, measures: Measures, gates: Gates
) -> tuple[bool, str]:
    """Return whether a challenger passes against the champion, and the reason as a sentence."""
    numbers = "; ".join(
        f"{measure.title} {quality['challenger'][measure.name]:.4f} against {quality[name][measure.name]:.4f}, "
        f"{_spread(comparison.differences[measure.name], comparison)}"
        for measure in measures.compared
    )
    faults, better = list[str](), list[str]()
    for measure in measures.compared:
        of_measure, share = comparison.differences[measure.name], _share(gates, 4)
        is_beyond = measure.name == measures.headline.name and of_measure["difference"] < -gates.max_drop
        if of_measure["p_worse"] <= share:
            faults.append(
                f"{measure.title} is worse beyond chance (p = {of_measure['p_worse']:.4f}, limit {share:.4f})"
            )
        elif is_beyond and of_measure["p_worse"] <= _share(gates, 2):
            faults.append(
                f"{measure.title} is lower by more than the margin of {gates.max_drop:.4f} "
                f"(p = {of_measure['p_worse']:.4f}, limit {_share(gates, 2):.4f})"
            )
        elif of_measure["low"] > 0 if measure.is_more_better else of_measure["high"] < 0:
            better.append(measure.title)
    if faults:
        return False, f"Worse than the champion: {' and '.join(faults)}. {numbers}."
    opening = (
        f"Better than the champion in {' and '.join(better)}" if better else "Cannot be told apart from the champion"
    )
    return True, f"{opening}: {numbers}."


def _spread(numbers: Mapping[str, float], comparison: Comparison) -> str:
    return (
        f"difference {numbers['difference']:+.4f}, "
        f"{100 * comparison.confidence:g} % interval {numbers['low']:+.4f} to {numbers['high']:+.4f}"
    )


def _notes(
    unlabelled: int, quality: Scores, comparisons: Mapping[str, Comparison], measures: Measures, gates: Gates
) -> list[str]:
    title = measures.headline.title
    notes = []
    against = "champion"
    if against not in comparisons:
        against = min(comparisons, key=lambda name: quality[name]["log_loss"])
        notes.append("There is no champion yet; judged against the baselines only.")
    reference = comparisons[against]
    if reference.power is None:
        notes.append(f"Leaving out any one key does not change the difference in {title}, so power cannot be stated.")
    else:
        notes.append(
            f"Power: a true drop of {gates.max_drop:.4f} in {title} against the {against} would be "
            f"refused with probability {reference.power:.2f}; one of {reference.detectable_drop:.4f} with "
            f"probability {GOOD_POWER:.2f}."
        )
        if reference.power < GOOD_POWER:
            notes.append("The interval is wide, so containing zero is weak evidence. A longer holdout would tell more.")
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
