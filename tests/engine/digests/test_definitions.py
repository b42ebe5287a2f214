"""The digest of one function: what it reaches in its file, or the whole file where names cannot show that."""

import ast
import importlib.util
import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from platform_assets.engine import digests
from platform_assets.engine.digests import cache, definitions


def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Callable[..., Any]:
    path = tmp_path / "a_product.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("a_product", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(
        sys, "dont_write_bytecode", True
    )  # two texts of one size, written within a second, share a .pyc
    monkeypatch.setitem(sys.modules, "a_product", module)
    spec.loader.exec_module(module)
    linecache.checkcache(str(path))
    return module.model


NETS = "platform_assets.training.nets"
PRODUCT = """
from platform_assets.product.spec import Training

WIDTH, UNUSED = 8, 1

def width():
    return WIDTH

def features():
    return 1

def model(learned, training: Training):
    from platform_assets.training.nets import TabularNet

    return TabularNet(learned, widths=(width(),))
"""


def test_a_digest_changes_only_with_what_the_function_reaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(old: str = "", new: str = "") -> str:
        return definitions.digest(write_module(tmp_path, monkeypatch, PRODUCT.replace(old, new)))

    before = digest()
    assert digest("return 1", "return 2") == before, "features are not part of the model"
    assert digest("training: Training", "training") == before, "annotations run nothing"
    assert digest("WIDTH, UNUSED = 8", "WIDTH, UNUSED = 9") != before
    assert digest("return WIDTH", "return WIDTH + 0") != before
    assert digest("widths=(width(),)", "widths=(width(), 4)") != before
    definition = definitions._definition

    def other(reference: str) -> cache.Entry:
        digest, names, files = definition(reference)
        return "other" if reference.startswith(f"{NETS}:") else digest, names, files

    monkeypatch.setattr(definitions, "_definition", other)
    assert digest() != before, "the network names it"


CHANGING = {
    "added to": "WIDE += [9]",
    "filled in a loop": "for number in range(3):\n    WIDE.append(number)",
    "set under a condition": "if UNUSED:\n    DEEP = 3",
    "set in case of trouble": "try:\n    DEEP = 4\nexcept ValueError:\n    pass",
    "bound twice": "DEEP = 5",
    "changed by a call": "WIDE.append(9)",
    "changed by a call whose result is kept": "_ = WIDE.append(9)",
    "changed by a function of the file": "def more():\n    WIDE.pop()\n_ = more()",
    "changed by a function of a function": "def more():\n    WIDE.pop()\ndef most():\n    more()\n_ = [most()]",
    "changed by somebody else's function": "_ = heapq.heappush(WIDE, 9)",
    "changed by an alias": "def more():\n    y = WIDE\n    y.append(1)\n_ = more()",
    "changed by a part": "def more():\n    WIDE[0] = 1\n_ = more()",
    "changed by a decorator": "@WIDE.append\ndef more():\n    pass",
    "changed by a decorator of the file": "def mark(x):\n    WIDE.pop()\n@mark\ndef more():\n    pass",
    "changed in a class": "class More:\n    x = WIDE.append(9)",
    "changed by a default": "def more(x=WIDE.append(9)):\n    pass",
    "bound in passing": "_ = (DEEP := 9)",
    "taken from elsewhere": "from os.path import *",
    "deleted": "del DEEP",
    "set by name": "def more():\n    globals()['DEEP'] = 9",
    "set as an attribute": "def more():\n    setattr(model, 'x', 9)",
    "declared global": "def more():\n    global DEEP\n    DEEP = 9",
    "set with something": "with open('x') as DEEP:\n    pass",
}
FILE = """
import heapq
from platform_assets.product.spec import Training

WIDE = [8]
DEEP = 2
UNUSED = 1

def features():
    return UNUSED

def model(learned, training):
    return sum(WIDE) * DEEP
"""


@pytest.mark.parametrize("code", CHANGING)
def test_the_whole_file_counts_if_its_code_may_change_a_definition(code: str) -> None:
    assert definitions._File(FILE + "OTHER = features()\n").widening is None
    for more in ("\n", "\nUNRELATED = 7\n"):
        assert definitions._File(FILE + CHANGING[code] + more).widening is not None


SHARED = """
import polars as pl

COLUMNS = {"temp": pl.Float64, "origin": pl.String, "pair": (pl.Int64, -2)}

def model():
    return {name: str(dtype) for name, dtype in COLUMNS.items()}

def features(rows):
    return rows.select(*COLUMNS, extra=pl.lit(1))
"""


def test_a_schema_and_features_that_read_one_dict_do_not_move_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(old: str = "", new: str = "") -> str:
        return definitions.digest(write_module(tmp_path, monkeypatch, SHARED.replace(old, new)))

    before = digest()
    assert digest("pl.lit(1)", "pl.lit(2)") == before
    assert digest("pl.Float64", "pl.Float32") != before
    assert digest("    return rows.select", "    COLUMNS.pop('pair')\n    return rows.select") != before


def test_a_function_that_changes_a_value_counts_and_one_that_reads_it_does_not() -> None:
    def reached(text: str) -> str:
        file = definitions._File(text)
        assert file.widening is None
        return "\n".join(ast.unparse(node) for node in file.reached("model"))

    assert "def features" not in reached(FILE.replace("return UNUSED", "return DEEP"))
    for reading in ("WIDE[0]", "len(WIDE)", "[wide + 1 for wide in WIDE]", "WIDE.index(8)"):
        assert "def features" not in reached(FILE.replace("return UNUSED", f"return {reading}")), reading
    for sharing in ("WIDE", "sorted(WIDE, key=WIDE.append)", "heapq.heappush(WIDE, 9)"):
        assert "def features" in reached(FILE.replace("return UNUSED", f"return {sharing}")), sharing
    for inner in ("[[8]]", "[dict(x=8)]", "{'x': [8]}"):  # a part of it may be changed by whoever reads it
        text = FILE.replace("WIDE = [8]", f"WIDE = {inner}").replace("return UNUSED", "return WIDE[0]")
        assert "def features" in reached(text), inner
    assert "def features" in reached(FILE.replace("return UNUSED", "return WIDE.pop()"))
    assert "LATER" in reached(FILE + "LATER = [lambda: WIDE.pop()]\n")


def test_the_line_because_of_which_the_whole_file_counts_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def model(text: str) -> Callable[..., Any]:
        return write_module(tmp_path, monkeypatch, text)

    assert definitions.widening_line(model(FILE)) is None
    assert definitions.widening_line(model(FILE + "WIDE += [9]\n")) == (14, "WIDE += [9]")
    before = definitions.digest(model(FILE + "WIDE += [9]\n"))
    assert definitions.digest(model(FILE + "WIDE += [10]\n")) != before
    after = definitions.digest(model((FILE + "WIDE += [9]\n").replace("return UNUSED", "return 7")))
    assert after != before, "the whole file counts"


def test_the_whole_file_counts_for_a_function_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def model(text: str) -> Callable[..., Any]:
        return write_module(tmp_path, monkeypatch, text)

    text = FILE + "model = lambda learned, training: 1\n"
    other = text.replace("return UNUSED", "return 7")
    text, other = (source.replace("def model(", "def first(") for source in (text, other))
    assert definitions.widening_line(model(text)) == (14, "model = lambda learned, training: 1")
    assert definitions.digest(model(text)) != definitions.digest(model(other))


MAKING = """
import polars as pl

WORDS = "words"
FACTOR = 2

def rule(kind, column):
    if kind:
        return lambda rows, least=column: rows * FACTOR
    return lambda rows, least=column: rows * FACTOR if column else 0

def unrelated():
    return 1

model = rule(True, "a")
"""


def test_a_nested_function_counts_with_its_captured_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(old: str = "", new: str = "") -> Any:
        assert old in MAKING
        return digests._describe(
            write_module(tmp_path, monkeypatch, MAKING.replace(old, new)), "model", digests._Scope()
        )

    before = digest()
    assert digest("return 1", "return 2") == before, "code that it does not reach"
    assert digest('"words"', '"others"') == before
    assert digest("FACTOR = 2", "FACTOR = 3") != before, "a value that it names"
    assert digest("rows * FACTOR\n", "rows + FACTOR\n") != before, "its code"
    assert digest('rule(True, "a")', 'rule(True, "b")') != before, "its own default"
    assert digest('rule(True, "a")', 'rule(False, "a")') != before, "which of two functions it is"
    closing = [digest('rule(True, "a")', f'rule(False, "{column}")') for column in ("", "b")]
    assert closing[0] != closing[1], "captured values"


def test_the_whole_file_counts_for_a_nested_function_with_incomparable_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = MAKING.replace('"a")', 'pl.col("a"))')
    model = write_module(tmp_path, monkeypatch, text)
    line = next(number for number, line in enumerate(text.splitlines(), start=1) if "lambda" in line)
    assert digests.widening_line(model) == (line, "return lambda rows, least=column: rows * FACTOR")
    before = digests._describe(model, "model", digests._Scope())
    other = write_module(tmp_path, monkeypatch, text.replace("return 1", "return 2"))
    assert digests._describe(other, "model", digests._Scope()) != before
