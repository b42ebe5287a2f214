"""Real Dagster projects in a folder, with the packages of an environment of their own: see `.ci/run`, `hosts`."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

from tests.doubles import hosts
from tests.doubles.hosts import Host

NAME = "churn"
A_DAY = 200
"""Rows of a day."""
DAYS = 60
FIRST = datetime.now(UTC).date() - timedelta(DAYS + 3)
"""The newest days are over, with their labels, and a service answers requests of the last seven."""
OLDER = """
[project]
name = "shop"
version = "0.1.0"

[tool.dagster]
module_name = "shop.definitions"
"""
OLDER_DEFINITIONS = """
import dagster as dg

from shop import assets

defs = dg.Definitions(
    assets=[assets.orders, assets.revenue],
    asset_checks=[assets.is_positive],
    jobs=[assets.nightly],
    schedules=[assets.at_night],
    sensors=[assets.landings],
    resources={"store": 10},
)
"""
RELEASED = """
import dagster as dg
from dagster_cloud_examples.cereals.jobs.compute_cereal_properties.process_cereals import compute_cereal_properties
from dagster_cloud_examples.cereals.schedules.daily_process_cereals import daily_compute_cereal_properties

defs = dg.Definitions(jobs=[compute_cereal_properties], schedules=[daily_compute_cereal_properties])
"""
MERGED = """
import driftline
from shop.churn import SPEC

defs = dg.Definitions.merge(defs, driftline.build_defs(specs=[SPEC]))
"""
DBT_PROJECT = """
name: shop
version: "1.0"
profile: shop
seeds: {shop: {+schema: landed}}
models: {shop: {+materialized: table}}
"""
DBT_PROFILE = """
shop:
  target: dev
  outputs:
    dev: {type: duckdb, path: shop.duckdb, threads: 1}
"""
DBT_MODEL = """
select day, count(*) as orders, sum(amount) as amount from {{ ref('orders') }} group by day order by day
"""
DBT_SALES = "select id, day::timestamp as at, amount from {{ ref('orders') }}"
"""Rows of a product's source."""
DBT_TESTS = """
models:
  - name: days
    columns: [{name: day, data_tests: [unique, not_null]}]
"""
DBT_SEED = "id,day,amount\n1,2026-01-01,10.5\n2,2026-01-01,4.25\n3,2026-01-02,7.0\n"
DBT_ASSETS = """
from pathlib import Path

import dagster as dg
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets

analytics = DbtProject(project_dir=Path(__file__).parents[3] / "analytics")


@dbt_assets(manifest=analytics.manifest_path)
def models(context: dg.AssetExecutionContext, dbt: DbtCliResource):
    yield from dbt.cli(["build"], context=context).stream()


defs = dg.Definitions(
    assets=[models],
    jobs=[dg.define_asset_job("nightly", selection=[models])],
    resources={"dbt": DbtCliResource(project_dir=analytics)},
)
"""
DLT_ASSETS = """
from pathlib import Path

import dagster as dg
import dlt
from dagster_dlt import DagsterDltResource, dlt_assets

PLACE = Path(__file__).parents[3]


@dlt.source(name="till")
def till():
    @dlt.resource(name="receipts", primary_key="id", write_disposition="merge")
    def receipts():
        yield [{"id": number, "amount": number / 4} for number in range(5)]

    return receipts


@dlt_assets(
    dlt_source=till(),
    dlt_pipeline=dlt.pipeline(
        pipeline_name="till",
        pipelines_dir=str(PLACE / "pipelines"),
        dataset_name="landed",
        destination=dlt.destinations.duckdb(str(PLACE / "shop.duckdb")),
    ),
)
def receipts(context: dg.AssetExecutionContext, dlt: DagsterDltResource):
    yield from dlt.run(context=context)


defs = dg.Definitions(
    assets=[receipts],
    jobs=[dg.define_asset_job("nightly", selection=[receipts])],
    resources={"dlt": DagsterDltResource()},
)
"""
OF_ASSETS = """
import dagster as dg
from shop.definitions import defs

defs, values = defs() if callable(defs) else defs, []
for name in ("orders", "revenue"):
    values.append(defs.load_asset_value(name, instance=dg.DagsterInstance.get()))
print(json.dumps(values))
"""
OF_DUCKDB = """
import duckdb

with duckdb.connect("{file}", read_only=True) as database:
    print(json.dumps(database.sql("{query}").fetchall(), default=str))
"""
OF_NOTHING = "print('null')"
VALUES = {
    "created": OF_ASSETS,
    "older": OF_ASSETS,
    "own resources": OF_ASSETS,
    "two products": OF_ASSETS,
    "dbt": OF_DUCKDB.format(file="analytics/shop.duckdb", query="select * from days"),
    "dlt": OF_DUCKDB.format(file="shop.duckdb", query="select id, amount from landed.receipts order by id"),
    "released": OF_NOTHING,
}
"""Python that prints what the assets of each kind of host returned, or wrote."""
EVENTS = """
import json, sys
import dagster as dg

instance = dg.DagsterInstance.get()
(run,) = instance.get_runs(dg.RunsFilter(job_name=sys.argv[1]))
events = []
for entry in instance.all_logs(run.run_id):
    event = entry.dagster_event
    if event is not None:
        about = entry.asset_materialization or event.event_specific_data
        names = sorted(getattr(about, "metadata", None) or {})
        key = event.asset_key.to_user_string() if event.asset_key else None
        events.append([event.event_type_value, event.step_key, key, names])
print(json.dumps([run.status.value, events]))
"""
STORED = """
import json, sys
import dagster as dg
from platform_assets.base.settings import Settings
from platform_assets.store.tables import TableStore

product, stages = sys.argv[1], ("raw_orders", "validated_orders", "features")
tables, instance = TableStore(Settings.from_environment().root, product), dg.DagsterInstance.get()
print(json.dumps({
    stage: {
        key: tables.read(stage, [key]).height
        for key in sorted(instance.get_materialized_partitions(dg.AssetKey([product, stage])))
    }
    for stage in stages
}))
"""


def created(folder: Path, python: Path) -> Host:
    """Make a project by `create-dagster`, whose own files stay as they are."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    host = Host(folder, folder / "src" / "shop", python)
    command = [str(python.with_name("create-dagster")), "project", "shop", "--no-uv-sync"]
    environment = {"HOME": str(folder.parent), "PATH": host.environment["PATH"]}
    subprocess.run(command, cwd=folder.parent, env=environment, check=True, capture_output=True)
    (folder.parent / "shop").rename(folder)
    return host


def _created(folder: Path, python: Path) -> Host:
    host = created(folder, python)
    (host.package / "defs" / "assets.py").write_text(hosts.ASSETS, encoding="utf-8")
    (host.package / "defs" / "theirs.py").write_text(
        'import dagster as dg\n\ndefs = dg.Definitions(resources={"store": 10})\n', encoding="utf-8"
    )
    return host


def _older(folder: Path, python: Path) -> Host:
    package = folder / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (folder / "pyproject.toml").write_text(OLDER, encoding="utf-8")
    (package / "assets.py").write_text(hosts.ASSETS, encoding="utf-8")
    (package / "definitions.py").write_text(OLDER_DEFINITIONS, encoding="utf-8")
    return Host(folder, package, python)


def _released(folder: Path, python: Path) -> Host:
    host = _older(folder, python)
    (host.package / "definitions.py").write_text(RELEASED, encoding="utf-8")
    return replace(host, job="compute_cereal_properties")


def _dbt(folder: Path, python: Path) -> Host:
    host, analytics = created(folder, python), folder / "analytics"
    files = {
        "dbt_project.yml": DBT_PROJECT,
        "profiles.yml": DBT_PROFILE,
        "models/days.sql": DBT_MODEL,
        "models/sales.sql": DBT_SALES,
        "models/tests.yml": DBT_TESTS,
        "seeds/orders.csv": DBT_SEED,
    }
    for name, text in files.items():
        (analytics / name).parent.mkdir(parents=True, exist_ok=True)
        (analytics / name).write_text(text, encoding="utf-8")
    _parse(host)
    (host.package / "defs" / "analytics.py").write_text(DBT_ASSETS, encoding="utf-8")
    return host


def _parse(host: Host) -> None:
    """Make the manifest of a dbt project; what dbt keeps for the next time holds the place of the project."""
    place = f"{host.folder}/analytics"
    shutil.rmtree(f"{place}/target", ignore_errors=True)
    host.run("dbt", "parse", "--no-send-anonymous-usage-stats", f"--project-dir={place}", f"--profiles-dir={place}")


def _dlt(folder: Path, python: Path) -> Host:
    host = created(folder, python)
    (host.package / "defs" / "ingest.py").write_text(DLT_ASSETS, encoding="utf-8")
    return host


def _own_resources(folder: Path, python: Path) -> Host:
    host = replace(hosts.project(folder, resources=True), python=python)
    theirs = host.package / "defs" / "theirs.py"
    theirs.write_text(theirs.read_text().replace(str(folder / "values"), "values"), encoding="utf-8")  # where it stands
    return host


KINDS: dict[str, Callable[[Path, Path], Host]] = {
    "created": _created,
    "dbt": _dbt,
    "own resources": _own_resources,
    "older": _older,
    "two products": _created,
    "dlt": _dlt,
    "released": _released,
}
LOOPS = [*KINDS][:3]
"""Kinds in which a product's loop is closed."""


def is_older(host: Host) -> bool:
    """Return whether a project has no folder for components."""
    return not (host.package / "defs").exists()


def copied(host: Host, folder: Path) -> Host:
    copy = replace(hosts.copied(host, folder), python=host.python, job=host.job)
    if (folder / "analytics").exists():
        _parse(copy)
    return copy


def add(host: Host, name: str = NAME) -> Path:
    """Add a product as the guide says, unchanged; return its file."""
    if is_older(host):
        file = host.package / f"{name}.py"
        code = f"from platform_assets.components import PRODUCT; print(PRODUCT.format(name={name!r}, title={name!r}))"
        file.write_text(host.run(code=code), encoding="utf-8")
        with (host.package / "definitions.py").open("a", encoding="utf-8") as definitions:
            definitions.write(dedent(MERGED))
        return file
    host.run("dg", "scaffold", "defs", "driftline.ProductComponent", name)
    return host.package / "defs" / name / "product.py"


def check(host: Host) -> None:
    """Have Dagster load all definitions, and refuse broken ones."""
    host.run(*(("dagster", "definitions", "validate") if is_older(host) else ("dg", "check", "defs")))


def launch(host: Host, job: str, *, keys: tuple[str, str] | None = None, key: str | None = None) -> None:
    """Run a job as a person does."""
    if not is_older(host):
        more = [f"--partition-range={'...'.join(keys)}"] if keys else [f"--partition={key}"] if key else []
        host.run("dg", "launch", "--job", job, *more)
        return
    tags = {"dagster/partition": key} if key else {}
    if keys:
        tags = {f"dagster/asset_partition_range_{end}": each for end, each in zip(("start", "end"), keys, strict=True)}
    host.run("dagster", "job", "execute", "-m", "shop.definitions", "-j", job, "--tags", json.dumps(tags))


def events(host: Host, job: str) -> tuple[str, list[list[Any]]]:
    """Return the status of a job's only run, and its events in any order: type, step, asset and names of metadata."""
    status, entries = json.loads(host.run(code=EVENTS.replace("sys.argv[1]", repr(job))).splitlines()[-1])
    return status, sorted(entries, key=json.dumps)


def values(host: Host, kind: str) -> Any:
    """Return what the host's own assets returned."""
    return json.loads(host.run(code=f"import json\n{VALUES[kind]}").splitlines()[-1])


def stored(host: Host, name: str = NAME) -> dict[str, dict[str, int]]:
    """Return the rows of each materialised key of the product's first tables, by stage."""
    tables: dict[str, dict[str, int]] = json.loads(
        host.run(code=STORED.replace("sys.argv[1]", repr(name))).splitlines()[-1]
    )
    return tables


def day(index: int) -> str:
    return str(FIRST + timedelta(index))


def rows(index: int) -> list[tuple[str, datetime, float, int]]:
    """Return a day's orders: id, moment, amount and label, which is mostly 1 where the amount is far from 50."""
    stream, start = random.Random(index), datetime.combine(FIRST + timedelta(index), datetime.min.time(), UTC)
    orders = []
    for number in range(A_DAY):
        amount = round(stream.gauss(50, 20), 2)
        label = int(stream.random() < (0.9 if abs(amount - 50) > 14 else 0.1))
        orders.append(
            (f"{day(index)}-{number}", start + timedelta(hours=number // 9, minutes=number % 60), amount, label)
        )
    return orders


def land(host: Host, *, first: int = 0, days: int, name: str = NAME) -> None:
    """Land the product's files of some days, with labels that are known a day later; moments end in Z."""
    for index in range(first, first + days):
        orders, outcomes = ["id,at,amount"], ["id,label,at"]
        for order, at, amount, label in rows(index):
            orders.append(f"{order},{at:%Y-%m-%dT%H:%M:%SZ},{amount:.2f}")
            outcomes.append(f"{order},{label},{at + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}")
        for source, lines in (("orders", orders), ("outcomes", outcomes)):
            file = host.folder / "store" / "landing" / name / source / f"{day(index)}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join((*lines, "")), encoding="utf-8")
