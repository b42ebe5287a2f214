"""What the module that `bentoml serve` imports needs to know of the rest, which only workers import."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar

TIMEOUT_S = 10.0
"""How long a request may take."""
PREDICT, API, SCHEMA = "/predict", "/api/predict", "/schema.json"
"""The fast path; the same as an API of Bento's, and what Bento's client reads before it calls that."""
ANSWER: ContextVar[Callable[[bytes], Awaitable[tuple[int, bytes]]]] = ContextVar("answer")
"""What answers the body of a request to `API`, for the service's method: returns status and JSON."""
