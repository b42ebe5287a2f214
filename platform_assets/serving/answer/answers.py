"""Build answers, one class per kind of task: from a row of the graph's output to the HTTP body and the log record.

Everything in which the kinds differ while serving is here, including reading an answer back (`numbers`, `describe`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypedDict

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


_Reference = TypedDict("_Reference", {"$ref": str}, total=False)


class Schema(_Reference, total=False):
    """A JSON schema, with the keywords used here."""

    type: str | list[str]
    format: str
    contentEncoding: str
    description: str
    enum: list[str]
    minLength: int
    maxLength: int
    minimum: float
    maximum: float
    exclusiveMinimum: float
    items: Schema
    minItems: int
    maxItems: int
    oneOf: list[Schema]
    properties: dict[str, Schema]
    required: list[str]
    additionalProperties: bool


class Kind(msgspec.Struct, frozen=True):
    """Base of the kinds, decoded from a contract's `task`: builds answers and records from a graph's output.

    Attributes:
        kind: its name in contracts.
        accepts: what the kind's one field accepts, for messages.
    """

    kind: ClassVar[str]
    accepts: ClassVar[str]

    @property
    def width(self) -> int:
        """Numbers per row of the graph's output; one number has shape [N], more have [N, width]."""
        raise NotImplementedError

    @property
    def expected(self) -> str:
        """What a valid row is, for messages."""
        raise NotImplementedError

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the graph's output for a number of rows."""
        return (rows,) if self.width == 1 else (rows, self.width)

    def is_sound(self, output: Any) -> bool:
        """Return whether one row of the graph's output, as Python numbers, is a valid answer."""
        raise NotImplementedError

    def build(self, head: Head, output: Any, features: Any, origin: Origin = UNKNOWN) -> tuple[Answer, Record]:
        """Return a row's answer and log record; one call builds both, because this runs for every row.

        Args:
            head: the fields that all records start with.
            output: the row of the graph's output, valid.
            features: of the decoded row; None to leave them out.
            origin: of the request.
        """
        raise NotImplementedError

    def schema(self) -> dict[str, Schema]:
        """Return the JSON schemas of the answer's fields in addition to those of `Answer`."""
        raise NotImplementedError

    def numbers(self, answer: object) -> list[float]:
        """Return the numbers of an HTTP answer in the graph's order."""
        raise NotImplementedError


class Binary(Kind, frozen=True):
    """The probability of the positive class."""

    threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)]

    kind = "binary"
    accepts = "a probability between 0 and 1"
    width = 1
    expected = "between 0 and 1"

    def is_sound(self, output: Any) -> bool:
        return 0.0 <= output <= 1.0

    def build(self, head: Head, output: Any, features: Any, origin: Origin = UNKNOWN) -> tuple[Answer, Record]:
        answer = BinaryAnswer(head[0], head[1], head[3], output, output >= self.threshold)
        return answer, BinaryRecord(*head, output, features, *origin)

    def schema(self) -> dict[str, Schema]:
        description = "Whether the probability reaches the operating threshold."
        return {"probability": _PROBABILITY, "is_positive": {"type": "boolean", "description": description}}

    def numbers(self, answer: object) -> list[float]:
        return [msgspec.convert(answer, BinaryAnswer).probability]


class MultiClass(Kind, frozen=True):
    """A probability per class."""

    classes: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1)], ...], msgspec.Meta(min_length=2)]

    kind = "multi_class"
    accepts = "a list of at least 2 different names"

    def __post_init__(self) -> None:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class appears twice")

    @property
    def width(self) -> int:
        return len(self.classes)

    @property
    def expected(self) -> str:
        return f"{self.width} numbers between 0 and 1 per row that add up to 1"

    def is_sound(self, output: Any) -> bool:
        # The comparisons are false for NaN.
        return abs(sum(output) - 1.0) <= SUM_TOLERANCE and min(output) >= 0.0 and max(output) <= 1.0

    def build(self, head: Head, output: Any, features: Any, origin: Origin = UNKNOWN) -> tuple[Answer, Record]:
        highest = max(output)
        predicted = self.classes[output.index(highest)]
        probabilities = dict(zip(self.classes, output, strict=True))
        answer = MultiClassAnswer(head[0], head[1], head[3], predicted, highest, probabilities)
        return answer, MultiClassRecord(*head, predicted, output, features, *origin)

    def schema(self) -> dict[str, Schema]:
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


class Regression(Kind, frozen=True):
    """A value and its spread: a normal distribution."""

    unit: str

    kind = "regression"
    accepts = "text, empty for a number without a unit"
    width = 2
    expected = "a finite value and a finite spread above 0 per row"

    def is_sound(self, output: Any) -> bool:
        value, spread = output
        return math.isfinite(value) and 0.0 < spread < math.inf

    def build(self, head: Head, output: Any, features: Any, origin: Origin = UNKNOWN) -> tuple[Answer, Record]:
        value, spread = output
        reach = REACH_90 * spread
        answer = RegressionAnswer(head[0], head[1], head[3], value, spread, value - reach, value + reach)
        return answer, RegressionRecord(*head, value, spread, features, *origin)

    def schema(self) -> dict[str, Schema]:
        unit = f" ({self.unit})" if self.unit else ""
        descriptions = {
            "value": f"The expected value{unit}.",
            "spread": f"Its standard deviation{unit}.",
            "low": f"Lower end of the central 90 %{unit}.",
            "high": f"Upper end of the central 90 %{unit}.",
        }
        schemas: dict[str, Schema] = {
            name: {"type": "number", "description": description} for name, description in descriptions.items()
        }
        return {**schemas, "spread": {**schemas["spread"], "exclusiveMinimum": 0}}

    def numbers(self, answer: object) -> list[float]:
        fields = msgspec.convert(answer, RegressionAnswer)
        return [fields.value, fields.spread]


_PROBABILITY: Schema = {"type": "number", "minimum": 0, "maximum": 1}
KINDS: dict[str, type[Kind]] = {kind.kind: kind for kind in (Binary, MultiClass, Regression)}


def kind_of(document: object) -> Kind:
    """Return the kind that a contract's `task` declares.

    Raises:
        ValueError: the kind is unknown, or a field is missing or invalid; the message is a clause.
    """
    kind = document.get("kind") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"task is {document!r}; expected an object whose kind is one of {', '.join(KINDS)}")
    kind_type = KINDS[kind]
    try:
        return msgspec.convert(document, kind_type)
    except msgspec.ValidationError as problem:
        (field,) = kind_type.__struct_fields__
        raise ValueError(f"task.{field} is {document.get(field)!r}; expected {kind_type.accepts}") from problem


def numbers(document: object, answer: object) -> list[float]:
    """Return the numbers of an HTTP answer in the graph's order.

    Args:
        document: the contract's `task`.
        answer: `/predict`'s answer to a row.
    """
    return kind_of(document).numbers(answer)


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
        decimals = min(12, max(0, 1 - math.floor(math.log10(fields.spread))))
        middle, low, high = (f"{number:z.{decimals}f}" for number in (value, value - reach, value + reach))
        return f"{middle}, within {low} to {high} nine times in ten"
    return f"with probability {fields.probability:.3f}"
