"""Describe a release with its verdict and age, and a key that is left out, as status shows them."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import asdict

from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.operations.status.state import Held, Judged, Live, Released
from platform_assets.product.spec import Product
from platform_assets.store.history.holds import Hold
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.releases import Release
from platform_assets.store.records.verdicts import Verdict

OF_A_RELEASE = ("cutoff", "outcome", "why", "by", "at_utc")
OF_A_HOLD = ("source", "check", "why", "at_utc")


def released(number: int, record: Release) -> Released:
    """Return a release by its record."""
    return Released(number=number, digest=record.digest, **record.members(OF_A_RELEASE))


def live(product: ProductStore, number: int, record: Release, closed: str | None, now: datetime | None) -> Live:
    """Return the model of a release as it is live at a moment.

    Args:
        closed: the newest closed key at that moment.
        now: the moment, if it is known.
    """
    grain = product.spec.grain
    hours = None if now is None else (now - datetime.fromisoformat(record.at_utc)).total_seconds() / 3600
    verdict = product.history.verdict(record.digest)
    return Live(
        **asdict(released(number, record)),
        age_keys=None if closed is None else grain.index(closed) + 1 - grain.index(record.cutoff),
        age_hours=None if hours is None else round(hours, 2),
        verdict=None if verdict is None else _verdict(product.spec, verdict),
    )


def left_out(key: str, hold: Hold) -> Held:
    """Return a key that is left out."""
    return Held(key=key, kind=hold.kind, is_held=hold.is_held, **hold.record.present(OF_A_HOLD))


def _verdict(spec: Product, verdict: Verdict) -> Judged:
    names = [measure.name for measure in measures_of(spec.task).of_answers]
    models = {model: {name: numbers.get(name) for name in names} for model, numbers in verdict.models.items()}
    return Judged(passed=verdict.passed, rows=verdict.rows, models=models)
