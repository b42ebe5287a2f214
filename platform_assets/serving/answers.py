"""Say what an answer is, one class a kind of task: the row of the graph behind it, the HTTP body, the log record.

Belongs here: everything in which the kinds differ while serving, and reading an answer back (`said`, `words`). Does
not belong here: how a kind is learned and judged (`compute.tasks`), scoring (`model`), HTTP (`middleware`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypedDict

import msgspec

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
Head = tuple[str, str, int | None, str, datetime, datetime, str | None, datetime, int]
"""The fields that records of all kinds begin with, in the order of `Record`."""


_Reference = TypedDict("_Reference", {"$ref": str}, total=False)


class Schema(_Reference, total=False):
    """A JSON schema, by the keywords that are used here."""

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
    """Base of the kinds, decoded from a contract's `task`: makes answers and records of what a graph says.

    Attributes:
        kind: as it stands in contracts.
        wanted: in words, what the kind's one field takes.
    """

    kind: ClassVar[str]
    wanted: ClassVar[str]

    @property
    def width(self) -> int:
        """How many numbers the graph gives a row; one number comes as [N], more as [N, width]."""
        raise NotImplementedError

    @property
    def expected(self) -> str:
        """In words, what a sound row is."""
        raise NotImplementedError

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the graph's answer to so many rows."""
        return (rows,) if self.width == 1 else (rows, self.width)

    def is_sound(self, said: Any) -> bool:
        """Tell whether one row of the graph's answer, as Python numbers, can be an answer at all."""
        raise NotImplementedError

    def made(self, head: Head, said: Any, features: Any) -> tuple[Answer, Record]:
        """Return a row's answer and log record, by one call for both: this runs for every row.

        Args:
            head: what all records begin with.
            said: what the graph gave, sound.
            features: the decoded row's, or None to leave them out.
        """
        raise NotImplementedError

    def schema(self) -> dict[str, Schema]:
        """Return the JSON schemas of the answer's fields beside those of `Answer`."""
        raise NotImplementedError

    def said(self, answer: object) -> list[float]:
        """Return the numbers of an HTTP answer in the order in which the graph gives them."""
        raise NotImplementedError


class Binary(Kind, frozen=True):
    """The probability of yes."""

    threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)]

    kind = "binary"
    wanted = "a probability between 0 and 1"
    width = 1
    expected = "between 0 and 1"

    def is_sound(self, said: Any) -> bool:
        return 0.0 <= said <= 1.0

    def made(self, head: Head, said: Any, features: Any) -> tuple[Answer, Record]:
        answer = BinaryAnswer(head[0], head[1], head[3], said, said >= self.threshold)
        return answer, BinaryRecord(*head, said, features)

    def schema(self) -> dict[str, Schema]:
        words = "Whether the probability reaches the operating threshold."
        return {"probability": _PROBABILITY, "is_positive": {"type": "boolean", "description": words}}

    def said(self, answer: object) -> list[float]:
        return [msgspec.convert(answer, BinaryAnswer).probability]


class MultiClass(Kind, frozen=True):
    """A probability for each class."""

    classes: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1)], ...], msgspec.Meta(min_length=2)]

    kind = "multi_class"
    wanted = "a list of at least 2 names, none twice"

    def __post_init__(self) -> None:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class stands there twice")

    @property
    def width(self) -> int:
        return len(self.classes)

    @property
    def expected(self) -> str:
        return f"{self.width} numbers between 0 and 1 in a row that add up to 1"

    def is_sound(self, said: Any) -> bool:
        # The comparisons are false for NaN.
        return abs(sum(said) - 1.0) <= SUM_TOLERANCE and min(said) >= 0.0 and max(said) <= 1.0

    def made(self, head: Head, said: Any, features: Any) -> tuple[Answer, Record]:
        highest = max(said)
        predicted = self.classes[said.index(highest)]
        probabilities = dict(zip(self.classes, said, strict=True))
        answer = MultiClassAnswer(head[0], head[1], head[3], predicted, highest, probabilities)
        return answer, MultiClassRecord(*head, predicted, said, features)

    def schema(self) -> dict[str, Schema]:
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

    def said(self, answer: object) -> list[float]:
        probabilities = msgspec.convert(answer, MultiClassAnswer).probabilities
        return [probabilities[name] for name in self.classes]


class Regression(Kind, frozen=True):
    """A value and its spread: a normal distribution."""

    unit: str

    kind = "regression"
    wanted = "text, empty for a number without a unit"
    width = 2
    expected = "a finite value and a finite spread above 0 in a row"

    def is_sound(self, said: Any) -> bool:
        value, spread = said
        return math.isfinite(value) and 0.0 < spread < math.inf

    def made(self, head: Head, said: Any, features: Any) -> tuple[Answer, Record]:
        value, spread = said
        reach = REACH_90 * spread
        answer = RegressionAnswer(head[0], head[1], head[3], value, spread, value - reach, value + reach)
        return answer, RegressionRecord(*head, value, spread, features)

    def schema(self) -> dict[str, Schema]:
        of_unit = f" ({self.unit})" if self.unit else ""
        words = {
            "value": f"What is expected{of_unit}.",
            "spread": f"One standard deviation of it{of_unit}.",
            "low": f"Where the central 90 % begin{of_unit}.",
            "high": f"Where the central 90 % end{of_unit}.",
        }
        schemas: dict[str, Schema] = {name: {"type": "number", "description": text} for name, text in words.items()}
        return {**schemas, "spread": {**schemas["spread"], "exclusiveMinimum": 0}}

    def said(self, answer: object) -> list[float]:
        found = msgspec.convert(answer, RegressionAnswer)
        return [found.value, found.spread]


_PROBABILITY: Schema = {"type": "number", "minimum": 0, "maximum": 1}
KINDS: dict[str, type[Kind]] = {each.kind: each for each in (Binary, MultiClass, Regression)}


def kind_of(document: object) -> Kind:
    """Return what makes the answers of a contract's `task`.

    Raises:
        ValueError: it is of no kind that this code knows, or lacks something; a clause that says what came.
    """
    kind = document.get("kind") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"task is {document!r}; expected an object whose kind is one of {', '.join(KINDS)}")
    wanted = KINDS[kind]
    try:
        return msgspec.convert(document, wanted)
    except msgspec.ValidationError as problem:
        (field,) = wanted.__struct_fields__
        raise ValueError(f"task.{field} is {document.get(field)!r}; expected {wanted.wanted}") from problem


def said(document: object, answer: object) -> list[float]:
    """Return the numbers of an HTTP answer in the order in which the graph gives them.

    Args:
        document: the contract's `task`.
        answer: as `/predict` gave it for a row.
    """
    return kind_of(document).said(answer)


class _Said(msgspec.Struct, frozen=True):
    """What answers of HTTP and records of the log have in common, by kind."""

    probability: float = math.nan
    predicted: str | None = None
    probabilities: dict[str, float] | list[float] = []
    value: float | None = None
    spread: float = math.nan


def words(answer: object) -> str:
    """Return an answer, of HTTP or of the log, as a short clause for a person: `with probability 0.213`."""
    found = msgspec.convert(answer, _Said)
    if found.predicted is not None:
        shares = found.probabilities
        return f"is {found.predicted} ({max(shares.values() if isinstance(shares, dict) else shares):.2f})"
    if found.value is not None:
        value, reach = found.value, REACH_90 * found.spread
        decimals = min(12, max(0, 1 - math.floor(math.log10(found.spread))))
        middle, low, high = (f"{number:z.{decimals}f}" for number in (value, value - reach, value + reach))
        return f"{middle}, within {low} to {high} nine times in ten"
    return f"with probability {found.probability:.3f}"
