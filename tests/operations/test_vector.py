"""Charts as SVG: the page's colours, unique ids, the same text for the same records."""

import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest

from platform_assets.operations.views import plots, vector
from platform_assets.product.tasks import Binary


def _draw(figure) -> None:
    axes = figure.subplots()
    axes.plot([0, 1, 2], color=plots.COLOURS[1], label="a <model>")
    axes.set_xticks(range(6), [f"2013-03-0{number}" for number in range(1, 7)])
    axes.grid()
    plots.legend(figure)


def test_chart_uses_only_the_colours_of_the_page():
    text = vector.in_page(_draw)
    assert not re.search(r"#[0-9a-fA-F]{6}\b", text.replace("#ffffff", "")), "a colour that dark mode cannot change"
    for variable in ("--ink", "--muted", "--rule", "--grid", "--chart-2"):
        assert f"var({variable})" in text


def test_chart_is_one_element_without_page_style_or_group_ids():
    text = vector.in_page(_draw)
    assert ET.fromstring(text).tag == "svg"
    assert "<style" not in text
    assert "<g id=" not in text
    assert "a &lt;model&gt;" in text
    assert text == vector.in_page(_draw)


def test_a_chart_in_an_image_has_its_own_colours_on_white() -> None:
    text = vector.standalone(_draw)
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(--" not in text
    assert "fill: #ffffff" in text
    assert plots.COLOURS[1].lower() in text


@pytest.mark.parametrize("render", [vector.standalone, vector.in_page])
def test_names_from_data_are_neither_formulas_nor_markup(render: Callable[[plots.Draw], str]) -> None:
    names = ["$x^{$", "</text><script>alert(1)</script>"]
    chart = render(plots.calibration_plot({name: [{"expected": 0.1, "observed": 0.2}] for name in names}, Binary()))
    texts = [element.text for element in ET.fromstring(chart).iter() if element.tag.endswith("text")]
    assert set(names) <= set(texts)
