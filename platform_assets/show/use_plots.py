"""Draw what a step used while it worked, as PNG bytes.

Belongs here: the chart of CPU, memory and GPU over time. Does not belong here: measuring (`steps.use`), or the look of
charts (`show.plots`). What was not measured has no line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from platform_assets.show.plots import COLOURS, png, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Columns = Mapping[str, Sequence[float | None]]
PANELS = (
    ("cpu_cores", "gpu_percent", "CPU (cores)", "GPU (%)"),
    ("memory_mb", "gpu_memory_mb", "memory", "GPU memory"),
)
"""What shares a panel: a column and the GPU's, with their axes."""
GB = 1000.0


def use_chart(columns: Columns) -> bytes:
    """Draw processors and memory over a step's seconds; with a GPU, its utilisation and memory beside them.

    Args:
        columns: of `steps.use`: `at_s`, `cpu_cores`, `memory_mb`, and with a GPU `gpu_percent` and `gpu_memory_mb`.
    """
    at_s = [each for each in columns.get("at_s", ()) if each is not None]
    if not at_s:
        raise ValueError(f"the columns are {sorted(columns)}, without a sample; a chart of use needs at least one.")

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 1, sharex=True)
        for axes, (own, gpus, label, gpu_label) in zip(panels, PANELS, strict=True):
            is_memory = own == "memory_mb"
            _draw(axes, at_s, columns.get(own, ()), 0, f"{label} (GB)" if is_memory else label, is_memory)
            if gpus in columns:
                other = axes.twinx()
                other.spines["right"].set_visible(True)
                _draw(other, at_s, columns[gpus], 1, f"{gpu_label} (GB)" if is_memory else gpu_label, is_memory)
                if not is_memory:
                    other.set_ylim(0, 105)
        panels[-1].set_xlabel("seconds since the start of this try")
        title(figure, "What the training used")

    return png(draw)


def _draw(
    axes: Axes, at_s: Sequence[float], values: Sequence[float | None], tone: int, label: str, is_memory: bool
) -> None:
    scale = GB if is_memory else 1.0
    points = [float("nan") if value is None else value / scale for value in values]
    axes.plot(at_s, points, color=COLOURS[tone], marker="o" if len(points) < 3 else None)
    axes.set_ylabel(label, color=COLOURS[tone])
    axes.set_ylim(0, (max((each for each in points if each == each), default=0.0) or 1.0) * 1.12)
    if tone == 0:
        axes.grid(axis="y")
