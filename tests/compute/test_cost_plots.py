"""Charts of cost and usage are small and reproducible, and refuse to draw nothing."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from platform_assets.compute import accepted
from platform_assets.show import cost_plots, use_plots, vector

MOST_BYTES = 45_000


def bought(names: dict[str, list[Any]], *parts: tuple[float, ...]) -> pl.DataFrame:
    return pl.DataFrame(parts, [(part, pl.Float64) for part in accepted.PARTS], orient="row").with_columns(
        *(pl.Series(name, values) for name, values in names.items())
    )


MODELS = bought(
    {"release": [*range(1, 15), None], "cutoff": [*(f"2013-{number:02d}-01" for number in range(1, 15)), None]},
    *((2.0, 0.5 * (number % 3), 0.3, 0.0) for number in range(1, 15)),
    (0.0, 0.4, 0.0, 0.1),
)
MONTHS = bought(
    {"month": [f"2013-{month:02d}" for month in range(1, 10)]},
    *((2.0, 0.1 * month, 0.2, 0.0) for month in range(1, 10)),
)
LITTLE = bought({"month": ["2013-01"]}, (0.0001, 0.0, 0.0, 0.0))
PAID = pl.DataFrame({"profile": ["cpu_small", "gpu_spot"], "usd": [0.4, 3.1], "on_demand_usd": [0.4, 7.9]})
WAITS = pl.DataFrame(
    [
        ("gpu_spot" if number % 3 else "gpu", 20.0 + 7 * (number % 9), "finished" if number % 7 else "code")
        for number in range(80)
    ],
    ["profile", "waited_s", "reason"],
    orient="row",
)


def is_small_and_same(draw: Any) -> None:
    first = vector.standalone(draw())
    assert len(first) < MOST_BYTES
    assert vector.standalone(draw()) == first


@pytest.mark.parametrize(("months", "models"), [(MONTHS, MODELS), (LITTLE, MODELS[-1:])])
def test_costs_by_month_and_model_are_drawn(months: pl.DataFrame, models: pl.DataFrame) -> None:
    is_small_and_same(lambda: cost_plots.money(months, models, budget_usd=5.0))


def test_spot_savings_and_waits_are_drawn() -> None:
    is_small_and_same(lambda: cost_plots.spot(PAID))
    is_small_and_same(lambda: cost_plots.waiting(WAITS))


def test_use_is_drawn_with_and_without_a_gpu() -> None:
    columns = {"at_s": [1.0, 2.0, 3.0], "cpu_cores": [1.0, 1.9, 1.8], "memory_mb": [400.0, 700.0, 720.0]}
    is_small_and_same(lambda: use_plots.use_chart(columns))
    gpu = {"gpu_percent": [None, 80.0, 91.0], "gpu_memory_mb": [None, 2000.0, 2400.0]}
    is_small_and_same(lambda: use_plots.use_chart({**columns, **gpu}))
    is_small_and_same(lambda: use_plots.use_chart({name: values[:1] for name, values in columns.items()}))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: cost_plots.money(MONTHS.clear(), MODELS),
        lambda: cost_plots.money(MONTHS, MODELS.clear()),
        lambda: cost_plots.spot(PAID.clear()),
        lambda: cost_plots.waiting(WAITS.clear()),
        lambda: use_plots.use_chart({}),
    ],
)
def test_empty_data_is_not_drawn(draw: Any) -> None:
    with pytest.raises(ValueError, match=r"needs (at least one|some of each)"):
        draw()
