"""`driftline check`: sound products pass, and each way of being wrong gives its own sentence, never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from platform_assets import checking, specs
from platform_assets.cli import main
from platform_assets.specs.base import Field, History, Monitors, ProductSpec, Source, Tables, Window
from tests.doubles import numbered_batches, recorded
from tests.doubles.products import hourly_temperature

SPEC = hourly_temperature.SPEC
FILE = "platform_assets/specs/hourly_temperature.py"
HOUR = timedelta(hours=1)


def problems(spec: ProductSpec) -> dict[str, str]:
    return {line.what: line.said for line in checking.of_product(spec) if line.is_problem}


def built_with(change: Callable[[pl.DataFrame, Tables, Window], pl.DataFrame]) -> ProductSpec:
    """Return the product with something done to the rows of its features."""

    def features(tables: Tables, window: Window) -> pl.DataFrame:
        return change(SPEC.features(tables, window), tables, window)

    return replace(SPEC, features=features)


def recorded_with(change: Callable[[str, str, bytes], bytes | None]) -> ProductSpec:
    """Return the product with something done to its files."""
    assert SPEC.history is not None

    def deliver(source: str, key: str) -> bytes | None:
        data = SPEC.history.deliver(source, key)
        assert data is not None
        return change(source, key, data)

    return replace(SPEC, history=replace(SPEC.history, deliver=deliver))


# Sound products ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SPEC, *specs.load_all()], ids=lambda spec: spec.name)
def test_a_sound_product_passes_every_check(spec: ProductSpec) -> None:
    lines = list(checking.of_product(spec))
    assert [line.said for line in lines if line.is_problem] == []
    if spec.history is not None:
        whats = {line.what for line in lines}
        assert {"keys", "features", "label", "lookback", "point in time", "entities", "model"} <= whats
        assert {f"source {source.name}" for source in spec.sources} <= whats


def test_a_product_without_a_recording_is_checked_as_far_as_it_goes() -> None:
    lines = list(checking.of_product(numbered_batches.SPEC))
    assert not any(line.is_problem for line in lines)
    assert lines[-1].said == "there is none, so only the declarations were checked"


def test_rows_good_and_quarantined_are_told_with_the_most_frequent_reason() -> None:
    tolerant = replace(recorded.SPEC, monitors=Monitors(max_quarantined_share=0.1))
    said = {line.what: line.said for line in checking.of_product(tolerant)}["source readings"]
    assert said == ("3 files, 36 rows good, 3 quarantined; most often: value is 'broken', which is no whole number")
    assert (
        "3 of 39 rows of readings are refused; most often: value is 'broken'"
        in (problems(recorded.SPEC)["source readings"])
    )


# Features ------------------------------------------------------------------------------------------------------------


def _reads_the_label(rows: pl.DataFrame, tables: Tables, window: Window) -> pl.DataFrame:
    return rows.join(tables["readings"].select("key"), on="key", how="left")


def _reads_a_stranger(rows: pl.DataFrame, tables: Tables, window: Window) -> pl.DataFrame:
    return rows.join(tables["moon"].select("key"), on="key", how="left")


def _fails(rows: pl.DataFrame, tables: Tables, window: Window) -> pl.DataFrame:
    return rows.select("nowhere")


def _with(**columns: Any) -> Callable[[pl.DataFrame, Tables, Window], pl.DataFrame]:
    return lambda rows, tables, window: rows.with_columns(**columns)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_reads_the_label, "reads 'readings', which brings the labels; a feature may not read the label"),
        (_reads_a_stranger, "reads 'moon', which is no source; there are observations"),
        (_fails, r"features\(\) of hourly_temperature fails with ColumnNotFoundError: .*nowhere"),
        (_with(moon=pl.lit(1)), "Missing: none; not declared: moon"),
        (lambda rows, *_: rows.drop("hour"), "Missing: hour; not declared: none"),
        (lambda rows, *_: rows.select(sorted(rows.columns)), "They are in another order"),
        (lambda rows, *_: rows.clear(), "returns no rows"),
        (lambda rows, *_: pl.concat([rows, rows]), "12 rows share key and entity with another row"),
        (_with(key=pl.lit("2013-01-05T00")), "returns rows of 2013-01-05T00; it was asked for"),
        (_with(entity=pl.lit(1)), "'entity' is Int32; expected text in every row"),
        (_with(asked_at=pl.lit("now")), "'asked_at' is String; expected moments in UTC"),
        (_with(asked_at=pl.col("service_time") + HOUR), "6 of 6 rows are asked after their service_time"),
        (_with(service_time=pl.col("service_time") + 2 * HOUR), "under 2013-01-09T04; it belongs to 2013-01-09T06"),
        (_with(hour=pl.lit("noon")), "field 'hour' is String; a field of dtype 'int' is an integer"),
        (_with(hour=pl.lit(24)), "field 'hour' is 24 in one of 6 rows outside of its declared range, 0 to 23"),
        (_with(hour=pl.lit(-1)), "field 'hour' is -1 in one of 6 rows outside"),
        (_with(hour=pl.lit(None, dtype=pl.Int64)), "field 'hour' is null in 6 of 6 rows and not nullable"),
        (_with(dewpoint_f=pl.lit(float("nan"))), "field 'dewpoint_f' is no finite number in 6 rows"),
    ],
)  # fmt: skip
def test_wrong_features_are_told_as_a_sentence(change: Any, sentence: str) -> None:
    found = problems(built_with(change))
    assert set(found) == {"features"}
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(found["features"])
    assert found["features"].endswith((f"Mend it in {FILE}.", f"The file is {FILE}."))


def _of_the_hour_itself(rows: pl.DataFrame, tables: Tables, window: Window) -> pl.DataFrame:
    own = tables["observations"].select(
        "key", pl.format("{} {}", "station", "key").alias("entity"), pl.col("temperature_f").alias("own")
    )
    joined = rows.join(own, on=["key", "entity"], how="left", maintain_order="left")
    return joined.with_columns(temperature_f=pl.col("own")).drop("own")


def test_a_feature_that_sees_the_future_is_found_with_a_cell_that_shows_it() -> None:
    found = problems(built_with(_of_the_hour_itself))
    assert set(found) == {"point in time"}
    for words in ("was not known at 2013-01-09T01:00:00+00:00", "'temperature_f' changes in 3 of 3 rows", "to None"):
        assert words in found["point in time"]


def test_a_lookback_that_is_too_short_is_found() -> None:
    found = problems(replace(SPEC, lookback=23))
    assert (
        "built alone 2013-01-09T05 is not what it is beside other keys; raise lookback (it is 23)"
        in (found["lookback"])
    )


def test_a_feature_that_depends_on_other_rows_is_found() -> None:
    ranked = built_with(_with(pressure_hpa=pl.lit(1_000) + pl.int_range(pl.len(), dtype=pl.Int64)))
    assert "'pressure_hpa' changes in 3 of 3 rows" in problems(ranked)["lookback"]


# Sources, labels, model ---------------------------------------------------------------------------------------------


def _without(name: str) -> Callable[[], Any]:
    def schema() -> Any:
        return hourly_temperature.observations_schema().remove_columns([name])

    return schema


def _with_source(**changes: Any) -> ProductSpec:
    return replace(SPEC, sources=(replace(SPEC.sources[0], **changes), SPEC.sources[1]))


def _failing_schema() -> Any:
    raise RuntimeError("no such file")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (_with_source(schema=_without("known_at_utc")), "has known_at='known_at_utc', and its schema has no such"),
        (_with_source(schema=_without("observed_at_utc")), "has partition_by='observed_at_utc', and its schema has no"),
        (_with_source(schema=_without("pressure_hpa")), "Missing: none; not expected: pressure_hpa"),
        (_with_source(schema=_failing_schema), "_failing_schema() of hourly_temperature fails with RuntimeError"),
        (_with_source(unique=("station",)), None),
        (recorded_with(lambda source, key, data: None), "deliver() of hourly_temperature delivers no file of"),
        (recorded_with(lambda source, key, data: b""), "the file is empty (0 bytes)"),
        (
            recorded_with(lambda source, key, data: data.replace(b"JFK", b"SEA")),
            "rows of observations are refused; most often: station is SEA, expected isin",
        ),
    ],
)  # fmt: skip
def test_wrong_sources_are_told_as_a_sentence(spec: ProductSpec, sentence: str | None) -> None:
    found = problems(spec)
    if sentence is None:
        assert found == {}
    else:
        assert sentence in found["source observations"]
        assert not {"features", "label", "model"} & set(found), "what rests on a broken source is left out"


def _labelled(change: Callable[[pl.DataFrame], pl.DataFrame]) -> ProductSpec:
    return replace(SPEC, label=lambda readings: change(SPEC.label(readings)))


@pytest.mark.parametrize(
    ("change", "what", "sentence"),
    [
        (lambda rows: rows.with_columns(label=pl.lit(4.0)), "label", "takes the value 4.0 in all 573 rows of 192 keys"),
        (lambda rows: rows.with_columns(label=pl.lit(None)), "label", "takes no value at all"),
        (lambda rows: rows.head(1), "label", "takes the value 39.02 in all 1 rows"),
        (lambda rows: rows.head(90), "label", "31 keys of hourly_temperature have a label; min_keys is 72"),
        (lambda rows: rows.rename({"label": "answer"}), "label", "returns ['key', 'entity', 'answer', 'known_at']"),
        (lambda rows: rows.select("moon"), "label", "label() of hourly_temperature fails with ColumnNotFoundError"),
        (lambda rows: pl.concat([rows, rows]), "label", "1,146 rows share key and entity with another row"),
        (lambda rows: rows.with_columns(label=1 / (pl.col("label") - 23)), "label", "not finite"),
        (lambda rows: rows.with_columns(entity=pl.col("entity") + "!"), "entities", "none of the 6 labelled entities"),
    ],
)  # fmt: skip
def test_wrong_labels_are_told_as_a_sentence(
    change: Callable[[pl.DataFrame], pl.DataFrame], what: str, sentence: str
) -> None:
    assert sentence in problems(_labelled(change))[what]


def _one_output(learned: Any, training: Any) -> Any:
    from platform_assets.compute.nets import TabularNet

    return TabularNet(learned, **training.settings)


def _no_network(learned: Any, training: Any) -> Any:
    raise KeyError("widths")


def test_a_network_of_the_wrong_shape_is_told_how_many_outputs_the_task_wants() -> None:
    said = problems(replace(SPEC, model=_one_output))["model"]
    assert "answers 6 rows with shape (6, 1); expected (6, 2): 2 numbers a row for a regression task" in said
    assert "TabularNet(..., outputs=2)" in said


def test_a_model_that_fails_is_told() -> None:
    assert (
        "model() of hourly_temperature fails with KeyError: 'widths'"
        in problems(replace(SPEC, model=_no_network))["model"]
    )


def test_a_window_below_min_keys_is_told() -> None:
    assert "has 47 labelled keys before it; min_keys is 72" in problems(replace(SPEC, window=48))["keys"]


# The command ---------------------------------------------------------------------------------------------------------


def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(specs, "__path__", [*specs.__path__, str(tmp_path)])


def test_the_command_prints_a_line_a_check_and_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    name = specs.load_all()[0].name
    assert main(["check", name]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == name
    assert all(line.startswith("  ok  ") for line in out[1:])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nothing_of_this_name\n", "cannot be loaded: ModuleNotFoundError: No module named 'nothing"),
        ("SPEC = (\n", "cannot be loaded: SyntaxError"),
        ("SPECS = 1\n", "has no SPEC; define `SPEC = ProductSpec(...)` at its end"),
        ("from tests.doubles.recorded import SPEC\n", "has SPEC.name 'recorded'; expected '{name}', the file's name"),
    ],
    ids=["import", "syntax", "no_spec", "name"],
)  # fmt: skip
def test_a_file_that_does_not_load_is_a_problem_and_no_traceback(
    text: str,
    sentence: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = f"broken_{request.node.callspec.id}"
    _file(tmp_path, monkeypatch, name, text)
    assert main(["check", name]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{name}\n  PROBLEM  file  ")
    assert sentence.format(name=name) in out
    assert "Traceback" not in out


def test_products_that_land_in_one_folder_are_told_of_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = replace(recorded.SPEC, name="twin", sources=tuple(_landing_there(each) for each in recorded.SPEC.sources))
    found = {"recorded": recorded.SPEC, "twin": twin}
    monkeypatch.setattr(checking, "products", lambda: list(found))
    monkeypatch.setattr(specs, "load", found.__getitem__)
    told = dict(checking.run())
    assert set(told) == {"recorded", "twin", "all products"}
    (line,) = told["all products"]
    assert "two products land in one folder, landing/recorded/plans: recorded, source plans" in line.said


def _landing_there(source: Source) -> Source:
    return replace(source, landing=f"recorded/{source.name}")


def test_an_unknown_product_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "nobody"]) == 1
    assert "there is no product 'nobody'; known are" in capsys.readouterr().err


def test_an_image_of_another_size_is_told() -> None:
    field = Field(name="picture", dtype="image", description="Seen.", shape=(2, 2))

    def features(tables: Tables, window: Window) -> pl.DataFrame:
        return SPEC.features(tables, window).with_columns(picture=pl.lit(b"\x00\x01\x02"))

    spec = replace(SPEC, fields=(*SPEC.fields, field), features=features)
    assert "field 'picture' has 6 images that are not 2 x 2 bytes" in problems(spec)["features"]


def test_the_history_is_what_is_read_and_nothing_stored(settings: Any) -> None:
    assert isinstance(SPEC.history, History)
    list(checking.of_product(SPEC))
    assert not Path(settings.root).exists()
