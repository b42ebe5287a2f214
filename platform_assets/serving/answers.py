"""Say what an answer is, one class a kind of task: the row of the graph behind it, the HTTP body, the log record.

Belongs here: everything in which the kinds differ while serving, and reading an answer back (`said`, `words`). Does
not belong here: how a kind is learned and judged (`compute.tasks`), scoring (`model`), HTTP (`middleware`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from platform_assets.serving.records import (
    Answer,
    BinaryAnswer,
    BinaryRecord,
    MultiClassAnswer,
    MultiClassRecord,
    Record,
    RegressionAnswer,
    RegressionRecord,
)

REACH_90 = 1.6448536269514722
"""How many spreads the central 90 % of a normal distribution reach to either side."""
SUM_TOLERANCE = 1e-3
"""How far the probabilities of one answer may add up to something else than 1: they are float32."""


class Kind:
    """Base of the kinds: makes answers and records of what a graph says.

    Attributes:
        kind: as it stands in contracts.
        width: how many numbers the graph gives a row; one number comes as [N], more as [N, width].
        expected: in words, what a sound row is.
    """

    kind: ClassVar[str]
    width: int
    expected: str

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Read the contract's `task`; raise `ValueError` when it lacks something."""
        raise NotImplementedError

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the graph's answer to so many rows."""
        return (rows,) if self.width == 1 else (rows, self.width)

    def is_sound(self, said: Any) -> bool:
        """Tell whether one row of the graph's answer, as Python numbers, can be an answer at all."""
        raise NotImplementedError

    def made(
        self,
        row: Any,
        prediction_id: str,
        digest: str,
        release: int | None,
        now: datetime,
        latency_us: int,
        said: Any,
        features: Any,
    ) -> tuple[Answer, Record]:
        """Return a row's answer and log record, by one call for both: this runs for every row.

        Args:
            row: as decoded.
            prediction_id, digest, release, now, latency_us: as in `Record`.
            said: what the graph gave, sound.
            features: the decoded row's, or None to leave them out.
        """
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """Return the JSON schemas of the answer's fields beside those of `Answer`."""
        raise NotImplementedError

    def said(self, answer: Mapping[str, Any]) -> list[float]:
        """Return the numbers of an HTTP answer in the order in which the graph gives them."""
        raise NotImplementedError


class Binary(Kind):
    """The probability of yes."""

    kind: ClassVar[str] = "binary"
    width = 1
    expected = "between 0 and 1"

    def __init__(self, document: Mapping[str, Any]) -> None:
        threshold = document.get("threshold")
        if not isinstance(threshold, (int, float)) or isinstance(threshold, bool) or not 0 < threshold < 1:
            raise ValueError(f"task.threshold is {threshold!r}; expected a probability between 0 and 1")
        self.threshold = threshold

    def is_sound(self, said: Any) -> bool:
        return 0.0 <= said <= 1.0

    def made(
        self,
        row: Any,
        prediction_id: str,
        digest: str,
        release: int | None,
        now: datetime,
        latency_us: int,
        said: Any,
        features: Any,
    ) -> tuple[Answer, Record]:
        return BinaryAnswer(prediction_id, digest, row.entity, said, said >= self.threshold), BinaryRecord(
            prediction_id,
            digest,
            release,
            row.entity,
            row.service_time,
            row.asked_at,
            row.idempotency_key or None,
            now,
            latency_us,
            said,
            features,
        )

    def schema(self) -> dict[str, Any]:
        words = "Whether the probability reaches the operating threshold."
        return {"probability": _PROBABILITY, "is_positive": {"type": "boolean", "description": words}}

    def said(self, answer: Mapping[str, Any]) -> list[float]:
        return [answer["probability"]]


class MultiClass(Kind):
    """A probability for each class."""

    kind: ClassVar[str] = "multi_class"

    def __init__(self, document: Mapping[str, Any]) -> None:
        found: Any = document.get("classes")
        classes = found if isinstance(found, (list, tuple)) else ()
        are_names = all(isinstance(name, str) and name for name in classes)
        if not are_names or len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError(f"task.classes is {found!r}; expected a list of at least 2 names, none twice")
        self.classes: tuple[str, ...] = tuple(classes)
        self.width = len(self.classes)
        self.expected = f"{self.width} numbers between 0 and 1 in a row that add up to 1"

    def is_sound(self, said: Any) -> bool:
        # The comparisons are false for NaN.
        return abs(sum(said) - 1.0) <= SUM_TOLERANCE and min(said) >= 0.0 and max(said) <= 1.0

    def made(
        self,
        row: Any,
        prediction_id: str,
        digest: str,
        release: int | None,
        now: datetime,
        latency_us: int,
        said: Any,
        features: Any,
    ) -> tuple[Answer, Record]:
        highest = max(said)
        predicted = self.classes[said.index(highest)]
        probabilities = dict(zip(self.classes, said, strict=True))
        return MultiClassAnswer(prediction_id, digest, row.entity, predicted, highest, probabilities), MultiClassRecord(
            prediction_id,
            digest,
            release,
            row.entity,
            row.service_time,
            row.asked_at,
            row.idempotency_key or None,
            now,
            latency_us,
            predicted,
            said,
            features,
        )

    def schema(self) -> dict[str, Any]:
        return {
            "predicted": {"type": "string", "enum": list(self.classes), "description": "The likeliest class."},
            "probability": {**_PROBABILITY, "description": "Of the likeliest class."},
            "probabilities": {
                "type": "object",
                "properties": dict.fromkeys(self.classes, _PROBABILITY),
                "required": list(self.classes),
                "additionalProperties": False,
                "description": "Of each class; they add up to 1.",
            },
        }

    def said(self, answer: Mapping[str, Any]) -> list[float]:
        return [answer["probabilities"][name] for name in self.classes]


class Regression(Kind):
    """A value and its spread: a normal distribution."""

    kind: ClassVar[str] = "regression"
    width = 2
    expected = "a finite value and a finite spread above 0 in a row"

    def __init__(self, document: Mapping[str, Any]) -> None:
        unit = document.get("unit")
        if not isinstance(unit, str):
            raise ValueError(f"task.unit is {unit!r}; expected text, empty for a number without a unit")
        self.unit = unit

    def is_sound(self, said: Any) -> bool:
        value, spread = said
        return math.isfinite(value) and 0.0 < spread < math.inf

    def made(
        self,
        row: Any,
        prediction_id: str,
        digest: str,
        release: int | None,
        now: datetime,
        latency_us: int,
        said: Any,
        features: Any,
    ) -> tuple[Answer, Record]:
        value, spread = said
        reach = REACH_90 * spread
        return RegressionAnswer(
            prediction_id, digest, row.entity, value, spread, value - reach, value + reach
        ), RegressionRecord(
            prediction_id,
            digest,
            release,
            row.entity,
            row.service_time,
            row.asked_at,
            row.idempotency_key or None,
            now,
            latency_us,
            value,
            spread,
            features,
        )

    def schema(self) -> dict[str, Any]:
        of_unit = f" ({self.unit})" if self.unit else ""
        words = {
            "value": f"What is expected{of_unit}.",
            "spread": f"One standard deviation of it{of_unit}.",
            "low": f"Where the central 90 % begin{of_unit}.",
            "high": f"Where the central 90 % end{of_unit}.",
        }
        schemas = {name: {"type": "number", "description": text} for name, text in words.items()}
        return {**schemas, "spread": {**schemas["spread"], "exclusiveMinimum": 0}}

    def said(self, answer: Mapping[str, Any]) -> list[float]:
        return [answer["value"], answer["spread"]]


_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
KINDS: dict[str, type[Kind]] = {each.kind: each for each in (Binary, MultiClass, Regression)}


def kind_of(document: Any) -> Kind:
    """Return what makes the answers of a contract's `task`.

    Raises:
        ValueError: it is of no kind that this code knows, or lacks something; a clause that says what came.
    """
    name = document.get("kind") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"task is {document!r}; expected an object whose kind is one of {', '.join(KINDS)}")
    return KINDS[name](document)


def said(document: Mapping[str, Any], answer: Mapping[str, Any]) -> list[float]:
    """Return the numbers of an HTTP answer in the order in which the graph gives them.

    Args:
        document: the contract's `task`.
        answer: as `/predict` gave it for a row.
    """
    return kind_of(document).said(answer)


def words(answer: Mapping[str, Any]) -> str:
    """Return an answer, of HTTP or of the log, as a short clause for a person: `with probability 0.213`."""
    if "predicted" in answer:
        found = answer["probabilities"]
        return f"is {answer['predicted']} ({max(found.values() if isinstance(found, Mapping) else found):.2f})"
    if "value" in answer:
        value, reach = answer["value"], REACH_90 * answer["spread"]
        decimals = min(12, max(0, 1 - math.floor(math.log10(answer["spread"]))))
        middle, low, high = (f"{number:z.{decimals}f}" for number in (value, value - reach, value + reach))
        return f"{middle}, within {low} to {high} nine times in ten"
    return f"with probability {answer['probability']:.3f}"
