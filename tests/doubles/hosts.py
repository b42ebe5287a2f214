"""Dagster projects of other people, in a folder: what a guest must leave as it is."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PRODUCT = REPOSITORY / "tests" / "doubles" / "products" / "live_parts.py"
PATIENCE_S = 600
PYPROJECT = """
[project]
name = "shop"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "shop"
"""
DEFINITIONS = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
ASSETS = """
import dagster as dg


@dg.asset
def orders() -> list[int]:
    return [1, 2, 3]


@dg.asset(automation_condition=dg.AutomationCondition.eager(), required_resource_keys={"store"})
def revenue(context, orders: list[int]) -> int:
    return sum(orders) * context.resources.store


@dg.asset_check(asset=revenue)
def is_positive(revenue: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=revenue > 0)


nightly = dg.define_asset_job("nightly", selection=[orders, revenue])
at_night = dg.ScheduleDefinition(job=nightly, cron_schedule="0 3 * * *")


@dg.sensor(job=nightly)
def landings():
    return dg.SkipReason("nothing landed")
"""
RESOURCES = """
import json
from pathlib import Path

import dagster as dg


class Json(dg.ConfigurableIOManager):
    folder: str

    def handle_output(self, context, obj):
        Path(self.folder, context.asset_key.path[-1]).write_text(json.dumps(obj))

    def load_input(self, context):
        return json.loads(Path(self.folder, context.asset_key.path[-1]).read_text())


defs = dg.Definitions(
    resources={"io_manager": Json(folder=FOLDER), "store": 10, "launcher": "theirs", "alerts": "theirs"},
    executor=dg.multiprocess_executor.configured({"max_concurrent": 1}),
)
"""
SNAPSHOT = """
import json, sys

from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value
from shop.definitions import defs

defs = defs() if callable(defs) else defs
repository = defs.get_repository_def()
snapshot = json.loads(serialize_value(RepositorySnap.from_def(repository)))
snapshot["resources"] = sorted(repository.get_top_level_resources())
snapshot["executor"] = None if defs.executor is None else type(defs.executor).__name__ + str(defs.executor.name)
json.dump(snapshot, sys.stdout)
"""


@dataclass(frozen=True)
class Host:
    """A Dagster project whose package is `shop`.

    Attributes:
        folder: with its pyproject.toml.
        package: of its code.
        python: of the environment that it runs in.
        job: of its own assets.
    """

    folder: Path
    package: Path
    python: Path = Path(sys.executable)
    job: str = "nightly"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes: its own store, and its package importable as `dg` makes it."""
        own = {
            "DRIFTLINE_ROOT": str(self.folder / "store"),
            "DRIFTLINE_STATE": str(self.folder / "state"),
            "DAGSTER_HOME": str(self.folder / "home"),
            "PYTHONPATH": str(self.package.parent),
        }
        path = os.pathsep.join((str(self.python.parent), os.environ["PATH"]))
        return {"HOME": str(self.folder / "home"), "PATH": path, "DAGSTER_DISABLE_TELEMETRY": "true", **own}

    def run(self, *command: str, code: str = "") -> str:
        """Run a program of the environment, or Python code, in the project; return its output."""
        argv = [str(self.python), "-c", code] if code else [str(self.python.with_name(command[0])), *command[1:]]
        (self.folder / "home").mkdir(exist_ok=True)
        ended = subprocess.run(
            argv,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def snapshot(self) -> dict[str, Any]:
        """Return what Dagster's servers know of the project's code location."""
        snapshot: dict[str, Any] = json.loads(self.run(code=SNAPSHOT).splitlines()[-1])
        return snapshot

    def add(self, name: str = "live_parts", *, automation: bool = False) -> Path:
        """Add a component as `dg scaffold` does, with a product that is small; return its folder."""
        self.run("dg", "scaffold", "defs", "driftline.ProductComponent", name)
        folder = self.package / "defs" / name
        text = PRODUCT.read_text(encoding="utf-8")
        (folder / "product.py").write_text(text.replace('name="live_parts"', f'name="{name}"'), encoding="utf-8")
        if automation:
            file = folder / "defs.yaml"
            file.write_text(file.read_text().replace("automation: false", "automation: true"), encoding="utf-8")
        return folder


def project(folder: Path, *, resources: bool = False) -> Host:
    """Make a project like those of `create-dagster`: a package below `src`, with a folder `defs`.

    Args:
        resources: with an IO manager, resources of common names, an executor, and modules `resources` and `sensors`.
    """
    package = folder / "src" / "shop"
    (package / "defs").mkdir(parents=True)
    for place in (package, package / "defs"):
        (place / "__init__.py").touch()
    (folder / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (package / "definitions.py").write_text(dedent(DEFINITIONS), encoding="utf-8")
    (package / "defs" / "assets.py").write_text(ASSETS, encoding="utf-8")
    values = folder / "values"
    values.mkdir()
    text = RESOURCES.replace("FOLDER", repr(str(values)))
    if not resources:
        text = 'import dagster as dg\n\ndefs = dg.Definitions(resources={"store": 10})\n'
    (package / "defs" / "theirs.py").write_text(text, encoding="utf-8")
    if resources:
        for name in ("resources", "sensors"):
            (package.parent / f"{name}.py").write_text(f'NAME = "their {name}"\n', encoding="utf-8")
    return Host(folder, package)


def copied(host: Host, folder: Path) -> Host:
    shutil.copytree(host.folder, folder)
    return Host(folder, folder / host.package.relative_to(host.folder))
