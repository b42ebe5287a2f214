"""Segments of a tiny product's prediction log, as services send them to the store."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from platform_assets.store import objects, segments
from platform_assets.store.segments import Kind, Name
from tests.doubles import recorded

SPEC = recorded.SPEC
MIDNIGHT = datetime(2020, 1, 5, tzinfo=UTC)
PROCESS = "pod-7-0123abcd"
STREAM = "1700000000000000000-7-0123abcd"


def line(number: int, *, day: int = 0, **changes: Any) -> bytes:
    """Return a logged answer for the service hour `number` modulo 24 of `MIDNIGHT` and some days."""
    service_time = MIDNIGHT + timedelta(days=day, hours=number % 24)
    record = {
        "prediction_id": f"p{day}-{number:06d}",
        "digest": "a" * 64,
        "release": 1,
        "entity": f"job-{day}-{number}",
        "service_time": service_time.isoformat(),
        "asked_at": (service_time - timedelta(hours=1)).isoformat(),
        "idempotency_key": None,
        "probability": (number % 99 + 0.5) / 100,
        "answered_at_utc": service_time.isoformat(),
        "latency_us": 900,
        "features": {"site": "north", "size": 3, "value": None if number % 5 == 0 else number},
        **changes,
    }
    return json.dumps(record).encode() + b"\n"


def lines(numbers: Sequence[int], **changes: Any) -> bytes:
    return b"".join(line(number, **changes) for number in numbers)


def encoded(
    at: datetime,
    body: bytes,
    *,
    first: int = 0,
    process: str = PROCESS,
    stream: str = STREAM,
    kind: Kind | None = None,
    product: str = SPEC.name,
    **members: Any,
) -> tuple[str, bytes]:
    """Return the path and the bytes of a segment that was sent at a moment."""
    stream = stream if body else segments.NO_STREAM
    shipped_ms = round(at.timestamp() * 1000)
    name = Name(product=product, shipped_ms=shipped_ms, process=process, stream=stream, first=first)
    data = segments.encode(
        name,
        body,
        kind=kind or (segments.ANSWERS if body else segments.HEARTBEAT),
        sent_at=at,
        covers_until=members.pop("covers_until", at),
        **members,
    )
    return name.path, data


def ship(root: str, at: datetime, body: bytes, **members: Any) -> str:
    path, data = encoded(at, body, **members)
    assert objects.create(objects.open_store(root), path, data)
    return path
