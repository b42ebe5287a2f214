"""Define a request and its refusal: what decoding and the contract share."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from platform_assets.base.problems import Problem

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
FAILURES = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # the last of deep nesting
"""What msgspec raises for a body that it does not decode."""
Features = TypeVar("Features")
_REASON_MAX, _NAME_MAX = 300, 60
"""Characters that are shown of what may repeat the caller's own."""
_REASON = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?", re.DOTALL)
_NAMED = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`", re.DOTALL)


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
        return self.idempotency_key or None  # UNSET is falsy, and no key is empty


class Request(msgspec.Struct, frozen=True, gc=False):
    """A decoded body: rows in order, and whether the caller sent a list."""

    rows: list[Row[Any]]
    is_list: bool


def refusal(failure: Exception, path: str = "") -> Refused:
    """Return the refusal of what msgspec does not decode: its reason, and the field that it names.

    Args:
        failure: one of `FAILURES`.
        path: of the row in a list (`[3]`); empty for a body that is one row.
    """
    if not isinstance(failure, msgspec.ValidationError):
        return Refused(422, f"{path or 'the body'} cannot be read: {failure}.", path or None)
    stated = _REASON.fullmatch(str(failure))
    assert stated is not None  # its parts match any text
    reason, place = stated.groups()
    name = _NAMED.fullmatch(reason)
    field = ".".join(part for part in (path, place, name and name[1][:_NAME_MAX]) if part)
    return Refused(422, f"{field or 'the body'}: {reason[:_REASON_MAX]}.", field or None)


def check_moments(row: Row[Any], path: str, between: Between) -> None:
    """Raise `Refused` unless the moments of a row are in UTC and within bounds."""
    for name, moment, bounds in zip(MOMENTS, (row.service_time, row.asked_at), between, strict=True):
        # msgspec gives this very object for Z and +00:00.
        if moment.tzinfo is not UTC or not bounds[0] <= moment < bounds[1]:
            field = f"{path}.{name}" if path else name
            sent = moment.isoformat().replace("+00:00", "Z")
            raise Refused(422, f'{field} is "{sent}"; expected a UTC time {within(bounds)}.', field)


def within(bounds: tuple[datetime, datetime]) -> str:
    """Describe the bounds of a moment: `from 2013-01-01T05:00:00Z, before 2014-01-01T05:00:00Z`."""
    begins, ends = (moment.isoformat(timespec="seconds").replace("+00:00", "Z") for moment in bounds)
    return f"from {begins}, before {ends}"
