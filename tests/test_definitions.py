"""The code location loads light, complete and the same everywhere; jobs select by system; the CLI runs a range."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import dagster as dg
import pytest

import platform_assets
import resources
import sensors
from platform_assets import sensors as automated
from platform_assets.automation.factory import STAGES
from platform_assets.automation.resources import Resources
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.definitions import JOBS, build_defs, defs
from platform_assets.engine.store_resource import StoreResource
from platform_assets.launch.launchers import KINDS
from platform_assets.store.tables import TableStore
from resources.launcher import LAUNCHERS
from tests.doubles import numbered_batches as batches

pytestmark = pytest.mark.slow

HEAVY = (
    *("bentoml", "dagster_aws", "dagster_k8s", "deltalake", "kubernetes", "matplotlib", "numpy", "onnx"),
    *("onnxruntime", "pandas", "pandera", "torch"),
)


@pytest.mark.costly
def test_loading_needs_no_environment_and_nothing_heavy(repository: Path) -> None:
    code = f"import sys, platform_assets.definitions; print([name for name in {HEAVY} if name in sys.modules])"
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", code]
    done = subprocess.run(command, cwd=repository, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


def test_every_asset_of_a_product_is_in_the_job_of_its_system() -> None:
    built = build_defs(specs=[batches.SPEC])
    graph = built.resolve_asset_graph()
    for verb, systems in JOBS.items():
        job = built.resolve_job_def(naming.job(verb, batches.SPEC.name))
        groups = {batches.SPEC.group(system) for system in systems}
        watch = batches.SPEC.group(naming.MONITORING)
        expected = {
            key
            for key in graph.materializable_asset_keys
            if graph.get(key).group_name in groups
            and (graph.get(key).group_name != watch or graph.get(key).partitions_def is not None)
        }
        assert job.asset_layer.executable_asset_keys == expected
        assert job.executor_def is dg.in_process_executor


def test_every_stage_is_listed_and_builds_at_least_one_asset() -> None:
    tags = {spec.tags[naming.TAG_STAGE] for spec in build_defs(specs=[batches.SPEC]).resolve_all_asset_specs()}
    assert {module.STAGE for module in STAGES if hasattr(module, "STAGE")} <= tags
    files = Path(str(platform_assets.__file__)).parent.rglob("*.py")
    declared = {str(path) for path in files if "def stages(spec: Product, outside: Outside" in path.read_text("utf-8")}
    assert {module.__file__ for module in STAGES} == declared


def test_keys_of_a_range_share_one_run_and_each_cutoff_has_its_own() -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        group = str(node.group_name)
        if node.partitions_def is not None:
            is_range = node.backfill_policy == dg.BackfillPolicy.single_run()
            assert is_range is group.endswith((f"_{naming.DATA}", f"_{naming.MONITORING}")), key


def test_every_stage_needs_the_store_and_stages_that_start_steps_the_launcher_too() -> None:
    needs = {
        spec.tags[naming.TAG_STAGE]: asset.op.required_resource_keys - {"io_manager"}
        for asset in build_defs(specs=[batches.SPEC]).assets or ()
        if isinstance(asset, dg.AssetsDefinition)
        for spec in asset.specs
    }
    launching = {"checkpoint", "onnx"}
    assert {stage for stage, keys in needs.items() if keys == {naming.STORE, naming.LAUNCHER}} == launching
    assert {stage for stage, keys in needs.items() if keys == {naming.STORE}} == needs.keys() - launching


def test_resources_and_products_can_be_replaced() -> None:
    another = StoreResource(variables={"DRIFTLINE_ROOT": "elsewhere"})
    built = build_defs(specs=[batches.SPEC], resources={"store": another})
    assert not built.resources, "a code location needs none of them"
    bound = built.resolve_job_def(f"advance__{batches.SPEC.name}").resource_defs[naming.STORE]
    assert bound is built.resolve_job_def(f"maintain__{batches.SPEC.name}").resource_defs[naming.STORE]
    with pytest.raises(ValueError, match=r"^resources are named more; expected some of alerts, launcher, store.$"):
        build_defs(specs=[batches.SPEC], resources={"more": 1})
    assert {spec.key.path[0] for spec in built.resolve_all_asset_specs()} == {batches.SPEC.name}
    assert build_defs(specs=[]).resolve_all_asset_specs() == []


def test_every_sensor_runs_by_default_has_a_description_and_its_own_module() -> None:
    built = build_defs(specs=[batches.SPEC], automation=True).sensors or ()
    by_name = {item.name.removeprefix(naming.GUEST): item for item in built}
    guests = build_defs(specs=[batches.SPEC]).sensors or ()
    assert {item.default_status for item in guests} == {dg.DefaultSensorStatus.STOPPED}
    modules = {
        path.stem for path in Path(automated.__file__).parent.glob("*.py") if "@ticks.Sensor(" in path.read_text()
    }
    assert set(by_name) == modules
    for name, sensor in by_name.items():
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING, name
        assert len(sensor.description or "") >= 40, f"{name}: begin its module with what it decides"
        assert (sensor.minimum_interval_seconds or 60) <= 30, name
    assert [job.name for job in by_name["landings"].jobs] == ["advance__numbered_batches"]
    assert [job.name for job in by_name["retrain"].jobs] == ["retrain__numbered_batches"]


def test_the_folders_resources_and_sensors_declare_what_dagster_loads() -> None:
    here = {item.name: item for item in defs.sensors or ()}
    elsewhere = {item.name: item for item in build_defs().sensors or ()}
    assert {row.name for row in sensors.TABLE} == set(here) == set(elsewhere)
    for name, sensor in here.items():
        other = elsewhere[name]
        assert len(sensor.description or "") >= 40, f"{name}: say in the table what it decides"
        assert sensor.minimum_interval_seconds == other.minimum_interval_seconds, name
        assert sensor.default_status == other.default_status, name
        assert (
            sorted(job.name for job in sensor.jobs) == sorted(job.name for job in other.jobs)
            if sensor.has_jobs
            else True
        )
        assert sensor.has_jobs == other.has_jobs, name
    assert {path.stem for path in Path(resources.__file__).parent.glob("*.py")} - {"__init__"} == {
        member.name for member in fields(Resources)
    }
    assert LAUNCHERS == KINDS


MODULE = "tests.doubles.batches_location"


def command(repository: Path, name: str, *args: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name(name))
    return subprocess.run([program, *args], cwd=repository, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.costly
def test_the_cli_runs_a_range_and_dagsters_own_storage_holds_no_data(settings: Settings, repository: Path) -> None:
    batches.land_all(settings.root, "0001", "0005")
    clock.move(settings, batches.SPEC.name, batches.moment("0006"))
    tags = {"dagster/asset_partition_range_start": "0001", "dagster/asset_partition_range_end": "0005"}
    job = ("-m", MODULE, "-j", "advance__numbered_batches")
    done = command(repository, "dagster", "job", "execute", *job, "--tags", json.dumps(tags))
    assert done.returncode == 0, done.stderr[-3000:]
    tables = TableStore(settings.root, batches.SPEC.name)
    assert set(tables.records("features")) == set(batches.GRAIN.span("0001", "0005"))
    storage = settings.dagster_home / "storage"
    assert [path for path in storage.rglob("*") if path.is_file() and "compute_logs" not in path.parts] == []


@pytest.mark.costly
def test_the_webserver_can_show_keys_and_mappings(settings: Settings, repository: Path) -> None:
    query = "{ assetNodes { id partitionStats { numPartitions } dependencies { partitionMapping { description } } } }"
    done = command(repository, "dagster-graphql", "-m", MODULE, "-t", query)
    answer = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert "errors" not in answer
    nodes = answer["data"]["assetNodes"]
    mapped = [node for node in nodes if any(dep["partitionMapping"] for dep in node["dependencies"])]
    assert len(mapped) == 2, "features and checkpoint"
    assert {stats["numPartitions"] for node in nodes if (stats := node["partitionStats"])} == {batches.GRAIN.count}
