"""Turn a spec into its contract, request and response as data, and a features row into a request of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from platform_assets.specs.base import Field, ProductSpec

FORMAT = 2


def contract_of(spec: ProductSpec) -> dict[str, Any]:
    """Return the contract as plain JSON values.

    The serving side reads nothing else of a product. `fields` keeps the spec's order: the columns of the
    graph's input `numeric` are the fields that are no category, in this order; those of `categorical` the rest.
    """
    return {
        "format": FORMAT,
        "product": spec.name,
        "title": spec.title,
        "task": spec.task.document(),
        "entity": spec.entity,
        "fields": [asdict(item) for item in spec.fields],
        "max_rows": spec.service.max_rows,
        "max_body_bytes": spec.service.max_body_bytes,
        "logs_features": spec.service.logs_features,
    }


def request_of(spec: ProductSpec, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request that a caller sends for one row of `features`.

    Args:
        row: with `entity`, `service_time`, `asked_at` (UTC) and a value for each field of the spec.
    """
    asked_at = _moment(row["asked_at"])
    return {
        "entity": row["entity"],
        "service_time": _moment(row["service_time"]),
        "asked_at": asked_at,
        "idempotency_key": f"{row['entity']} {asked_at}",
        "features": {item.name: _value(row[item.name], item) for item in spec.fields},
    }


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _value(value: Any, item: Field) -> Any:
    """Return a value as it travels: an image as the base64 text of a PNG file."""
    if item.shape is None:
        return value
    from base64 import b64encode

    from platform_assets.compute import images

    return b64encode(images.to_png(value, item.shape)).decode()
