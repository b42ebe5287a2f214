"""Mistakes in a product's file: each gives one message with the place and the change to make."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest

from platform_assets import products
from platform_assets.base.keys import BatchGrain, DailyGrain
from platform_assets.engine import product_files
from platform_assets.product.spec import (
    Binary,
    Column,
    CrossRule,
    FeatureTables,
    Field,
    History,
    Monitors,
    MultiClass,
    Regression,
    Service,
    Source,
)
from tests.doubles import numbered_batches as batches
from tests.doubles import recorded
from tests.doubles.products.hourly_temperature import SPEC as HOURLY

pytestmark = pytest.mark.slow

SPEC = recorded.SPEC
READINGS = SPEC.source("readings")


def pairs(count: int) -> tuple[Field, ...]:
    return tuple(Field(name=f"f{number}", dtype="float", description="Some.") for number in range(count))


def image(name: str) -> Field:
    return Field(name=name, dtype="image", description="Seen.", shape=(28, 28))


@pytest.fixture
def file_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    monkeypatch.setattr(products, "__path__", [*products.__path__, str(tmp_path)])

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        return str(tmp_path / f"{name}.py")

    return write


def test_a_name_that_differs_from_the_files_is_an_error_with_both(file_of: Callable[[str, str], str]) -> None:
    file = file_of("bad_name", "from tests.doubles.recorded import SPEC\n")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole sentence is compared
        product_files.load("bad_name")
    assert str(caught.value) == f"{file} has SPEC.name 'recorded'; expected 'bad_name', the file's name."


def test_a_file_without_a_spec_is_an_error_with_the_fix(file_of: Callable[[str, str], str]) -> None:
    file = file_of("bad_empty", '"""Nothing yet."""\n')
    with pytest.raises(ValueError, match="has no SPEC; define `SPEC = Product") as caught:
        product_files.load("bad_empty")
    assert file in str(caught.value)


def test_two_products_in_one_folder_are_an_error_with_both_sources() -> None:
    first, *others = batches.SPEC.sources
    other = replace(batches.SPEC, sources=(replace(first, landing="recorded/plans"), *others))
    with pytest.raises(ValueError, match="two products land in one folder, landing/recorded/plans") as caught:
        product_files.check_together((SPEC, other))
    for phrase in ("recorded, source plans", "numbered_batches, source readings", "another `landing`", "file"):
        assert phrase in str(caught.value)


def test_products_without_a_shared_folder_load_together() -> None:
    assert product_files.check_together((SPEC, batches.SPEC, HOURLY)) == (SPEC, batches.SPEC, HOURLY)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"min_keys": 10}, ("lands 10 keys", "2020-01-10", "9 have labels", "min_keys is 10", "demo_last")),
        (
            {"history": History(deliver=recorded.deliver, demo_first="2020-01-01", demo_last="2020-02-10")},
            ("history.demo_last is '2020-02-10'", "daily keys from 2020-01-01 to 2020-01-31"),
        ),
        (
            {"history": History(deliver=recorded.deliver, demo_first="2020-01-01", demo_last="2020-01-10T05")},
            ("history.demo_last is '2020-01-10T05'", "expected one of daily keys"),
        ),
        ({"fields": pairs(10_000)}, ("10,000 fields; expected at most 1,000", "the product's file")),
        ({"fields": (image("front"), image("back"))}, ("front, back are images", "at most one")),
        ({"fields": (image("front"),), "slices": ("front",)}, ("slices name the image 'front'",)),
        ({"owner": "the weather people"}, ("owner is 'the weather people'", "an e-mail address or 'team:name'")),
        ({"owner": "team:"}, ("owner is 'team:'",)),
        ({"name": "Recorded"}, ("Product.name is 'Recorded'", "lower-case letters")),
        ({"name": "two__words"}, ("Product.name is 'two__words'", "single underscores")),
        ({"name": "a" * 64}, ("at most 63 characters",)),
        ({"name": "ümlaut"}, ("Product.name is 'ümlaut'",)),
        (
            {"sources": tuple(replace(part, landing="one_folder") for part in SPEC.sources)},
            ("land in one folder, landing/one_folder", "plans and readings", "its own `landing`"),
        ),
    ],
)  # fmt: skip
def test_a_wrong_spec_is_refused_with_the_value_and_the_remedy(changes: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - each case has its own message
        replace(SPEC, **changes)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("owner", ["team:weather", "weather@example.org"])
def test_an_owner_that_dagster_accepts_is_accepted(owner: str) -> None:
    assert replace(SPEC, owner=owner).owner == owner


WRONG = (None, "rider", 5, 0.5, True, ("rider",), (None,), object(), {"a": 1}, b"x")
PARTS = (SPEC, SPEC.monitors, SPEC.retraining, SPEC.training, SPEC.gates, SPEC.service, READINGS, *SPEC.fields[:1])
RULE = CrossRule(name="a rule", sources=("readings",), broken=recorded.deliver)
MORE = (SPEC.grain, batches.SPEC.grain, HOURLY.grain, SPEC.history, RULE, MultiClass(classes=("a", "b")), Binary())


@pytest.mark.parametrize("part", [*PARTS, *MORE], ids=lambda part: type(part).__name__)
def test_a_value_of_another_kind_gives_one_message_that_names_it(part: Any) -> None:
    refused = {(item.name, index): "" for item in fields(part) for index in range(len(WRONG))}
    for name, index in list(refused):
        try:
            replace(part, **{name: WRONG[index]})
        except ValueError as problem:
            refused[name, index] = str(problem)
    messages = {key: sentence for key, sentence in refused.items() if sentence}
    assert {name for name, _ in messages} == {item.name for item in fields(part)}
    for (name, index), sentence in messages.items():
        assert "\n" not in sentence
        assert name in sentence or repr(WRONG[index]) in sentence or "expected" not in sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": None}, "recorded: task is None; expected Binary or MultiClass or Regression."),
        ({"slices": "rider"}, "recorded: slices is 'rider'; expected a tuple of text each, such as ('rider',)."),
        ({"sources": READINGS}, "recorded: sources is Source("),
        ({"lookback": "2"}, "recorded: lookback is '2'; expected a whole number."),
        ({"model": None}, "recorded: model is None; expected a function, or a learner such as driftline."),
        ({"window": 2.5}, "recorded: window is 2.5; expected a whole number or None."),
        ({"is_live": 1}, "recorded: is_live is 1; expected True or False."),
        ({"grain": "daily"}, "recorded: grain is 'daily'; expected DailyGrain or HourlyGrain or BatchGrain."),
    ],
)
def test_the_message_has_the_value_and_the_expectation(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the beginning of the sentence is compared
        replace(SPEC, **changes)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: MultiClass(classes="bag"), "MultiClass.classes is 'bag'; expected a tuple of text each"),
        (
            lambda: Field(name="a", dtype="number", description=""),
            "field 'a': dtype is 'number'; expected one of 'float'",
        ),
        (lambda: Field(name="a", dtype="image", description="", shape=(2,)), "field 'a': shape is (2,)"),
        (
            lambda: replace(READINGS, unique="station"),
            "source 'readings': unique is 'station'; expected a tuple of text",
        ),
        (lambda: Service(asked_within=5), "Service.asked_within is 5; expected a timedelta or None."),
        (lambda: Monitors(season="7"), "Monitors.season is '7'; expected a whole number."),
        (lambda: DailyGrain(start=None), "None is not a daily key; expected a date such as '2013-03-01'."),
        (lambda: BatchGrain(count="5"), "BatchGrain.count is '5'; expected a whole number."),
    ],
)
def test_parts_of_another_kind_are_refused(build: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the beginning of the sentence is compared
        build()
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("name", ["label", "known_at", "entity", "key", "asked_at"])
def test_a_field_may_not_have_a_reserved_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"a field is called '{name}'") as caught:
        Field(name=name, dtype="float", description="Some.")
    assert "a feature may not read the label" in str(caught.value)


def test_a_feature_that_reads_the_label_is_refused() -> None:
    tables = FeatureTables(HOURLY.name, HOURLY.label_source.name, {"observations": "a table"})
    assert tables["observations"] == "a table"
    with pytest.raises(ValueError, match="reads 'readings', which delivers the labels") as caught:
        tables["readings"]
    assert "Fix `features` in the product's file" in str(caught.value)
    with pytest.raises(ValueError, match="reads 'moon', which is not a source; the sources are observations"):
        tables["moon"]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"known_at": "arrived_utc"}, ("known_at='arrived_utc'", "it has read_at_utc, value", "fix known_at")),
        ({"partition_by": "at_utc"}, ("partition_by='at_utc'", "no such column", "fix partition_by")),
        ({"unique": ("value", "site")}, ("unique='site'", "fix unique")),
        ({"content": ("size",)}, ("content='size'", "fix content")),
        ({"known_at_of": {"status": "read_at_utc"}}, ("known_at_of='status'", "fix known_at_of")),
        ({"known_at_of": {"value": "seen_on"}}, ("known_at_of='seen_on'", "fix known_at_of")),
        ({"known_at_of": {"planned": None}}, ("known_at_of='planned'", "fix known_at_of")),
        ({"multiline": ("note",)}, ("multiline='note'", "fix multiline")),
        ({"multiline": ("value",)}, ("multiline='value'", "has Int64 there; only text has several lines")),
    ],
)  # fmt: skip
def test_a_schema_without_a_column_that_the_source_names_is_refused(changes: dict[str, Any], parts: tuple[str, ...]):
    with pytest.raises(ValueError, match="source 'readings' has") as caught:
        replace(READINGS, **changes).columns()
    for part in parts:
        assert part in str(caught.value)
    assert "the product's file" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Readings"}, "Source.name is 'Readings'"),
        ({"name": "7days"}, "Source.name is '7days'"),
        ({"landing": "/etc"}, "landing='/etc'; expected a folder below landing/"),
        ({"landing": "../other"}, "landing='../other'; expected a folder"),
        ({"known_at": None}, "has no known_at; every row must state when it was known"),
        ({"is_slow": True, "is_label": True}, "is slow"),
        ({"is_slow": True, "partition_by": "at_utc"}, "is slow"),
        ({"known_at_of": ("value",)}, "readings': known_at_of is ('value',); expected a mapping or None"),
        (
            {"known_at_of": {"value": 3}},
            "has known_at_of={'value': 3}; expected the name of a column, with",
        ),
        ({"known_at_of": {3: "read_at_utc"}}, "has known_at_of={3: 'read_at_utc'}; expected the name of a column"),
        ({"known_at_of": {"known_at_utc": None}}, "has 'known_at_utc' in known_at_of, which is its known_at"),
        ({"known_at_of": {"value": "read_at_utc"}, "is_label": True}, "brings labels and has known_at_of; no feature"),
        ({"multiline": "note"}, "multiline is 'note'; expected"),
        ({"multiline": ("note",), "read": pl.read_csv}, "drop multiline, or pass it on in read"),
    ],
)
def test_a_wrong_source_is_refused_with_the_expectation(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - each case has its own message
        replace(READINGS, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Front"}, "Field.name is 'Front'"),
        ({"shape": None}, "has dtype='image' and shape=None; an image has a shape"),
        ({"dtype": "float"}, "has dtype='float' and shape=(28, 28)"),
        ({"shape": (0, 28)}, "expected 1 to 1,000,000 pixels"),
        ({"shape": (10_000, 10_000)}, "expected 1 to 1,000,000 pixels"),
        ({"is_nullable": True}, "is an image and cannot be null"),
        ({"low": 0.0}, "takes no range"),
    ],
)
def test_a_wrong_image_is_refused_with_the_expectation(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - each case has its own message
        replace(image("front"), **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Binary(threshold=1.0), "Binary.threshold is 1.0; expected a probability between 0 and 1"),
        (lambda: MultiClass(classes=("one",)), "holds 1 names, 1 of them distinct; expected 2 to"),
        (lambda: MultiClass(classes=("one", "one")), "none twice"),
        (lambda: MultiClass(classes=("T-shirt", "bag")), "'T-shirt'; expected lower-case letters"),
        (lambda: MultiClass(classes=("", "bag")), "''; expected lower-case letters"),
    ],
)
def test_a_wrong_task_is_refused_with_the_expectation(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - each case has its own message
        build()
    assert message in str(caught.value)


@pytest.mark.parametrize("task", [Binary(), Regression(unit="deg F"), MultiClass(classes=("bag", "boot"))])
def test_a_label_with_one_value_is_refused_by_every_kind_of_task(task: Any) -> None:
    import numpy as np

    with pytest.raises(ValueError, match=r"[Mm]end the product's label\(\)|label"):
        task.check_labels(np.zeros(40, dtype=task.labels_of(_none(task)).dtype))


def _none(task: Any) -> Any:
    import polars as pl

    return pl.Series("label", [], dtype=task.label_type())


def test_every_accepted_spec_name_is_accepted_by_dagster() -> None:
    from platform_assets.definitions import build_defs

    longest = "n" * 63
    named = replace(
        batches.SPEC, name=longest, sources=tuple(replace(s, name=f"{s.name}_{'s' * 40}") for s in batches.SPEC.sources)
    )
    for spec in (named, replace(batches.SPEC, name="class"), replace(batches.SPEC, name="x")):
        assert build_defs(specs=[spec]).resolve_all_asset_specs()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"since": "41"}, r"source 'readings', column 'colour': since is '41'; expected one of"),
        ({"until": "4"}, r"column 'colour': until is '4'; expected one of"),
        ({"since": "0005", "until": "0004"}, "since='0005' is after until='0004'"),
        ({}, "expected the keys that have it, or optional=True"),
        ({"since": "0002", "optional": True}, "expected the keys that have it, or optional=True"),
        ({"optional": 1}, "column 'colour': optional is 1; expected True or False"),
    ],
)
def test_a_partial_column_names_keys_of_the_grain(column: dict[str, Any], message: str) -> None:
    def declare() -> None:
        source = replace(batches.SPEC.sources[0], partial_columns=(Column(name="colour", **column),))
        replace(batches.SPEC, sources=(source, *batches.SPEC.sources[1:]))

    with pytest.raises(ValueError, match=message):
        declare()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gust", "partial_columns='gust', and its schema has no such column"),
        ("reading", r"lack column 'reading', and the source has it without nullable=True in readings_schema\(\)"),
        ("sensor", "lack column 'sensor', and the source"),
    ],
)
def test_a_partial_column_is_a_nullable_column_of_the_schema(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(batches.SPEC.sources[0], partial_columns=(Column(name=name, optional=True),)).columns()


def test_a_slow_source_has_no_keys_for_its_columns() -> None:
    with pytest.raises(ValueError, match="source 'catalogue' is slow and has no keys; its column 'weight' can only be"):
        replace(batches.SPEC.sources[1], partial_columns=(Column(name="weight", since="0002"),))
    twice = (Column(name="weight", optional=True),) * 2
    with pytest.raises(ValueError, match="partial_columns name 'weight' twice"):
        replace(batches.SPEC.sources[1], partial_columns=twice)


def test_a_batch_product_with_partition_by_is_refused() -> None:
    keyed = replace(batches.SPEC.sources[0], partition_by="known_at_utc")
    with pytest.raises(ValueError, match="has partition_by and the grain is numbered batches"):
        replace(batches.SPEC, sources=(keyed, *batches.SPEC.sources[1:]))


@pytest.mark.parametrize(
    ("checks", "unique", "message"),
    [([pa.Check.ne(b"x")], None, "holds bytes and has checks"), ([], ["id"], r"is in a schema with unique=\['id'\]")],
)
def test_checks_that_pandera_cannot_do_on_bytes_are_refused(checks: list[Any], unique: Any, message: str) -> None:
    def schema() -> pa.DataFrameSchema:
        columns = {"id": pa.Column(pl.String), "at": pa.Column(pl.String), "pixels": pa.Column(pl.Binary, checks)}
        return pa.DataFrameSchema(columns, unique=unique)

    with pytest.raises(ValueError, match=message):
        Source(name="photos", description="", schema=schema, known_at="at").columns()
