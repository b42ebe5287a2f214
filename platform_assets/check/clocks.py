"""Say when a product's keys end long before today, because Dagster's sensors then do other than expected."""

from __future__ import annotations

from datetime import datetime

from platform_assets.base.keys import DailyGrain, HourlyGrain
from platform_assets.base.wording import counted
from platform_assets.check.messages import file_of
from platform_assets.product.spec import Product

BY_HAND = 'by hand ("Land files, train" in docs/add_a_product.md)'


def ended(spec: Product, now: datetime) -> str | None:
    """Return what it means that the last key of a live product's grain is over; None before, and without an end.

    Args:
        now: by the wall clock.
    """
    grain = spec.grain
    over = None if grain.last is None else grain.instant_after(grain.last)
    if not spec.is_live or over is None or now < over:
        return None
    return (
        f"the last key of the grain, {grain.last}, ended {_ago(over, now)}, and is_live=True, so no key follows and "
        "nothing new is taken in: give the grain a later `end` or none; or, for a recording, set is_live=False and "
        f'give it a history ("A recording" in docs/cookbook.md), in {file_of(spec.name)}'
    )


def past(spec: Product, newest: str | None, now: datetime) -> str | None:
    """Return what it means in `make dev` that a recording, or what has landed of a live product, ended before today.

    Args:
        newest: the last landed key of a live product; None if none has landed.
        now: by the wall clock.

    Returns:
        None for batches, which have no time; and for a live product whose newest key is not older than
        `Retraining.max_age`, so that a model of it would not be out of date at once.
    """
    grain = spec.grain
    last = newest if spec.is_live else grain.last
    if last is None or not isinstance(grain, DailyGrain | HourlyGrain):
        return None
    over = grain.instant_after(last)
    ago = _ago(over, now)
    if not spec.is_live:
        how = f"play it with `driftline demo {spec.name}`, or {BY_HAND}" if spec.history else f"play it {BY_HAND}"
        return (
            None if now < over else f"the recording ended with {last}, {ago}, so in `make dev` nothing new lands: {how}"
        )
    behind = grain.index(grain.key_of(now)) - grain.index(last) - 1 if now > over else 0
    if behind <= spec.retraining.max_age:
        return None
    return (
        f"the newest landed key, {last}, ended {ago}, so in `make dev` the sensors close {counted(behind, 'key')} "
        f"without files, each a fault: if it is a recording, release its model {BY_HAND}, or give it a grain with an "
        f'end, is_live=False and a history ("A recording" in docs/cookbook.md) in {file_of(spec.name)}'
    )


def _ago(over: datetime, now: datetime) -> str:
    return f"{counted((now - over).days, 'day')} ago (today is {now:%Y-%m-%d})"
