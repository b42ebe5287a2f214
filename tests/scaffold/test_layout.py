"""Lines are laid out as ruff leaves them, whatever their lengths."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform_assets.scaffold import layout

# Letters of GB 2312 (Latin, Greek, Cyrillic, kana, Chinese): rich and ruff measure them alike, of 416 rarer ones not.
NAMES = st.text("abcdefghij_", min_size=1, max_size=30).map("n{}".format)
VALUES = st.one_of(
    st.text(st.characters(codec="gb2312"), max_size=20).map(layout.text),
    st.floats(-1e9, 1e9).map(lambda v: layout.number(round(v, 3))),
)


def formatted(text: str) -> str:
    """Return what ruff makes of it."""
    command = [str(Path(sys.executable).with_name("ruff")), "format", "--isolated", "--line-length", "88", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def argument(key: str, value: str) -> str | layout.Call:
    """Return a plain argument, a call or a tuple."""
    if value[0].isdigit():
        return layout.Call(f"{key}=n", [value, f"{key}={value}"])
    return layout.Call(f"{key}=", [value] * (len(value) % 3 + 1), is_tuple=True) if "a" in value else f"{key}={value}"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(NAMES, st.lists(st.tuples(NAMES, VALUES), max_size=8)), min_size=1, max_size=20))
def test_ruff_leaves_calls_alone(calls: list[tuple[str, list[tuple[str, str]]]]) -> None:
    text = "\n".join(
        line
        for name, arguments in calls
        for line in layout.Call(f"{name}_ = {name}", [argument(key, value) for key, value in arguments]).lines()
    )
    assert formatted(f"{text}\n") == f"{text}\n"


def test_ruff_leaves_numbers_and_quotes_alone() -> None:
    texts = ['it"s', "it's", "both ' and \"", "plain", "a\nb", "back\\slash"]
    lines = [f"a = {layout.text(text)}" for text in texts] + [
        f"b = {layout.number(v)}" for v in (2000, 0.5, -3.0, 1e12)
    ]
    text = "\n".join(lines) + "\n"
    assert formatted(text) == text
    assert [ast.literal_eval(layout.text(text)) for text in texts] == texts
