"""A step refuses to work for a run of other code, and says what to do."""

from __future__ import annotations

import pytest

from platform_assets.compute import closure
from platform_assets.stages import fields
from platform_assets.steps import instructions
from tests.doubles.recorded import SPEC

STEP = "platform_assets.steps.train"


def test_the_code_of_this_place_is_taken() -> None:
    told = fields.step_code(SPEC, STEP)["code"]
    assert {STEP, "platform_assets.compute.train", SPEC.features.__module__} <= set(told)
    instructions.check_code(told)
    instructions.check_code({})


def test_other_code_is_refused_by_name() -> None:
    told = {**closure.sources(STEP), "platform_assets.compute.train": "0" * 64, "platform_assets.specs.gone": "1" * 64}
    with pytest.raises(instructions.OtherCode) as caught:
        instructions.check_code(told)
    assert f"2 of {len(told)} modules differ" in str(caught.value)
    assert "platform_assets.compute.train, platform_assets.specs.gone" in str(caught.value)
    assert "build the image again (`make image`)" in str(caught.value)


def test_a_long_list_is_cut() -> None:
    with pytest.raises(instructions.OtherCode, match=r"8 of 8 modules .* here, (m\d, ){4}m4 and 3 more\."):
        instructions.check_code({f"m{number}": "0" * 64 for number in range(8)})
