"""`driftline check`: sound products pass, and each kind of mistake gets its own message, never a traceback."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from platform_assets import check as checking
from platform_assets.base import clock
from platform_assets.check import monitored, reach
from platform_assets.check.messages import Problem
from platform_assets.cli import main
from platform_assets.engine import product_files
from platform_assets.launch.profiles import PROFILES
from platform_assets.monitoring import sketch
from platform_assets.product.spec import (
    CrossRule,
    Field,
    Gates,
    History,
    Monitors,
    Product,
    RecordingMissing,
    Retraining,
    Service,
    Tables,
    Window,
)
from platform_assets.product.tasks import Binary
from platform_assets.training.learners.boosted import LightGbm
from tests.doubles import numbered_batches, recorded
from tests.doubles.products import hourly_temperature

pytestmark = pytest.mark.slow

PHOTOS = Path("/usr/share/datasets/fashion-mnist")
needs_the_dataset = pytest.mark.skipif(
    not PHOTOS.is_dir(), reason="needs the photos: apt-get install dataset-fashion-mnist"
)
OF_PHOTOS = (needs_the_dataset, pytest.mark.thorough)
HISTORY = hourly_temperature.SPEC.history
assert HISTORY is not None
# A delivery filters a year of rows, and a hundred tests read the same keys: the fewest that a training may learn from.
SPEC = replace(
    hourly_temperature.SPEC,
    history=replace(HISTORY, deliver=cache(HISTORY.deliver), demo_first="2013-01-06T05", demo_last="2013-01-09T06"),
)
FILE = "platform_assets/products/hourly_temperature.py"
HOUR = timedelta(hours=1)
MOMENT = pl.Datetime("us", "UTC")


@pytest.fixture(autouse=True)
def _short_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at few keys: checks of the whole history are tested in tests/checking/test_reach.py."""
    for name, count in (("MOST_KEYS", 60), ("RECENT", 2), ("RECENT_HOURS", 4)):
        monkeypatch.setattr(reach, name, count)


def problems(spec: Product) -> dict[str, str]:
    return {line.check: line.message for line in checking.of_product(spec) if line.is_problem}


def line_of(spec: Product, check: str) -> checking.Line:
    """Return a check's line, without running the checks after it."""
    return next(line for line in checking.of_product(spec) if line.check == check)


def checks_before_rows(spec: Product) -> set[str]:
    """Return the names of the lines before the first that reads files."""
    return {line.check for line in takewhile(lambda line: line.check != "keys", checking.of_product(spec))}


def problem(spec: Product, check: str) -> str:
    """Return the message of a check's problem, without running the checks after it."""
    line = line_of(spec, check)
    assert line.is_problem, line
    return line.message


def built_with(change: Callable[[pl.DataFrame, Tables, Window], pl.DataFrame]) -> Product:
    def features(tables: Tables, window: Window) -> pl.DataFrame:
        return change(SPEC.features(tables, window), tables, window)

    return replace(SPEC, features=features)


def recorded_with(change: Callable[[str, str, bytes], bytes | None]) -> Product:
    assert SPEC.history is not None

    def deliver(source: str, key: str) -> bytes | None:
        data = SPEC.history.deliver(source, key)
        assert data is not None
        return change(source, key, data)

    return replace(SPEC, history=replace(SPEC.history, deliver=deliver))


# Code ----------------------------------------------------------------------------------------------------------------


def test_a_line_that_makes_the_whole_file_part_of_the_models_code_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "widened.py"
    path.write_text("WIDTHS = [8]\nWIDTHS += [9]\n\n\ndef model(learned, training):\n    return WIDTHS\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "widened", (module := importlib.import_module("widened")))
    line = line_of(replace(SPEC, model=module.model), "code")
    assert line.state == "note"
    assert line.message.startswith("line 2, `WIDTHS += [9]`, may change what the product's functions use")
    assert "code" not in checks_before_rows(SPEC)


# Clock ---------------------------------------------------------------------------------------------------------------


def _at(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    monkeypatch.setattr(clock, "now", lambda *_, **__: datetime.fromisoformat(moment))


def test_a_recording_that_ended_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    _at(monkeypatch, "2026-11-28T12:00:00+00:00")
    line = line_of(SPEC, "clock")
    assert line.state == "note"
    assert line.message == (
        "the recording ended with 2013-01-15T05, 5,065 days ago (today is 2026-11-28), so in `make dev` nothing new "
        "lands: play it with `driftline demo hourly_temperature`, or by hand "
        '("Land files, train" in docs/add_a_product.md)'
    )
    assert "clock" not in checks_before_rows(numbered_batches.SPEC)
    _at(monkeypatch, "2013-01-15T05:59:59+00:00")
    assert "clock" not in checks_before_rows(SPEC)


# Money ---------------------------------------------------------------------------------------------------------------


def test_a_first_training_beyond_a_months_budget_is_reported_before_anything_runs() -> None:
    poor = replace(SPEC, retraining=Retraining(monthly_budget_usd=2.0))
    message = problem(poor, "money")
    assert "0.08 USD per hour x 6 h x 7 tries" in message
    assert "exceeded by 1.36. If it takes less, state Retraining.expected_hours in" in message
    assert FILE in message
    assert "over_budget_reason" in message
    unlimited = line_of(replace(SPEC, retraining=Retraining()), "money")
    assert unlimited.state == "ok"
    assert unlimited.message == (
        "a minute of training costs 0.0013 USD at the list price of cpu_small, which is recorded for a machine of "
        "your own too; the first training costs at most 3.36 USD; no monthly limit (0.08 USD per hour x 6 h x 7 tries)"
    )
    line = line_of(replace(poor, retraining=Retraining(monthly_budget_usd=2.0, expected_hours=0.5)), "money")
    assert (line.state, line.message[:58]) == ("ok", "the first training may cost 0.04 USD of the monthly budget")


def test_a_profile_that_the_learner_would_waste_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROFILES, "cpu_small", PROFILES["cpu_small"].replace(processes=2))
    assert "2 processes for a training, and LightGbm computes in one, so it would waste" in problem(
        replace(SPEC, model=LightGbm()), "profile"
    )
    assert "profile" not in checks_before_rows(SPEC)


# Sound products ------------------------------------------------------------------------------------------------------


@pytest.mark.costly
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, marks=OF_PHOTOS if spec.name == "garment_photos" else (), id=spec.name)
        for spec in {spec.name: spec for spec in (SPEC, *product_files.load_all())}.values()
    ],
)
def test_a_sound_product_passes_every_check(spec: Product) -> None:
    lines = list(checking.of_product(spec))
    assert [line.message for line in lines if line.is_problem] == []
    assert "runs of at most" in next(line.message for line in lines if line.check == "history")
    if spec.history is not None:
        whats = {line.check for line in lines}
        assert {"keys", "features", "label", "lookback", "point in time", "requests", "entities", "model"} <= whats
        assert ("rules" in whats, "slices" in whats) == (bool(spec.monitors.rules), bool(spec.slices))
        assert {line.check for line in lines if line.state != "ok"} <= {"clock"}
        assert {f"source {source.name}" for source in spec.sources} <= whats


def test_good_and_quarantined_rows_are_counted_with_the_most_frequent_reason() -> None:
    tolerant = replace(recorded.SPEC, monitors=Monitors(max_quarantined_share=0.1))
    message = line_of(tolerant, "source readings").message
    assert message == (
        "3 files, 36 rows good, 3 quarantined; most often: value is 'broken', which is not a whole number"
    )
    assert "3 of 39 rows of readings are refused; most often: value is 'broken'" in problem(
        recorded.SPEC, "source readings"
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


@pytest.mark.costly
def test_features_may_return_their_columns_in_any_order() -> None:
    assert problems(built_with(lambda rows, *_: rows.select(sorted(rows.columns)))) == {}


@pytest.mark.costly
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_reads_the_label, "reads 'readings', which delivers the labels; a feature may not read the label"),
        (_reads_a_stranger, "reads 'moon', which is not a source; the sources are observations"),
        (_fails, r"features\(\) of hourly_temperature fails with ColumnNotFoundError: .*nowhere"),
        (_with(moon=pl.lit(1)), "Missing: none; not declared: moon"),
        (lambda rows, *_: rows.drop("hour"), "Missing: hour; not declared: none"),
        (lambda rows, *_: rows.clear(), "returns no rows"),
        (lambda rows, *_: pl.concat([rows, rows]), "12 rows share key and entity with another row"),
        (_with(key=pl.lit("2013-01-05T00")), "returns rows of 2013-01-05T00; expected only"),
        (_with(entity=pl.lit(1)), "'entity' is Int32; expected text in every row"),
        (_with(asked_at=pl.lit("now")), "'asked_at' is String; expected moments in UTC"),
        (_with(asked_at=pl.col("service_time") + HOUR), "6 of 6 rows are asked after their service_time"),
        (_with(service_time=pl.col("service_time") + 2 * HOUR), "under 2013-01-09T04; expected 2013-01-09T06"),
        (_with(hour=pl.lit("noon")), "field 'hour' is String; a field of dtype 'int' is an integer"),
        (_with(hour=pl.lit(24)), "field 'hour' is 24 in one of 6 rows outside its declared range, 0 to 23"),
        (_with(hour=pl.lit(-1)), "field 'hour' is -1 in one of 6 rows outside"),
        (_with(hour=pl.lit(None, dtype=pl.Int64)), "field 'hour' is null in 6 of 6 rows and not nullable"),
        (_with(dewpoint_f=pl.lit(float("nan"))), "field 'dewpoint_f' is not a finite number in 6 rows"),
        (lambda rows, *_: None, r"features\(\) of hourly_temperature returns None: is a `return` missing\?"),
        (lambda rows, *_: rows.lazy(), r"returns LazyFrame; expected a polars DataFrame \(`.collect\(\)` makes one\)"),
        (_with(asked_at=pl.col("asked_at").dt.cast_time_unit("ms")), "'asked_at' is Datetime.*'ms'.*, microseconds"),
        (_with(hour=pl.col("hour").cast(pl.UInt32)), "column 'hour' has type UInt32, which a table cannot store; cast"),
        (_with(entity=pl.lit(None, dtype=pl.String)), "'entity' is String with 6 nulls; expected text in every row"),
    ],
)  # fmt: skip
def test_each_mistake_in_features_has_its_message(change: Any, sentence: str) -> None:
    result = problems(built_with(change))
    assert set(result) == {"features"}
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(result["features"])
    assert result["features"].endswith((f"Fix it in {FILE}.", f"The file is {FILE}."))


def _of_the_hour_itself(rows: pl.DataFrame, tables: Tables, window: Window) -> pl.DataFrame:
    observed = tables["observations"].select(
        "key", pl.format("{} {}", "station", "key").alias("entity"), pl.col("temperature_f").alias("own")
    )
    joined = rows.join(observed, on=["key", "entity"], how="left", maintain_order="left")
    return joined.with_columns(temperature_f=pl.col("own")).drop("own")


def test_features_that_fail_for_one_key_name_it() -> None:
    def failing(tables: Tables, window: Window) -> pl.DataFrame:
        if "2013-01-08T03" in window.keys:
            raise ZeroDivisionError("division by zero")
        return SPEC.features(tables, window)

    assert "features() for 2013-01-08T03 of hourly_temperature fails with ZeroDivisionError" in problem(
        replace(SPEC, features=failing), "all keys"
    )


@pytest.mark.costly
def test_a_feature_from_the_future_is_detected_with_a_cell_as_proof() -> None:
    result = problems(built_with(_of_the_hour_itself))
    assert set(result) == {"point in time", "leaks"}, "the temperature of the hour itself is the label"
    assert "temperature_f" in result["leaks"]
    for text in ("not yet known at 2013-01-09T01:00:00+00:00", "'temperature_f' changes in 3 of 3 rows", "to None"):
        assert text in result["point in time"]


@pytest.mark.costly
def test_a_feature_that_depends_on_other_rows_is_detected() -> None:
    ranked = built_with(_with(pressure_hpa=pl.lit(1_000) + pl.int_range(pl.len(), dtype=pl.Int64)))
    assert "'pressure_hpa' changes in 3 of 3 rows" in problem(ranked, "lookback")


# Sources, labels, model ---------------------------------------------------------------------------------------------


def _without(name: str) -> Callable[[], Any]:
    def schema() -> Any:
        return hourly_temperature.observations_schema().remove_columns([name])

    return schema


def _with_source(**changes: Any) -> Product:
    return replace(SPEC, sources=(replace(SPEC.sources[0], **changes), SPEC.sources[1]))


def _failing_schema() -> Any:
    raise RuntimeError("no such file")


def _with_column(name: str, dtype: Any) -> Callable[[], Any]:
    def schema() -> Any:
        import pandera.polars as pa

        return hourly_temperature.observations_schema().add_columns({name: pa.Column(dtype)})

    return schema


def _fails_to_read(data: bytes) -> pl.DataFrame:
    raise KeyError("member")


def _fails_to_deliver(source: str, key: str, data: bytes) -> bytes:
    raise FileNotFoundError("there is no weather.csv")


@pytest.mark.costly
@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (_with_source(schema=_without("known_at_utc")), "has known_at='known_at_utc', and its schema has no such"),
        (_with_source(schema=_without("observed_at_utc")), "has partition_by='observed_at_utc', and its schema has no"),
        (_with_source(schema=_failing_schema), "_failing_schema() of hourly_temperature fails with RuntimeError"),
        (_with_source(schema=partial(_failing_schema)), "schema() of hourly_temperature fails with RuntimeError"),
        (_with_source(schema=lambda: None), "<lambda>() of hourly_temperature returns None: is a `return` missing?"),
        (_with_source(schema=_with_column("known_at_utc", None)), "column 'known_at_utc' has no type"),
        (_with_source(schema=_with_column("known_at_utc", pl.String)), "'known_at_utc' is String, and the source use"),
        (_with_source(schema=_with_column("temperature_f", pl.UInt32)), "has type UInt32, which a table cannot store"),
        (_with_source(read=_fails_to_read), "_fails_to_read() of hourly_temperature fails with KeyError: 'member'"),
        (_with_source(read=lambda data: None), "<lambda>() of hourly_temperature returns None"),
        (_with_source(read=int), "int() of hourly_temperature fails with ValueError: invalid literal for int()"),
        (_with_source(unique=("station",)), None),
        (recorded_with(lambda source, key, data: None), "deliver() of hourly_temperature delivers no file of"),
        (recorded_with(_fails_to_deliver), "deliver() of hourly_temperature fails with FileNotFoundError: there is"),
        (recorded_with(lambda source, key, data: data.decode()), "(source observations, key 2013-01-08T04) of hourly"),
        (recorded_with(lambda source, key, data: data.decode()), "returns str; expected bytes, or None for no file"),
        (recorded_with(lambda source, key, data: b""), "the file is empty (0 bytes)"),
        (
            recorded_with(lambda source, key, data: data.replace(b"JFK", b"SEA")),
            "rows of observations are refused; most often: station is SEA, expected isin",
        ),
    ],
)  # fmt: skip
def test_each_mistake_in_a_source_has_its_message(spec: Product, sentence: str | None) -> None:
    result = problems(spec)
    if sentence is None:
        assert result == {}
    else:
        assert sentence in result["source observations"]
        assert not {"features", "label", "model"} & set(result), "checks that depend on a broken source are left out"


def test_a_column_that_the_schema_does_not_declare_is_named() -> None:
    lines = {line.check: line for line in checking.of_product(_with_source(schema=_without("pressure_hpa")))}
    line = lines["source observations"]
    assert not line.is_problem
    assert line.message.endswith("; not declared, and left out: pressure_hpa")


def _labelled(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Product:
    return replace(SPEC, label=lambda readings: change(SPEC.label(readings)))


def _changed(change: Any) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return (lambda rows: rows.with_columns(change)) if isinstance(change, pl.Expr) else change


@pytest.mark.costly
@pytest.mark.parametrize(
    ("change", "check", "sentence"),
    [
        (lambda rows: rows.with_columns(label=pl.lit(4.0)), "label", "takes the value 4.0 in all 218 rows of 73 keys"),
        (lambda rows: rows.with_columns(label=pl.lit(None)), "label", "takes no value at all"),
        (lambda rows: rows.head(1), "label", "takes the value 33.98 in all 1 row of 73 keys"),
        (lambda rows: rows.head(90), "label", "keys of hourly_temperature with a label: 31; min_keys is 72"),
        (lambda rows: rows.rename({"label": "answer"}), "label", "returns ['key', 'entity', 'answer', 'known_at']"),
        (lambda rows: rows.select("moon"), "label", "label() of hourly_temperature fails with ColumnNotFoundError"),
        (lambda rows: None, "label", "label() of hourly_temperature returns None: is a `return` missing?"),
        (lambda rows: rows.lazy(), "label", "returns LazyFrame; expected a polars DataFrame (`.collect()` makes one)"),
        (pl.col("known_at").cast(pl.String), "label", "'known_at' is String; expected moments in UTC, microseconds"),
        (pl.col("known_at").dt.cast_time_unit("ns"), "label", "'ns', time_zone='UTC'); expected moments in UTC"),
        (pl.lit(None, dtype=MOMENT).alias("known_at"), "label", "with 218 nulls; expected moments in UTC, microsec"),
        (pl.col("label").cast(pl.Float32), "label", "'label' is Float32; a regression task takes Float64"),
        (pl.col("label").cast(pl.String), "label", "'label' is String; a regression task takes Float64"),
        (lambda rows: pl.concat([rows, rows]), "label", "436 rows share key and entity with another row"),
        (lambda rows: rows.with_columns(label=1 / (pl.col("label") - pl.col("label").first())), "label", "not finite"),
        (lambda rows: rows.with_columns(entity=pl.col("entity") + "!"), "entities", "none of the 6 labelled entities"),
        (pl.col("known_at") - 9 * HOUR, "entities", "all 6 labels of 2013-01-09T04 and 2013-01-09T05 are known before"),
    ],
)  # fmt: skip
def test_each_mistake_in_the_labels_has_its_message(change: Any, check: str, sentence: str) -> None:
    assert sentence in problem(_labelled(_changed(change)), check)


@pytest.mark.costly
def test_labels_that_are_known_later_than_declared_are_noted_with_the_delay_of_all() -> None:
    def later(rows: pl.DataFrame) -> pl.DataFrame:
        third = pl.int_range(pl.len()) % 3 == 0
        return rows.with_columns(known_at=pl.when(third).then(pl.col("known_at") + 2 * HOUR).otherwise("known_at"))

    line = next(line for line in checking.of_product(_labelled(_changed(later))) if line.check == "label")
    assert (line.state, SPEC.label_delay) == ("note", 1)
    assert line.message.endswith("; 73 of them known later than label_delay=1 says; label_delay=3 covers all")
    assert next(line for line in checking.of_product(SPEC) if line.check == "label").state == "ok"


def _yes_or_no(first_no: str) -> Product:
    """Return the product as a binary task whose labels are all 0 from a key on."""

    def label(readings: pl.DataFrame) -> pl.DataFrame:
        is_yes = (pl.col("label").hash() % 2 == 0) & (pl.col("key") < first_no)
        return SPEC.label(readings).with_columns(label=is_yes.cast(pl.Int8))

    return replace(SPEC, task=Binary(), label=label, model=LightGbm(rounds=2), gates=Gates())


def test_a_holdout_of_one_class_is_refused() -> None:
    assert (
        "the label of hourly_temperature is 0 in all 72 rows of 2013-01-08T06 to 2013-01-09T05, the holdout of a first "
        "training, so AUC is not defined there; expected both 0 and 1" in problem(_yes_or_no("2013-01-08T06"), "label")
    )


@pytest.mark.costly
def test_a_class_that_the_last_keys_lack_is_taken_from_earlier_ones_for_the_learner() -> None:
    line = line_of(_yes_or_no("2013-01-08T20"), "model")
    assert line.state == "ok", line
    assert line.message.startswith("LightGbm fits ")


def _one_output(learned: Any, training: Any) -> Any:
    from platform_assets.training.nets import TabularNet

    return TabularNet(learned, **training.settings)


def _no_network(learned: Any, training: Any) -> Any:
    raise KeyError("widths")


@pytest.mark.costly
def test_a_network_of_the_wrong_shape_is_reported_with_the_expected_outputs() -> None:
    message = problem(replace(SPEC, model=_one_output), "model")
    assert "answers 6 rows with shape (6, 1); expected (6, 2): 2 numbers per row for a regression task" in message
    assert "TabularNet(..., outputs=2)" in message


def _network(answer: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def model(learned: Any, training: Any) -> Any:
        import torch

        class Network(torch.nn.Module):
            def forward(self, numeric: Any, categorical: Any) -> Any:
                return answer(torch.zeros(len(numeric), 2))

        return Network()

    return model


def _not_even(answer: Any) -> Any:
    raise IndexError("too many indices")


@pytest.mark.costly
@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (lambda learned, training: None, "model() of hourly_temperature returns None: is a `return` missing?"),
        (_no_network, "model() of hourly_temperature fails with KeyError: 'widths'"),
        (lambda learned, training: max, "returns builtin_function_or_method; expected a torch.nn.Module"),
        (_network(lambda zeros: (zeros, zeros)), "the network of hourly_temperature returns tuple; expected one"),
        (_network(lambda zeros: None), "the network of hourly_temperature returns None"),
        (_network(_not_even), "the network of hourly_temperature fails with IndexError: too many indices"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_a_network_or_returns_no_tensor_is_reported(model: Any, sentence: str) -> None:
    message = problem(replace(SPEC, model=model), "model")
    assert sentence in message
    assert message.endswith(f"Fix it in {FILE}.")


@pytest.mark.costly
def test_a_field_that_gives_the_label_away_is_reported() -> None:
    chance = (pl.col("entity").hash() % 1000) / 10 - 20

    def leaking(tables: Tables, window: Window) -> pl.DataFrame:
        return SPEC.features(tables, window).with_columns(temperature_day_ago_f=32 + 0.9 * chance)

    spec = replace(_labelled(lambda rows: rows.with_columns(label=chance)), features=leaking)
    message = problem(spec, "leaks")
    assert message.startswith("the field temperature_day_ago_f of hourly_temperature alone determines the label of all")
    assert message.endswith(f"Fix it in {FILE}.")
    assert line_of(SPEC, "leaks").message.startswith("no field alone determines the label of ")


@pytest.mark.costly
def test_a_field_that_is_always_null_is_reported() -> None:
    def silent(tables: Tables, window: Window) -> pl.DataFrame:
        return SPEC.features(tables, window).with_columns(pressure_hpa=pl.lit(None, pl.Float64))

    message = problem(replace(SPEC, features=silent), "all keys")
    assert "pressure_hpa is null in all" in message
    assert message.endswith(f"Fix it in {FILE}.")


def test_a_failing_function_is_reported_with_its_line_in_the_products_file() -> None:
    def features(tables: Tables, window: Window) -> pl.DataFrame:
        return SPEC.features({"observations": tables["observations"].drop("temperature_f")}, window)

    messages = problems(replace(SPEC, features=features))
    line = next(
        number
        for number, text in enumerate(Path(hourly_temperature.__file__).read_text().splitlines(), 1)
        if "now = Timeline" in text
    )
    assert messages["features"].endswith(f"Fix it in {FILE}, line {line}.")


@pytest.mark.costly
def test_an_unexpected_error_has_a_message_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> str:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(checking.trial.Trial, "entities", fails)
    message = problem(SPEC, "entities")
    assert "the check 'entities' of hourly_temperature ends with ZeroDivisionError: division by zero" in message
    assert FILE in message


def test_a_panic_of_polars_is_reported_too() -> None:
    def panics(*arguments: Any) -> Any:
        raise pl.exceptions.PanicException("index out of bounds")

    assert "fails with PanicException: index out of bounds" in problem(replace(SPEC, label=panics), "label")


# Statistics, rules, slices and requests -------------------------------------------------------------------------------


def _temperatures(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(
        pl.col("temperature_f").fill_null(0), is_known=pl.col("temperature_f").is_not_null().cast(pl.Int8)
    )


def _fails_without_rows(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame({"share": [1 / rows.height] * rows.height})


def test_statistics_are_tried_with_rows_and_without() -> None:
    heights = []

    def statistics(rows: pl.DataFrame) -> pl.DataFrame:
        heights.append(rows.height)
        return _temperatures(rows)

    assert line_of(_with_source(statistics=statistics), "source observations").message.endswith("; 2 statistics")
    assert heights == [78, 0]


@pytest.mark.costly
@pytest.mark.parametrize(
    ("statistics", "sentence"),
    [
        (lambda rows: None, "statistics() of the source observations of hourly_temperature returns None"),
        (lambda rows: rows.select("moon"), "statistics() of the source observations of hourly_temperature fails with"),
        (_fails_without_rows, "statistics() of the source observations, given no rows, of hourly_temperature fails"),
        (lambda rows: rows.select(pl.len()), "returns 1 row for 78; expected one each"),
        (lambda rows: rows.select("station"), "'station' is String; expected numbers"),
        (lambda rows: _temperatures(rows) / 0, "'temperature_f' is null or not finite in 78 of 78 rows"),
        (lambda rows: rows.select(pl.lit(None, dtype=pl.Float64).alias("x")).head(78), "returns 1 row for 78"),
        (lambda rows: rows.select(x=pl.col("temperature_f") * None), "'x' is null or not finite in 78 of 78"),
    ],
)  # fmt: skip
def test_each_mistake_in_statistics_has_its_message(statistics: Any, sentence: str) -> None:
    assert sentence in problem(_with_source(statistics=statistics), "source observations")


def _ruled(broken: Any, sources: tuple[str, ...] = ("observations", "readings")) -> Product:
    rule = CrossRule(name="the two agree", sources=sources, broken=broken)
    return replace(SPEC, monitors=replace(SPEC.monitors, rules=(rule,)))


def _disagreeing(tables: Tables) -> pl.DataFrame:
    both = tables["observations"].join(tables["readings"], on="station", suffix="_read")
    assert set(tables) == {"observations", "readings"}
    assert both.height == 3, "the rows of one key"
    return both.filter(pl.col("temperature_f") != pl.col("temperature_f_read"))


def test_rules_between_sources_are_applied_key_by_key() -> None:
    assert (
        line_of(_ruled(_disagreeing), "rules").message
        == "1 rule between sources; at most 0.00% of the rows of a key's largest source break one"
    )


def test_a_rule_counts_in_the_rows_of_its_largest_source_as_the_platform_does() -> None:
    keys = ["2013-01-01T00"]
    few, many = (pl.DataFrame({"key": keys * rows}) for rows in (1, 10))
    tables = {"observations": few, "readings": many}
    spec = _ruled(lambda tables: tables["observations"])
    rules = [replace(spec.monitors.rules[0], max_share=share) for share in (0.1, 0.09)]
    accepted, refused = (replace(spec, monitors=replace(spec.monitors, rules=(rule,))) for rule in rules)
    (count,) = sketch.of_rules(rules[:1], tables).values()
    assert (count.broken, count.rows) == (1, 10)
    assert "at most 10.00% of the rows" in monitored.check_rules(accepted, tables, keys)
    with pytest.raises(Problem, match=r"by 10\.0% of the rows of its largest source or more; its max_share is 9\.0%"):
        monitored.check_rules(refused, tables, keys)


def test_a_rule_without_a_key_to_try_it_on_is_not_a_problem() -> None:
    def change(source: str, key: str, data: bytes) -> bytes:
        return data if source == "readings" or key < "2013-01-09T04" else data.partition(b"\n")[0] + b"\n"

    spec = replace(_ruled(_disagreeing), history=recorded_with(change).history)
    assert line_of(spec, "rules").message == "1 rule between sources; none could be tried"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (_ruled(lambda tables: tables["observations"].height), "'the two agree' of hourly_temperature returns int"),
        (_ruled(lambda tables: tables["moon"]), "'the two agree' of hourly_temperature fails with KeyError: 'moon'"),
        (_ruled(lambda tables: tables["readings"]), "is broken in each of 2 keys, by 100.0% of the rows"),
    ],
)  # fmt: skip
def test_each_mistake_in_a_rule_has_its_message(spec: Product, sentence: str) -> None:
    message = problem(spec, "rules")
    assert sentence in message
    assert message.endswith(f"in {FILE}.")


def test_a_rule_about_a_slow_source_would_never_be_applied() -> None:
    rule = CrossRule(name="every site is known", sources=("plans", "sites"), broken=lambda tables: tables["plans"])
    message = problem(replace(recorded.SPEC, monitors=Monitors(rules=(rule,), max_quarantined_share=0.1)), "rules")
    assert "the rule 'every site is known' of recorded reads 'sites', a slow source" in message


@pytest.mark.costly
def test_slices_are_listed_with_their_groups() -> None:
    line = line_of(replace(SPEC, slices=("station", "hour")), "slices")
    assert line.message == "station: 3 groups, hour: 2 groups"


@pytest.mark.costly
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_with(station=pl.lit("")), "422, because of features.station: features.station"),
        (_with(station=pl.lit("x" * 300)), "422, because of features.station: features.station"),
        (_with(entity=pl.format("{} {}", pl.lit("e" * 257), "entity")), "422, because of entity: entity"),
        (_with(entity=pl.format("{} {}", pl.lit("e" * 220), "entity")), "422, because of idempotency_key: idempotency"),
        (_with(entity=pl.format("{}{}", pl.lit("e" * 256), pl.int_range(pl.len()))), "'eeeeee"),
    ],
)  # fmt: skip
def test_rows_that_the_service_would_refuse_are_reported(change: Any, sentence: str) -> None:
    message = problem(built_with(change), "requests")
    assert message.startswith("the service would refuse features() of hourly_temperature for '")
    assert sentence in message
    assert message.endswith(f"Fix it in {FILE}.")
    assert len(message) < 1_000


@pytest.mark.costly
def test_numbers_that_json_readers_disagree_about_are_reported() -> None:
    wide = replace(SPEC, fields=tuple(replace(field, low=None, high=None) for field in SPEC.fields))
    huge = replace(wide, features=built_with(_with(hour=pl.lit(2**53 + 1))).features)
    message = problem(huge, "requests")
    assert "for 'EWR 2013-01-09T04' of 2013-01-09T04, with 422, because of features.hour" in message
    assert f"<= {2**53 - 1}" in message


@pytest.mark.costly
def test_a_request_longer_than_the_service_accepts_is_reported() -> None:
    message = problem(replace(SPEC, service=Service(max_body_bytes=100)), "requests")
    assert "with 413: the body has" in message
    assert "expected at most 100" in message


def _image_known_later(rows: pl.DataFrame, tables: Tables, window: Window) -> pl.DataFrame:
    first = tables["observations"]["known_at_utc"].max().hour
    return rows.with_columns(picture=pl.lit(bytes([first, 1, 2, 3])))


@pytest.mark.costly
def test_a_changed_image_is_reported_with_the_size_of_the_change_and_not_its_bytes() -> None:
    field = Field(name="picture", dtype="image", description="Seen.", shape=(2, 2))
    spec = replace(SPEC, fields=(*SPEC.fields, field), features=built_with(_image_known_later).features)
    message = problem(spec, "point in time")
    assert "'picture' changes in 3 of 3 rows, for 'EWR 2013-01-09T04': 4 bytes, 1 of them differ. Fix it" in message
    assert checking.same._change(b"\x00" * 784, b"") == "from 784 bytes to 0 bytes"
    assert checking.same._change(b"\x00" * 784, None) == "from 784 bytes to None"


@pytest.mark.costly
def test_columns_whose_type_depends_on_the_data_are_reported() -> None:
    def features(rows: pl.DataFrame, tables: Tables, window: Window) -> pl.DataFrame:
        is_alone = len(window.keys) == 1
        return rows.with_columns(pl.col("hour").cast(pl.Int32 if is_alone else pl.Int64))

    assert "other columns or types, such as {'hour': Int32}" in problem(built_with(features), "lookback")


# The command ---------------------------------------------------------------------------------------------------------


@pytest.mark.costly
def test_the_command_prints_one_line_per_check_and_ends_with_0(
    product_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = hourly_temperature.SPEC.name
    (product_folder / f"{name}.py").write_text("from tests.doubles.products.hourly_temperature import SPEC\n")
    assert main(["check", name]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == name
    others = [line.split()[:2] for line in out[1:] if not line.startswith("  ok  ")]
    assert others == [["note", "clock"]], out  # it is a recording, which ended years ago


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nothing_of_this_name\n", "cannot be loaded: ModuleNotFoundError: No module named 'nothing"),
        ("SPEC = (\n", "cannot be loaded: SyntaxError"),
        ("raise SystemExit(0)\n", ", line 1, cannot be loaded: SystemExit: 0."),
        ("from driftline import Produkt\n", "driftline/__init__.py). driftline has ABOUT, BatchGrain, Binary, "),
        ("SPECS = 1\n", "has no SPEC; define `SPEC = Product(...)` at its end"),
        ("from tests.doubles.recorded import SPEC\n", "has SPEC.name 'recorded'; expected '{name}', the file's name"),
    ],
    ids=["import", "syntax", "leaves", "public_name", "no_spec", "name"],
)  # fmt: skip
def test_a_file_that_does_not_load_is_a_problem_without_a_traceback(
    text: str,
    sentence: str,
    request: pytest.FixtureRequest,
    product_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = f"broken_{request.node.callspec.id}"
    (product_folder / f"{name}.py").write_text(text)
    assert main(["check", name]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{name}\n  PROBLEM  file  ")
    assert sentence.format(name=name) in out
    assert "Traceback" not in out


def test_products_that_land_in_one_folder_are_reported_for_all_products(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tuple(replace(source, landing=f"recorded/{source.name}") for source in recorded.SPEC.sources)
    twin = replace(recorded.SPEC, name="twin", sources=sources)
    products = {"recorded": recorded.SPEC, "twin": twin}
    monkeypatch.setattr(product_files, "names", lambda: list(products))
    monkeypatch.setattr(product_files, "load", products.__getitem__)
    lines = dict(checking.run())
    assert set(lines) == {"recorded", "twin", "all products"}
    (line,) = lines["all products"]
    assert "two products land in one folder, landing/recorded/plans: recorded, source plans" in line.message


def test_an_image_of_another_size_is_reported() -> None:
    field = Field(name="picture", dtype="image", description="Seen.", shape=(2, 2))

    def features(tables: Tables, window: Window) -> pl.DataFrame:
        return SPEC.features(tables, window).with_columns(picture=pl.lit(b"\x00\x01\x02"))

    spec = replace(SPEC, fields=(*SPEC.fields, field), features=features)
    assert "field 'picture' has 6 images that are not 2 x 2 bytes" in problem(spec, "features")


@pytest.mark.costly
def test_only_the_history_is_read_and_nothing_is_stored(settings: Any) -> None:
    assert isinstance(SPEC.history, History)
    list(checking.of_product(SPEC))
    assert not Path(settings.root).exists()


# Without the recording ------------------------------------------------------------------------------------------------

ELSEWHERE = """
from dataclasses import replace

from platform_assets.product.recording import RecordingMissing
from tests.doubles.products.hourly_temperature import SPEC as SOUND


def deliver(source, key):
    raise RecordingMissing("the recording is not installed; `apt-get install it`.")


SPEC = replace(SOUND, name="elsewhere", history=replace(SOUND.history, deliver=deliver))
"""


def test_without_the_recording_the_declarations_are_checked_and_the_rest_is_skipped(
    product_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (product_folder / "elsewhere.py").write_text(ELSEWHERE)
    assert main(["check", "elsewhere"]) == 0
    *lines, last = (line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:])
    assert [(state, text.split()[0]) for state, text in lines if state != "ok"] == [("note", "clock")]
    assert [" ".join(text.split()) for _, text in lines[-2:]] == [
        "source observations 8 columns",
        "source readings 4 columns",
    ]
    assert last[0] == "skipped"
    assert last[1].split(maxsplit=1) == [
        "recording",
        "cannot be read here: the recording is not installed; `apt-get install it`; only the declarations were checked",
    ]


def _recording_missing(*arguments: Any) -> Any:
    raise RecordingMissing("the recording is not installed.")


def test_without_the_recording_a_wrong_schema_is_still_a_problem() -> None:
    spec = replace(_with_source(schema=_failing_schema), history=recorded_with(_recording_missing).history)
    assert set(problems(spec)) == {"source observations"}
    assert [line.check for line in checking.of_product(spec) if line.state == "skipped"] == ["recording"]


def test_only_deliver_may_need_the_recording() -> None:
    assert "fails with RecordingMissing" in problem(replace(SPEC, features=_recording_missing), "features")
