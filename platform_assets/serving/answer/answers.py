"""Build answers, one class per kind of task: from a row of the graph's output to the HTTP body and the log record.

Everything in which the kinds differ while serving is here, including reading an answer back (`numbers`, `describe`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec

from platform_assets.serving.answer.answer_records import (
    UNKNOWN,
    Answer,
    BinaryAnswer,
    BinaryRecord,
    MultiClassAnswer,
    MultiClassRecord,
    Origin,
    Record,
    RegressionAnswer,
    RegressionRecord,
)

REACH_90 = 1.6448536269514722
"""Spreads to either side of the mean that contain the central 90 % of a normal distribution."""
SUM_TOLERANCE = 1e-3
"""How far the float32 probabilities of one answer may add up to a number other than 1."""
Head = tuple[str, str, int | None, str, datetime, datetime, str | None, datetime, int]
"""The fields that all log records start with, in the order of `Record`."""


Document: TypeAlias = "str | float | bool | Sequence[Document] | Mapping[str, Document] | None"
Schema: TypeAlias = Mapping[str, Document]
"""A JSON schema, or another part of the OpenAPI document: it is made to be printed, and nothing reads it here."""


class Binary(msgspec.Struct, frozen=True, tag_field="kind", tag="binary"):
    """The probability of the positive class."""

    threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)]

    kind: ClassVar[str] = "binary"
    row_shape: ClassVar[tuple[int, ...]] = ()
    expected: ClassVar[str] = "between 0 and 1"

    def is_sound(self, output: Any) -> bool:
        """Return whether one row of the graph's output, as Python numbers, is a valid answer."""
        return 0.0 <= output <= 1.0  # false for NaN

    def build(self, head: Head, output: Any, features: Any, origin: Origin = UNKNOWN) -> tuple[Answer, Record]:
        """Return a row's answer and log record; one call builds both, because this runs for every row.

        Args:
            head: the fields that all records start with.
            output: the row of the graph's output, valid.
            features: of the decoded row; None to leave them out.
            origin: of the request.
        """
        answer = BinaryAnswer(head[0], head[1], head[3], output, output >= self.threshold)
        return answer, BinaryRecord(*head, output, features, *origin)

    def schema(self) -> Schema:
        """Return the JSON schemas of the answer's fields in addition to those of `Answer`."""
        description = "Whether the probability reaches the operating threshold."
        return {"probability": _PROBABILITY, "is_positive": {"type": "boolean", "description": description}}

    def numbers(self, answer: object) -> list[float]:
        """Return the numbers of an HTTP answer in the graph's order."""
        return [msgspec.convert(answer, BinaryAnswer).probability]


class MultiClass(msgspec.Struct, frozen=True, tag_field="kind", tag="multi_class"):
    """A probability per class."""

    classes: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1)], ...], msgspec.Meta(min_length=2)]

    kind: ClassVar[str] = "multi_class"

    def __post_init__(self) -> None:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class appears twice")

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row of the graph's output."""
        return (len(self.classes),)

    @property
    def expected(self) -> str:
        """What a valid row is, for messages."""
        return f"{len(self.classes)} numbers between 0 and 1 per row that add up to 1"

    def is_sound(self, output: Any) -> bool:
        # The comparisons are false for NaN.
        return abs(sum(output) - 1.0) <= SUM_TOLERANCE and min(output) >= 0.0 and max(output) <= 1.0

    def build(self, head: Head, output: Any, features: Any, origin: Origin = UNKNOWN) -> tuple[Answer, Record]:
        highest = max(output)
        predicted = self.classes[output.index(highest)]
        probabilities = dict(zip(self.classes, output, strict=True))
        answer = MultiClassAnswer(head[0], head[1], head[3], predicted, highest, probabilities)
        return answer, MultiClassRecord(*head, predicted, output, features, *origin)

    def schema(self) -> Schema:
        return {
            "predicted": {"type": "string", "enum": list(self.classes), "description": "The most likely class."},
            "probability": {**_PROBABILITY, "description": "Of the most likely class."},
            "probabilities": {
                "type": "object",
                "properties": dict.fromkeys(self.classes, _PROBABILITY),
                "required": list(self.classes),
                "additionalProperties": False,
                "description": "Per class; they add up to 1.",
            },
        }

    def numbers(self, answer: object) -> list[float]:
        probabilities = msgspec.convert(answer, MultiClassAnswer).probabilities
        return [probabilities[name] for name in self.classes]


class Regression(msgspec.Struct, frozen=True, tag_field="kind", tag="regression"):
    """A value and its spread: a normal distribution."""

    unit: str

    kind: ClassVar[str] = "regression"
    row_shape: ClassVar[tuple[int, ...]] = (2,)
    expected: ClassVar[str] = "a finite value and a finite spread above 0 per row"

    def is_sound(self, output: Any) -> bool:
        value, spread = output
        return math.isfinite(value) and 0.0 < spread < math.inf

    def build(self, head: Head, output: Any, features: Any, origin: Origin = UNKNOWN) -> tuple[Answer, Record]:
        value, spread = output
        reach = REACH_90 * spread
        answer = RegressionAnswer(head[0], head[1], head[3], value, spread, value - reach, value + reach)
        return answer, RegressionRecord(*head, value, spread, features, *origin)

    def schema(self) -> Schema:
        unit = f" ({self.unit})" if self.unit else ""
        descriptions = {
            "value": f"The expected value{unit}.",
            "spread": f"Its standard deviation{unit}.",
            "low": f"Lower end of the central 90 %{unit}.",
            "high": f"Upper end of the central 90 %{unit}.",
        }
        limits: dict[str, Schema] = {"spread": {"exclusiveMinimum": 0}}
        return {
            name: {"type": "number", "description": text, **limits.get(name, {})} for name, text in descriptions.items()
        }

    def numbers(self, answer: object) -> list[float]:
        fields = msgspec.convert(answer, RegressionAnswer)
        return [fields.value, fields.spread]


_PROBABILITY: Schema = {"type": "number", "minimum": 0, "maximum": 1}
Kind = Binary | MultiClass | Regression
"""Decoded from a contract's `task`: builds answers and log records from rows of the graph's output, valid ones."""


def numbers(document: object, answer: object) -> list[float]:
    """Return the numbers of an HTTP answer in the graph's order.

    Args:
        document: the contract's `task`.
        answer: `/predict`'s answer to a row.
    """
    kind: Kind = msgspec.convert(document, Kind)
    return kind.numbers(answer)


class _Fields(msgspec.Struct, frozen=True):
    """The fields that HTTP answers and log records share, by kind."""

    probability: float = math.nan
    predicted: str | None = None
    probabilities: dict[str, float] | list[float] = []
    value: float | None = None
    spread: float = math.nan


def describe(answer: object) -> str:
    """Describe an HTTP answer or log record in a short clause for a person: `with probability 0.213`."""
    fields = msgspec.convert(answer, _Fields)
    if fields.predicted is not None:
        shares = fields.probabilities
        return f"is {fields.predicted} ({max(shares.values() if isinstance(shares, dict) else shares):.2f})"
    if fields.value is not None:
        value, reach = fields.value, REACH_90 * fields.spread
        # Two digits of the spread: more would be noise. `z` writes no minus before a zero.
        decimals = min(12, max(0, 1 - math.floor(math.log10(fields.spread))))
        middle, low, high = (f"{number:z.{decimals}f}" for number in (value, value - reach, value + reach))
        return f"{middle}, within {low} to {high} nine times in ten"
    return f"with probability {fields.probability:.3f}"
