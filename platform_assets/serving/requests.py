"""Define a request and its refusal: what decoding, diagnosis and the contract share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from platform_assets.problems import Problem

TEXT_MAX = 256
"""The longest entity, category or idempotency key, in code points."""
TEXT = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
TEXT_EXPECTATION = f"text of 1 to {TEXT_MAX} characters"
INTEGER_MAX = 2**53 - 1
"""The largest whole number that no JSON reader confuses with another."""
MOMENT = Annotated[datetime, msgspec.Meta(tz=True)]
MOMENTS = ("service_time", "asked_at")
Between = tuple[tuple[datetime, datetime], tuple[datetime, datetime]]
"""The bounds of `MOMENTS`, each from the first moment and before the second."""
Features = TypeVar("Features")


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a request is not answered: what was sent, what was expected; and the dotted path of the field to fix."""

    error: str
    field: str | None


class Refusal(Reason, frozen=True, forbid_unknown_fields=True):
    """The body of an answer other than 200; `problems` has one entry per bad row if a list has several."""

    problems: list[Reason] | msgspec.UnsetType = msgspec.UNSET


class Refused(Problem):
    """A request that is not answered.

    Attributes:
        status: the HTTP status.
        sentence: what was sent, what was expected.
        field: the dotted path of the field to fix (`[3].features.temp`), or None.
        problems: of the bad rows of a list, this one first; empty unless there are several.
    """

    def __init__(
        self, status: int, sentence: str, field: str | None = None, problems: list[Reason] | None = None
    ) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.field = status, sentence, field
        self.problems = problems or []

    @property
    def body(self) -> bytes:
        """The answer's body, as JSON."""
        return msgspec.json.encode(Refusal(self.sentence, self.field, self.problems or msgspec.UNSET))


class Row(msgspec.Struct, Generic[Features], forbid_unknown_fields=True, gc=False):
    """A decoded row; the type of its features is built from the contract."""

    entity: TEXT
    service_time: MOMENT
    asked_at: MOMENT
    features: Features
    idempotency_key: TEXT | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def key(self) -> str | None:
        """The idempotency key, None without one."""
        return self.idempotency_key or None


class Request(msgspec.Struct, frozen=True, gc=False):
    """A decoded body: rows in order, and whether the caller sent a list."""

    rows: list[Row[Any]]
    is_list: bool
