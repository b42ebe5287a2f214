"""`driftline predict` answers a file like the service would, and says by name what it cannot."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from platform_assets import cli
from platform_assets.base.settings import Settings
from platform_assets.data import images
from platform_assets.serving import asking
from platform_assets.serving.asking import About
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.product_store import ProductStore
from tests.doubles import models
from tests.doubles.products.slow_batches import SPEC

TINY = dataclasses.replace(SPEC, name=models.PRODUCT)
ROWS = [models.row(str(number), {"temp": float(number), "stops": number % 3}) for number in range(40)]


def released(folder: Path, **bundle: Any) -> ProductStore:
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(folder)})
    models.release(settings.root, models.write_bundle(ArtifactStore(settings.root), **bundle))
    return ProductStore(TINY, settings)


@pytest.fixture
def product(tmp_path: Path) -> ProductStore:
    return released(tmp_path, bias=1.0)


def flat(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{**row, **row["features"]} for row in rows]).drop("features")


def asked(product: ProductStore, file: Path, about: About | None = None) -> list[dict[str, Any]]:
    return list(asking.answers(product, file, about))


def test_a_row_is_answered_as_the_service_would(product: ProductStore, tmp_path: Path) -> None:
    file = tmp_path / "row.json"
    file.write_text(json.dumps(models.row()))
    (answer,) = asked(product, file)
    assert answer["probability"] == pytest.approx(models.expected(1.0), abs=1e-6)
    assert "prediction_id" not in answer, "no log knows it"
    assert list(tmp_path.glob("**/*.jsonl")) == []


@pytest.mark.parametrize("suffix", [".json", ".parquet", ".csv"])
def test_each_form_of_many_rows_gives_the_same_answers(product: ProductStore, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"rows{suffix}"
    if suffix == ".json":
        file.write_text(json.dumps(ROWS))
    else:
        table = flat(ROWS).with_columns(pl.lit("left out").alias("key"))
        table.write_parquet(file) if suffix == ".parquet" else table.write_csv(file)
    answers = asked(product, file)
    assert [answer["entity"] for answer in answers] == [str(number) for number in range(40)], "more than max_rows"
    single = tmp_path / "one.json"
    for index in (0, 39):
        single.write_text(json.dumps(ROWS[index]))
        assert asked(product, single) == [answers[index]]


def test_moments_with_a_type_are_sent_as_text(product: ProductStore, tmp_path: Path) -> None:
    table = flat(ROWS[:2]).with_columns(pl.col("service_time", "asked_at").str.to_datetime(time_zone="UTC"))
    table.write_parquet(tmp_path / "rows.parquet")
    assert len(asked(product, tmp_path / "rows.parquet")) == 2


def test_a_missing_value_is_none_in_a_table(product: ProductStore, tmp_path: Path) -> None:
    file, text = tmp_path / "rows.parquet", tmp_path / "rows.csv"
    table = flat(ROWS[:1]).with_columns(pl.lit(None, pl.Float64).alias("temp"))
    table.write_csv(text)
    table.with_columns(pl.lit(float("nan")).alias("temp")).write_parquet(file)
    (tmp_path / "row.json").write_text(json.dumps({**ROWS[0], "features": {**ROWS[0]["features"], "temp": None}}))
    assert asked(product, file) == asked(product, text) == asked(product, tmp_path / "row.json")


def test_a_picture_is_answered_with_what_the_command_says_about_it(tmp_path: Path) -> None:
    product = released(tmp_path, document=models.image_contract())
    file = tmp_path / "item-7.png"
    file.write_bytes(images.to_png(models.PIXELS, models.SHAPE))
    (answer,) = asked(product, file)
    assert answer["entity"] == "item-7"
    row = models.image_row()
    (same,) = asked(product, file, About("item-7", row["service_time"], row["asked_at"]))
    assert same == answer
    flat([{**row, "features": {"photo": file.read_bytes()}}]).write_parquet(tmp_path / "rows.parquet")
    (third,) = asked(product, tmp_path / "rows.parquet")
    assert third["probabilities"] == answer["probabilities"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", b"", r"is not a file that can be asked about; expected one of .json, .parquet, .csv"),
        ("a.json", b"{", "the body cannot be read: Input data was truncated"),
        ("a.json", b"[", "is not JSON"),
        ("a.json", b"[]", "has no rows"),
        ("a.json", json.dumps(models.row(features={"wind": -1.0})).encode(), r"features.wind: Expected `float` >= 0.0"),
        ("a.json", json.dumps([*ROWS[:20], {"entity": 1}]).encode(), "a.json, rows from 16: "),
        ("a.csv", b"entity,wind\n", "has no rows"),
        ("a.csv", b"entity,wind\na,1\n", "has no column service_time, asked_at, temp"),
        ("a.parquet", b"no table", "cannot be read as parquet"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read as csv|has no"),
    ],
)
def test_what_cannot_be_asked_is_named(product: ProductStore, tmp_path: Path, name: str, content: bytes, problem: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        asked(product, tmp_path / name)


@pytest.mark.parametrize(
    ("column", "cell", "problem"),
    [
        ("wind", "strong", "row 0 .counted from 0.: wind is 'strong'; Expected `float`"),
        ("wind", "inf", "row 0 .counted from 0.: wind is 'inf'; expected a finite number"),
        ("seats", "1.5", "row 0 .counted from 0.: seats is '1.5'; Expected `int`"),
        ("is_holiday", "no", "row 0 .counted from 0.: is_holiday is 'no'; Expected `bool`"),
        ("asked_at", "yesterday", "asked_at"),
        ("origin", "XXX", "did not occur in training"),
    ],
)
def test_a_cell_that_does_not_fit_is_named(product: ProductStore, tmp_path: Path, column: str, cell: str, problem: str):
    flat(ROWS[:1]).with_columns(pl.lit(cell).alias(column)).write_csv(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match=problem):
        asked(product, tmp_path / "rows.csv")


def test_without_a_release_there_is_no_model(tmp_path: Path) -> None:
    product = ProductStore(TINY, Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path)}))
    with pytest.raises(ValueError, match=r"tiny has no release in .*: there is no model to ask yet"):
        asked(product, tmp_path / "row.json")


def test_the_command_prints_a_line_per_answer(
    product: ProductStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path))
    monkeypatch.setattr(cli, "_product", lambda name: TINY)
    (tmp_path / "rows.json").write_text(json.dumps(ROWS[:3]))
    assert cli.main(["predict", str(tmp_path / "rows.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["entity"] for line in lines] == ["0", "1", "2"]
    assert cli.main(["predict", "tiny", str(tmp_path / "gone.json")]) == 1
    assert "gone.json" in capsys.readouterr().err
