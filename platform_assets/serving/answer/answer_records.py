"""Define a row's answer and its log record, one pair of structs per kind of task. The order of fields counts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

Origin = tuple[str | None, str | None, str | None]
"""Whose request it was: the caller, `X-Request-ID` and `traceparent`; the last fields of each record."""
UNKNOWN: Origin = (None, None, None)


# Answers and records hold no cycles, and the collector would look at each of them.
class Answer(msgspec.Struct, gc=False, frozen=True):
    """The answer to a row, common to all kinds."""

    prediction_id: str
    digest: str
    entity: str


class Record(msgspec.Struct, gc=False, omit_defaults=True):
    """The log record of a prediction; `features` only if the contract allows it, times in UTC.

    `latency_us` runs from the body's arrival to the record's writing. `caller` is named where callers are known.
    """

    prediction_id: str
    digest: str
    release: int | None
    entity: str
    service_time: datetime
    asked_at: datetime
    idempotency_key: str | None
    answered_at_utc: datetime
    latency_us: int


class BinaryAnswer(Answer, gc=False, frozen=True):
    """A binary answer."""

    probability: float
    is_positive: bool


class BinaryRecord(Record, gc=False, omit_defaults=True):
    """A binary answer's record."""

    probability: float
    features: Any = None
    caller: str | None = None
    request_id: str | None = None
    traceparent: str | None = None


class MultiClassAnswer(Answer, gc=False, frozen=True):
    """One of several classes; `probability` is that of `predicted`."""

    predicted: str
    probability: float
    probabilities: dict[str, float]


class MultiClassRecord(Record, gc=False, omit_defaults=True):
    """One of several classes; `probabilities` in the order of the contract's classes."""

    predicted: str
    probabilities: list[float]
    features: Any = None
    caller: str | None = None
    request_id: str | None = None
    traceparent: str | None = None


class RegressionAnswer(Answer, gc=False, frozen=True):
    """A number; 90 % of its distribution lie from `low` to `high`."""

    value: float
    spread: float
    low: float
    high: float


class RegressionRecord(Record, gc=False, omit_defaults=True):
    """A number and its spread, one standard deviation."""

    value: float
    spread: float
    features: Any = None
    caller: str | None = None
    request_id: str | None = None
    traceparent: str | None = None
