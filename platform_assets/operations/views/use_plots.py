"""Draw a step's use of CPU, memory and GPU over time. What was not measured has no line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from platform_assets.operations.views.plots import COLOURS, Draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Columns = Mapping[str, Sequence[float | None]]
PANELS = (
    ("cpu_cores", "gpu_percent", "CPU (cores)", "GPU (%)"),
    ("memory_mb", "gpu_memory_mb", "memory", "GPU memory"),
)
"""Per panel: a column, the GPU's column, and the labels of their axes."""
GB = 1000.0


def use_chart(columns: Columns) -> Draw:
    """Draw processors and memory over a step's seconds; with a GPU, its utilisation and memory on a second axis.

    Args:
        columns: of `training.steps.use`: `at_s`, `cpu_cores`, `memory_mb`, and with a GPU `gpu_percent` and
            `gpu_memory_mb`.
    """
    at_s = [second for second in columns.get("at_s", ()) if second is not None]
    if not at_s:
        raise ValueError(f"the columns are {sorted(columns)}, without a sample; a chart of use needs at least one.")

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 1, sharex=True)
        for axes, (column, gpu_column, label, gpu_label) in zip(panels, PANELS, strict=True):
            is_memory = column == "memory_mb"
            _draw(axes, at_s, columns.get(column, ()), 0, f"{label} (GB)" if is_memory else label, is_memory)
            if gpu_column in columns:
                right = axes.twinx()
                right.spines["right"].set_visible(True)
                _draw(right, at_s, columns[gpu_column], 1, f"{gpu_label} (GB)" if is_memory else gpu_label, is_memory)
                if not is_memory:
                    right.set_ylim(0, 105)
        panels[-1].set_xlabel("seconds since the start of this attempt")

    return draw


def _draw(
    axes: Axes, at_s: Sequence[float], values: Sequence[float | None], tone: int, label: str, is_memory: bool
) -> None:
    scale = GB if is_memory else 1.0
    points = [float("nan") if value is None else value / scale for value in values]
    axes.plot(at_s, points, color=COLOURS[tone], marker="o" if len(points) < 3 else None)
    axes.set_ylabel(label, color=COLOURS[tone])
    axes.set_ylim(0, (max((point for point in points if point == point), default=0.0) or 1.0) * 1.12)
    if tone == 0:
        axes.grid(axis="y")
