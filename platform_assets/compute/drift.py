"""Measure how far the newest keys are from a model's training rows, and whether contiguous keys ever were as far.

Belongs here: the index over feature histograms. Does not belong here: counting rows (`compute.sketch`), faults
(`compute.faults`), or whether to retrain (`compute.policy`).

A week always differs from a random draw of keys, so a threshold from permuted keys, or one from a book, alarms nearly
always. The index is therefore ranked among the **contiguous** windows of the training keys, each of them measured
against the training keys outside of it, as the newest window is measured against keys that it is not part of.
numpy loads when something is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.compute.tasks.base import TaskDocument

FORMAT = 2
SMOOTHING = 0.5
"""Rows added to every bin before shares are taken, so that an empty bin is unlikely and not impossible: the
estimator of Krichevsky and Trofimov (1981), Jeffreys' prior of a multinomial."""

HIGHEST_QUANTILE = 0.9999
"""Of what chance may do there is no largest."""
MIX = "answers"
"""The one field of a reference of answers."""

Counts = Mapping[str, Sequence[int]]
"""Rows by field and bin, from `sketch.histograms`."""


class ReferenceDocument(TypedDict):
    """A reference as a bundle holds it; see `Reference`."""

    format: int
    keys: list[str]
    fields: dict[str, list[list[int]]]
    answers: list[list[int]] | None
    answer_edges: list[float] | None
    task: TaskDocument | None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The histograms of each training key.

    Attributes:
        keys: in order, K of them.
        fields: int64 [K, B] by field, B bins.
        answers: int64 [K, B], what the model says about each key's rows, in the bins of `Task.mix`.
        answer_edges: of these bins.
        task: as the contract has it, whose answers they are.
    """

    keys: tuple[str, ...]
    fields: Mapping[str, np.ndarray]
    answers: np.ndarray | None = None
    answer_edges: Sequence[float] | None = None
    task: TaskDocument | None = None

    def to_json(self) -> ReferenceDocument:
        """Return plain JSON values."""
        return {
            "format": FORMAT,
            "keys": list(self.keys),
            "fields": {name: counts.tolist() for name, counts in self.fields.items()},
            "answers": None if self.answers is None else self.answers.tolist(),
            "answer_edges": None if self.answer_edges is None else list(self.answer_edges),
            "task": self.task,
        }

    @staticmethod
    def from_json(value: ReferenceDocument) -> Reference:
        """Return what `to_json` wrote; raise `ValueError` for another format."""
        import numpy as np

        if value.get("format") != FORMAT:
            raise ValueError(f"reference.json has format {value.get('format')!r}; this code reads {FORMAT}.")
        fields = {name: np.array(counts, dtype=np.int64) for name, counts in value["fields"].items()}
        answers = None if value["answers"] is None else np.array(value["answers"], dtype=np.int64)
        return Reference(
            keys=tuple(value["keys"]),
            fields=fields,
            answers=answers,
            answer_edges=value["answer_edges"],
            task=value["task"],
        )

    @property
    def mix(self) -> Reference | None:
        """The reference of the answers alone, as one field; None for a bundle that has none."""
        return None if self.answers is None else Reference(keys=self.keys, fields={MIX: self.answers})

    def of(self, key: str) -> dict[str, list[int]]:
        """Return the histograms of one training key."""
        place = self.keys.index(key)
        return {name: counts[place].tolist() for name, counts in self.fields.items()}

    def without(self, keys: Iterable[str]) -> Reference:
        """Return the reference with these keys left out."""
        left_out = set(keys)
        places = [place for place, key in enumerate(self.keys) if key not in left_out]
        return replace(
            self,
            keys=tuple(self.keys[place] for place in places),
            fields={name: counts[places] for name, counts in self.fields.items()},
            answers=None if self.answers is None else self.answers[places],
        )


@dataclass(frozen=True, kw_only=True)
class Index:
    """How far one window of keys is from the reference.

    Attributes:
        mean_psi: the mean over fields of their PSI.
        fields: the PSI of each field.
        percentile: the share of the reference's contiguous windows that are nearer to the rest of the reference.
        windows: how many there are.
        limit: the index above which the window counts as drifting.
        keys: of the window.
    """

    mean_psi: float
    fields: Mapping[str, float]
    percentile: float
    windows: int
    limit: float
    keys: tuple[str, ...]

    @property
    def is_drift(self) -> bool:
        """Whether the window is further away than contiguous training keys ever were, by the margin."""
        return self.mean_psi > self.limit


def reference_of(
    histograms: Mapping[str, Counts],
    answers: Mapping[str, Sequence[int]] | None = None,
    answer_edges: Sequence[float] | None = None,
    task: TaskDocument | None = None,
) -> Reference:
    """Return the reference made of each training key's histograms, in the order given.

    Args:
        histograms: of the features.
        answers: the mix of the model's answers about the same keys (`Task.mix`), where it is known.
        answer_edges: of its bins.
        task: whose answers they are, as the contract has it.
    """
    import numpy as np

    names = list(next(iter(histograms.values()), {}))
    return Reference(
        keys=tuple(histograms),
        fields={name: np.array([each[name] for each in histograms.values()], dtype=np.int64) for name in names},
        answers=None if answers is None else np.array([answers[key] for key in histograms], dtype=np.int64),
        answer_edges=answer_edges,
        task=task,
    )


def psi(came: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the population stability index of histograms, one for each row.

    The sum over bins of (p - q) ln(p / q): the symmetrised divergence of Jeffreys (1946), under this name in
    N. Siddiqi, Credit Risk Scorecards (2006). Shares are smoothed by `SMOOTHING`.

    Args:
        came, reference: counts [..., B] of the same bins.

    Raises:
        ValueError: a histogram without rows: nothing can be said of it.
    """
    import numpy as np

    came, reference = np.asarray(came, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if not (came.sum(axis=-1).all() and reference.sum(axis=-1).all()):
        raise ValueError("a histogram has no rows; expected at least one on either side.")
    p, q = _shares(came), _shares(reference)
    return np.sum((p - q) * np.log(p / q), axis=-1)


def by_chance(came: np.ndarray, reference: np.ndarray, quantile: float) -> float:
    """Return the PSI that samples of so many rows from one distribution stay below with a probability of `quantile`.

    For B bins it is about (1/n + 1/m) times a chi-squared with B - 1 degrees of freedom, whose quantile is Wilson and
    Hilferty's cube (1931).

    Args:
        came, reference: counts [B] of the same bins.
        quantile: such as 0.99.
    """
    freedom = max(1, len(came) - 1)
    score = NormalDist().inv_cdf(min(quantile, HIGHEST_QUANTILE))
    chi_squared = freedom * (1 - 2 / (9 * freedom) + score * math.sqrt(2 / (9 * freedom))) ** 3
    return float(chi_squared * (1 / came.sum() + 1 / reference.sum()))


def window_psi(reference: Reference, width: int) -> np.ndarray:
    """Return float64 [K - width + 1], the mean PSI of each window of `width` keys against the keys outside of it.

    Raises:
        ValueError: no key is left outside of a window.
    """
    import numpy as np

    if len(reference.keys) <= width:
        raise ValueError(f"the reference has {len(reference.keys)} keys; expected more than a window of {width}.")
    found = []
    for counts in reference.fields.values():
        upto = np.concatenate([np.zeros((1, counts.shape[1]), dtype=np.int64), np.cumsum(counts, axis=0)])
        inside = upto[width:] - upto[:-width]
        found.append(psi(inside, upto[-1] - inside))
    return np.mean(found, axis=0)


def index(
    window: Mapping[str, Counts], reference: Reference, *, limit: float, margin: float, is_floored: bool = False
) -> Index:
    """Return the index of a window of keys.

    Window and reference share no key: one that is in both is left out of the reference.

    Args:
        window: the histograms of each key, in order.
        reference: the model's.
        limit: the quantile of the contiguous training windows that still counts as usual.
        margin: how many times that quantile must be exceeded. With fewer than 1 / (1 - limit) windows the quantile
            lies near the largest of a few, and the margin is what bounds false alarms.
        is_floored: whether the limit is at least what as few rows as the window has would reach by chance: for windows
            that may hold fewer rows than training keys, as answers do.

    Raises:
        ValueError: other fields or bins than the reference's, no rows, or too few training keys.
    """
    import numpy as np

    rest = reference.without(window)
    windows = window_psi(rest, len(window))
    fields, floors = {}, []
    for name, counts in rest.fields.items():
        came = np.sum([np.asarray(each[name], dtype=np.int64) for each in window.values()], axis=0)
        if came.shape != counts.shape[1:]:
            raise ValueError(f"field {name!r} has {came.shape[0]} bins; the reference has {counts.shape[1]}.")
        fields[name] = float(psi(came, counts.sum(axis=0)))
        floors.append(by_chance(came, counts.sum(axis=0), limit) if is_floored else 0.0)
    mean_psi = float(np.mean(list(fields.values())))
    return Index(
        mean_psi=mean_psi,
        fields=fields,
        percentile=float(np.mean(windows < mean_psi)),
        windows=len(windows),
        limit=margin * max(float(np.quantile(windows, limit)), float(np.mean(floors))),
        keys=tuple(window),
    )


def _shares(counts: np.ndarray) -> np.ndarray:
    smoothed = counts + SMOOTHING
    return smoothed / smoothed.sum(axis=-1, keepdims=True)
