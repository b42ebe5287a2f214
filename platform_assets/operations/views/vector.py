"""Render a chart as SVG, for Dagster's pages and for our reports; its text stays text.

The same records give the same text: no time, no version, no random ids and nothing of a user's configuration is in it.
"""

from __future__ import annotations

import io
import re
from typing import Any

from platform_assets.operations.views.plots import COLOURS, GRID, INK, MUTED, RULE, STYLE, Draw

DOTS_PER_INCH = 100
SIZE_PX = (700, 400)
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    GRID: "--grid",
    **{colour: f"--chart-{number}" for number, colour in enumerate(COLOURS, start=1)},
}
"""The custom property of the report's style sheet that stands for a colour of the charts."""
_COLOUR = re.compile("|".join(VARIABLES), re.IGNORECASE)
_GROUP = re.compile(r'<g id="[^"]*"')
_GLOBAL_STYLE = re.compile(r"<style\b.*?</style>", re.DOTALL)
_HEAD = re.compile(r"<svg\b[^>]*?viewBox=\"([^\"]*)\"[^>]*>", re.DOTALL)


def standalone(draw: Draw) -> str:
    """Return a chart of 700 x 400 pixels as an SVG file, on white: inside an image no page changes its colours."""
    return _svg(draw, ground="white")


def in_page(draw: Draw) -> str:
    """Return the same as one SVG element with the colours of the page, without ids that a second chart would repeat."""
    text = _HEAD.sub(
        r'<svg viewBox="\1" aria-hidden="true" focusable="false">', _GLOBAL_STYLE.sub("", _svg(draw)), count=1
    )
    text = _GROUP.sub("<g", text).replace("xlink:href", "href")
    return _COLOUR.sub(lambda match: f"var({VARIABLES[match.group().upper()]})", text).strip()


def _svg(draw: Draw, ground: str = "none") -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    own = {"svg.fonttype": "none", "svg.hashsalt": f"{SIZE_PX}", "figure.facecolor": ground, "axes.facecolor": "none"}
    defaults: dict[Any, Any] = {**mpl.rcParamsDefault, **STYLE, **own}
    del defaults["backend"], defaults["interactive"]
    buffer = io.BytesIO()
    with mpl.rc_context(defaults):
        inches = (SIZE_PX[0] / DOTS_PER_INCH, SIZE_PX[1] / DOTS_PER_INCH)
        figure = Figure(figsize=inches, dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue().decode()
    return text[text.index("<svg") :]
