"""Charts of money and use are small PNGs, the same for the same numbers, and refuse to draw nothing."""

from __future__ import annotations

from typing import Any

import pytest

from platform_assets.compute.accepted import Spent
from platform_assets.compute.costs import Parts
from platform_assets.records.attempts import Attempt
from platform_assets.show import cost_plots, use_plots

PNG = b"\x89PNG"
MOST_BYTES = 40_000
NOTHING = Attempt(reason="finished", wall_s=0, usd_per_hour=0)


def spent(release: int | None, *parts: float) -> Spent:
    bought = Parts(useful=parts[0], rejected=parts[1], lost=parts[2], failed=parts[3])
    cutoff = None if release is None else f"2013-{release:02d}-01"
    return Spent(release=release, cutoff=cutoff, digest=None, attempts=((NOTHING, bought),))


MODELS = [spent(number, 2.0, 0.5 * (number % 3), 0.3, 0.0) for number in range(1, 15)] + [spent(None, 0, 0.4, 0, 0.1)]
MONTHS = {f"2013-{month:02d}": Parts(useful=2.0, rejected=0.1 * month, lost=0.2) for month in range(1, 10)}


def is_small_and_same(draw: Any) -> None:
    first = draw()
    assert first.startswith(PNG)
    assert len(first) < MOST_BYTES
    assert draw() == first


@pytest.mark.parametrize(("months", "models"), [(MONTHS, MODELS), ({"2013-01": Parts(useful=0.0001)}, MODELS[-1:])])
def test_money(months: dict[str, Parts], models: list[Spent]) -> None:
    is_small_and_same(lambda: cost_plots.money(months, models, budget_usd=5.0))


def test_spot_and_waiting() -> None:
    is_small_and_same(lambda: cost_plots.spot({"cpu_small": (0.4, 0.4), "gpu_spot": (3.1, 7.9)}))
    waits = [("gpu_spot" if place % 3 else "gpu", 20.0 + 7 * (place % 9), place % 7 != 0) for place in range(80)]
    is_small_and_same(lambda: cost_plots.waiting(waits))


def test_use_with_and_without_a_gpu() -> None:
    columns = {"at_s": [1.0, 2.0, 3.0], "cpu_cores": [1.0, 1.9, 1.8], "memory_mb": [400.0, 700.0, 720.0]}
    is_small_and_same(lambda: use_plots.use_chart(columns))
    gpu = {"gpu_percent": [None, 80.0, 91.0], "gpu_memory_mb": [None, 2000.0, 2400.0]}
    is_small_and_same(lambda: use_plots.use_chart({**columns, **gpu}))
    is_small_and_same(lambda: use_plots.use_chart({name: values[:1] for name, values in columns.items()}))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: cost_plots.money({}, MODELS),
        lambda: cost_plots.money(MONTHS, []),
        lambda: cost_plots.spot({}),
        lambda: cost_plots.waiting([]),
        lambda: use_plots.use_chart({}),
    ],
)
def test_nothing_is_not_drawn(draw: Any) -> None:
    with pytest.raises(ValueError, match=r"needs (at least one|some of each)"):
        draw()
