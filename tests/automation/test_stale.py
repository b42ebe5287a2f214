"""What a pull request would have made again: the assets whose code moved, for a comment."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from platform_assets import cli
from platform_assets.automation import stale
from tests.doubles import numbered_batches as batches

pytestmark = pytest.mark.slow

NAME = batches.SPEC.name


def in_hundreds(tables: object, window: object) -> pl.DataFrame:
    return batches.features(tables, window).with_columns(pl.col("reading") / 100)  # type: ignore[arg-type]


def test_assets_whose_code_moved_are_named_and_no_others() -> None:
    before = stale.digests([batches.SPEC])
    assert {f"{NAME}/raw_readings", f"{NAME}/checkpoint", f"{NAME}/release"} <= {*before}
    assert stale.as_markdown(before, before).endswith("\n\nNothing: no asset's code moved.")
    after = stale.digests([replace(batches.SPEC, features=in_hundreds)])
    assert stale.as_markdown(before, after).endswith(f"\n- **{NAME}**: `drift`, `features`.")


def test_a_training_new_products_and_stages_that_went_are_said() -> None:
    before = {"a/features": "1", "a/checkpoint": "1", "a/old": "1", "b/raw_x": "1"}
    after = {"a/features": "1", "a/checkpoint": "2", "a/raw_y": "1", "c/raw_x": "1"}
    assert stale.as_markdown(before, after).splitlines()[2:] == [
        "- **a**: `checkpoint`. The next retraining trains, whatever the data.",
        "- **a**: `raw_y` is new.",
        "- **a**: `old` is gone.",
        "- **b** is gone; what it stored stays.",
        "- **c** is new.",
    ]


def test_the_command_compares_with_what_it_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stale"]) == 0
    printed = capsys.readouterr().out
    document = json.loads(printed)
    (tmp_path / "base.json").write_text(json.dumps({**document, "flight_delays/drift": "0"}), encoding="utf-8")
    assert cli.main(["stale", "--since", str(tmp_path / "base.json")]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["- **flight_delays**: `drift`."]
