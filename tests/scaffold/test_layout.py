"""Lines are laid out as Python reads them, whatever their lengths and texts."""

import ast

from hypothesis import given
from hypothesis import strategies as st

from platform_assets.scaffold import layout


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=20), st.floats(-1e9, 1e9))
def test_a_call_says_the_same_on_one_line_and_on_many(value: str, texts: list[str], number: float) -> None:
    words = layout.Call("b=", [layout.text(text) for text in texts], is_tuple=True)
    arguments = [layout.number(number), words]
    lines = layout.Call(f"a = call({layout.text(value)})", arguments).lines()
    call = ast.parse("\n".join(lines)).body[0].value
    assert ast.dump(call) == ast.dump(
        ast.parse(str(layout.Call(f"call({layout.text(value)})", arguments))).body[0].value
    )
    assert ast.literal_eval(call.func.args[0]) == value
    assert ast.literal_eval(call.keywords[0].value) == tuple(texts)
