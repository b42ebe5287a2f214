"""Convert a spec to its contract: what a request holds, and what is answered, as data."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypedDict

from platform_assets.base.keys import EARLIEST, LATEST

if TYPE_CHECKING:
    from platform_assets.product.spec import Product
    from platform_assets.product.tasks.base import TaskDocument

FORMAT = 3


Between = TypedDict("Between", {"from": str, "before": str})
"""Bounds of a moment; the later one is excluded."""


class ContractDocument(TypedDict):
    """A contract as it is stored; `fields` have the members of `Field`.

    Attributes:
        service_time, asked_at: bounds of a request's moments.
        clock_within_s: how far they may be from the server's clock; None for a recording.
    """

    format: int
    product: str
    title: str
    task: TaskDocument
    entity: str
    fields: list[dict[str, str | float | tuple[int, int] | None]]
    max_rows: int
    max_body_bytes: int
    logs_features: bool
    service_time: Between
    asked_at: Between
    clock_within_s: float | None


def contract_of(spec: Product) -> ContractDocument:
    """Return the contract as plain JSON values.

    The serving side reads nothing else about a product. `fields` keeps the spec's order: the columns of the graph's
    input `numeric` are the fields that are not categories, in this order; those of `categorical` are the rest. Moments
    lie in the span of the grain's keys, by which a log can be read.
    """
    grain, service = spec.grain, spec.service
    # Numbered batches have no period: each moment belongs to some batch, so they have the widest bounds.
    begins, ends, period = EARLIEST, LATEST, None
    if (first_over := grain.instant_after(grain.first)) is not None:
        begins, period = grain.instant(grain.first), first_over - grain.instant(grain.first)
        if grain.last is not None:
            ends = grain.instant_after(grain.last) or LATEST
    around = service.asked_within or max(timedelta(days=1), (spec.lookback + 1) * (period or timedelta(days=1)))
    near = timedelta(days=366)
    if period is not None:
        near = max(timedelta(days=7), (spec.lookback + spec.label_delay + 1) * period)
    near = service.clock_within or near
    return {
        "format": FORMAT,
        "product": spec.name,
        "title": spec.title,
        "task": spec.task.document(),
        "entity": spec.entity,
        "fields": [asdict(item) for item in spec.fields],
        "max_rows": service.max_rows,
        "max_body_bytes": service.max_body_bytes,
        "logs_features": service.logs_features,
        "service_time": _between(begins, ends),
        "asked_at": _between(begins - around, ends + around),
        "clock_within_s": near.total_seconds() if spec.is_live else None,
    }


def _between(begins: datetime, ends: datetime) -> Between:
    return {"from": moment(max(begins, EARLIEST)), "before": moment(min(ends, LATEST))}


def moment(value: datetime) -> str:
    """Return a moment as contracts and requests carry it, in UTC."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
