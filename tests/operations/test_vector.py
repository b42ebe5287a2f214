"""Charts as SVG: the page's colours, unique ids, the same text for the same records."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest

from platform_assets.operations.views import plots, task_plots, vector


def _draw(figure) -> None:
    axes = figure.subplots()
    axes.plot([0, 1, 2], color=plots.COLOURS[1], label="a <model>")
    axes.set_xticks(range(6), [f"2013-03-0{number}" for number in range(1, 7)])
    axes.grid()
    plots.legend(figure)


@pytest.mark.parametrize("render", [vector.wide, vector.narrow])
def test_chart_uses_only_the_colours_of_the_page(render):
    text = render(_draw)
    assert not re.search(r"#[0-9a-fA-F]{6}\b", text.replace("#ffffff", "")), "a colour that dark mode cannot change"
    for variable in ("--ink", "--muted", "--rule", "--grid", "--chart-2"):
        assert f"var({variable})" in text


@pytest.mark.parametrize("render", [vector.wide, vector.narrow])
def test_chart_is_one_element_without_page_style_or_group_ids(render):
    text = render(_draw)
    assert ET.fromstring(text).tag == "svg"
    assert "<style" not in text
    assert "<g id=" not in text
    assert "a &lt;model&gt;" in text
    assert text == render(_draw)


def test_narrow_chart_has_fewer_keys_along_the_bottom():
    wide, narrow = (render(_draw).count("2013-03-0") for render in (vector.wide, vector.narrow))
    assert wide >= 6 > narrow > 0


def test_a_chart_in_an_image_has_its_own_colours_on_white() -> None:
    text = vector.standalone(_draw)
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(--" not in text
    assert "fill: #ffffff" in text
    assert plots.COLOURS[1].lower() in text


@pytest.mark.parametrize("render", [vector.standalone, vector.wide, vector.narrow])
def test_names_from_data_are_neither_formulas_nor_markup(render: Callable[[plots.Draw], str]) -> None:
    names = ["$x^{$", "</text><script>alert(1)</script>"]
    chart = render(task_plots.confusion([[3, 1], [1, 4]], names))
    texts = [element.text for element in ET.fromstring(chart).iter() if element.tag.endswith("text")]
    assert set(names) <= set(texts)
