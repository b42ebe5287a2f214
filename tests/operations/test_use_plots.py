"""Charts of usage are small and reproducible, and refuse to draw nothing."""

from __future__ import annotations

import pytest

from platform_assets.operations.views import use_plots, vector
from platform_assets.operations.views.plots import Draw

MOST_BYTES = 40_000


def is_small_and_same(draw: Draw) -> None:
    first = vector.wide(draw)
    assert len(first) < MOST_BYTES
    assert vector.wide(draw) == first


def test_use_is_drawn_with_and_without_a_gpu() -> None:
    columns = {"at_s": [1.0, 2.0, 3.0], "cpu_cores": [1.0, 1.9, 1.8], "memory_mb": [400.0, 700.0, 720.0]}
    is_small_and_same(use_plots.use_chart(columns))
    gpu = {"gpu_percent": [None, 80.0, 91.0], "gpu_memory_mb": [None, 2000.0, 2400.0]}
    is_small_and_same(use_plots.use_chart({**columns, **gpu}))
    is_small_and_same(use_plots.use_chart({name: values[:1] for name, values in columns.items()}))


def test_empty_data_is_not_drawn() -> None:
    with pytest.raises(ValueError, match=r"needs (at least one|some of each)"):
        use_plots.use_chart({})
