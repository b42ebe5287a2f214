"""Draw a chart as SVG for a web page: it takes the page's colours and its text stays text.

The same records give the same text: no time, no version and no random ids are in it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from platform_assets.show.plots import COLOURS, DOTS_PER_INCH, GRID, HEIGHT_PX, INK, MUTED, RULE, STYLE, WIDTH_PX

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NARROW_PX = (360, 380)
"""Width and height for a phone: text has the size that it has on a desk, so the chart is not a smaller copy."""
NARROW_TICKS = 4
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    GRID: "--grid",
    **{colour: f"--chart-{number}" for number, colour in enumerate(COLOURS, start=1)},
}
"""The custom property of the page's style sheet that stands for a colour of the charts."""
_COLOUR = re.compile("|".join(VARIABLES), re.IGNORECASE)
_GROUP = re.compile(r'<g id="[^"]*"')
_GLOBAL_STYLE = re.compile(r"<style\b.*?</style>", re.DOTALL)
_HEAD = re.compile(r"<svg\b[^>]*?viewBox=\"([^\"]*)\"[^>]*>", re.DOTALL)


def wide(draw: Callable[[Figure], None]) -> bytes:
    """Return what `draw` puts into an empty figure of 700 x 400 pixels, as one SVG element in UTF-8."""
    return _svg(draw, (WIDTH_PX, HEIGHT_PX))


def narrow(draw: Callable[[Figure], None]) -> bytes:
    """Return the same for a phone, with fewer ticks and two columns in the legend."""
    return _svg(draw, NARROW_PX)


def _svg(draw: Callable[[Figure], None], size_px: tuple[int, int]) -> bytes:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    own = {"svg.fonttype": "none", "svg.hashsalt": f"{size_px}", "figure.facecolor": "none", "axes.facecolor": "none"}
    defaults: dict[Any, Any] = {**mpl.rcParamsDefault, **STYLE, **own}
    del defaults["backend"], defaults["interactive"]
    buffer = io.BytesIO()
    with mpl.rc_context(defaults):
        inches = (size_px[0] / DOTS_PER_INCH, size_px[1] / DOTS_PER_INCH)
        figure = Figure(figsize=inches, dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        figure.suptitle("")  # the page has a heading already
        _move_legends(figure, columns=4 if size_px[0] == WIDTH_PX else 2)
        if size_px[0] != WIDTH_PX:
            _thin_ticks(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_page(buffer.getvalue().decode()).encode()


def _for_page(text: str) -> str:
    """Return the SVG element alone, without ids that a second chart of the page would repeat."""
    text = _GLOBAL_STYLE.sub("", text[text.index("<svg") :])
    text = _HEAD.sub(r'<svg viewBox="\1" aria-hidden="true" focusable="false">', text, count=1)
    text = _GROUP.sub("<g", text).replace("xlink:href", "href")
    return _COLOUR.sub(lambda match: f"var({VARIABLES[match.group().upper()]})", text).strip()


def _move_legends(figure: Figure, *, columns: int) -> None:
    """Put each legend above the panels, outside of them: in its usual corner it would cover a narrow chart."""
    for legend in list(figure.legends):
        handles = [handle for handle in legend.legend_handles if handle is not None]
        labels = [text.get_text() for text in legend.get_texts()]
        legend.remove()
        figure.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=columns,
            handletextpad=0.5,
            columnspacing=1.4,
            borderaxespad=0.3,
        )


def _thin_ticks(figure: Figure) -> None:
    for axes in figure.axes:
        labels = [label.get_text() for label in axes.get_xticklabels()]
        if len(labels) > NARROW_TICKS and labels[0].count("-") >= 2:  # keys, which are wide; numbers thin themselves
            step = -(-len(labels) // NARROW_TICKS)
            axes.set_xticks(axes.get_xticks()[::step], labels[::step], fontsize=8)
