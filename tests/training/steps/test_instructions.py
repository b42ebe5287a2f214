"""A step refuses to work for a run of other code, another protocol or other libraries, with the remedy."""

import re
import traceback
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from platform_assets.training import libraries
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.steps import instructions, process
from platform_assets.training.steps.jobs import ExportJob
from tests.doubles.recorded import SPEC

pytestmark = pytest.mark.slow

MAKER = Learning.for_product(SPEC)


def extras(**modules: str) -> dict[str, Any]:
    """Return the extras that a run passes to a step, with some modules changed."""
    values: Any = instructions.to_extras(ExportJob(product=SPEC.name, module=SPEC.module, checkpoint=""), MAKER)
    if modules:
        values["maker"] = {"digest": "1.0", "parts": {**values["maker"]["parts"], **modules}}
    return values


def test_the_code_of_this_checkout_is_accepted() -> None:
    values = extras()
    named = {name.partition(":")[0] for name in values["maker"]["parts"]}
    assert {"platform_assets.training.checkpoint_maker", "platform_assets.training.train"} <= named
    assert not any("launchers" in name or "plots" in name for name in named)
    instructions.check_protocol(values)
    instructions.check_maker(values, MAKER)


def test_an_error_after_a_kill_for_memory_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([2, 3, 3, 3])
    monkeypatch.setattr(process, "oom_kills", lambda: next(counts))
    context = SimpleNamespace(extras={"protocol": instructions.PROTOCOL})
    monkeypatch.setattr(instructions, "open_context", lambda **_: nullcontext(context))
    errors = []
    for _ in range(2):
        with pytest.raises(OSError, match="a child died") as error, instructions.opened():
            raise OSError("a child died")
        errors.append("".join(traceback.format_exception(error.value)))
    last = "The kernel killed for memory, in this container: 1 processes.\n"
    assert [text.endswith(last) for text in errors] == [True, False]


def test_other_code_is_refused_by_name() -> None:
    other = {"platform_assets.training.train": "0" * 64, "platform_assets.compute.gone": "1" * 64}
    with pytest.raises(instructions.OtherCode) as caught:
        instructions.check_maker(extras(**other), MAKER)
    assert "platform_assets.compute.gone, platform_assets.training.train." in str(caught.value)
    assert "build the image again (`make images`)" in str(caught.value)


@pytest.mark.parametrize(
    ("module", "place"),
    [
        ("platform_assets.products.recorded", r"the product's file\."),
        ("shop.defs.churn.product", r"module shop\.defs\.churn\.product, or one of shop that it imports\."),
    ],
)
def test_another_product_is_refused_by_where_it_lies(module: str, place: str) -> None:
    other = Learning.for_product(replace(SPEC, training=replace(SPEC.training, seed=SPEC.training.seed + 1)))
    with pytest.raises(instructions.OtherCode, match=f"different or missing here: {place}"):
        instructions.check_maker(extras() | {"module": module}, other)


def test_a_long_list_is_cut() -> None:
    with pytest.raises(instructions.OtherCode, match=r"here: (m\d, ){4}m4 and 3 more\."):
        instructions.check_maker(extras(**{f"m{number}": "0" * 64 for number in range(8)}), MAKER)


@pytest.mark.parametrize("protocol", [None, 0, instructions.PROTOCOL - 1, f"{instructions.PROTOCOL}"])
def test_another_protocol_is_refused_before_work_starts(protocol: Any) -> None:
    with pytest.raises(instructions.OtherCode, match=f"protocol {protocol!r}; expected {instructions.PROTOCOL}[.]"):
        instructions.check_protocol({"protocol": protocol})


def test_other_libraries_are_refused_by_name() -> None:
    here = libraries.installed()
    instructions.check_libraries({"libraries": here})
    instructions.check_libraries({"libraries": {libraries.IMAGE: "trainer@sha256:1"}})
    instructions.check_libraries({"libraries": here | {"pytest": pytest.__version__}})  # an image's further package
    with pytest.raises(instructions.OtherCode, match=r"xgboost None \(expected 3.1\)"):
        instructions.check_libraries({"libraries": here | {"xgboost": "3.1"}})
    with pytest.raises(instructions.OtherCode, match=rf"torch {re.escape(here['torch'])} \(expected 1\.0\)"):
        instructions.check_libraries({"libraries": {**here, "torch": "1.0"}})


def test_versions_travel_as_a_label() -> None:
    here = libraries.installed()
    assert {"numpy", "polars", "torch"} <= set(here)
    assert libraries.from_text(libraries.as_text(here)) == here
    assert libraries.from_text("") == libraries.from_text("no label") == {}
