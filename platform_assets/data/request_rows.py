"""Turn a row of features into the request that a caller sends for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, TypedDict

from platform_assets.data import images
from platform_assets.product.contract import moment

if TYPE_CHECKING:
    from platform_assets.product.fields import Field
    from platform_assets.product.spec import Product

Cell = str | float | bytes | datetime | None
"""A value in a row of features."""
Value = str | int | float | bool | None
"""A value in a request."""


class RequestDocument(TypedDict):
    """A request as a caller sends it."""

    entity: str
    service_time: str
    asked_at: str
    idempotency_key: str
    features: dict[str, Value]


def request_of(spec: Product, row: Mapping[str, Cell]) -> RequestDocument:
    """Return the request that a caller sends for one row of `features`.

    Args:
        row: with `entity`, `service_time`, `asked_at` (UTC) and a value for each field of the spec.
    """
    entity, service_time, asked_at = row["entity"], row["service_time"], row["asked_at"]
    assert isinstance(entity, str) and isinstance(service_time, datetime) and isinstance(asked_at, datetime)
    return {
        "entity": entity,
        "service_time": moment(service_time),
        "asked_at": moment(asked_at),
        "idempotency_key": f"{entity} {moment(asked_at)}",
        "features": {item.name: _value(row[item.name], item) for item in spec.fields},
    }


def _value(value: Cell, item: Field) -> Value:
    """Return a value as a request carries it: an image as the base64 text of a PNG file."""
    if item.shape is None:
        assert not isinstance(value, bytes | datetime)
        return value
    assert isinstance(value, bytes)
    from base64 import b64encode

    return b64encode(images.to_png(value, item.shape)).decode()
