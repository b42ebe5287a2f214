"""A broken file, a store that is not there, and another package than the run's: a sentence, and a host that works."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster_pipes import encode_param

from tests.doubles import hosts
from tests.doubles.hosts import Host

pytestmark = pytest.mark.slow

PRODUCT = "live_parts"
KEY = "0001"
CONTEXT = {
    **dict.fromkeys(("asset_keys", "code_version_by_asset_key", "provenance_by_asset_key", "partition_key")),
    **dict.fromkeys(("partition_key_range", "partition_time_window", "job_name")),
    "run_id": "run",
    "retry_number": 0,
}
HELPERS = "SCALE = 1.0\n\n\ndef settings():\n    return {'widths': (32,), 'dropout': 0.0}\n"
VERSIONS = """
import json
from shop.definitions import defs

print(json.dumps({
    "/".join(spec.key.path): spec.code_version
    for spec in defs().resolve_all_asset_specs() if spec.key.path[0] == "live_parts"
}))
"""
EXTRAS = """
import json
from platform_assets.engine import product_files
from platform_assets.training import libraries
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.steps import instructions
from platform_assets.training.steps.jobs import Job

SPEC = product_files.load_of("live_parts", "shop.defs.live_parts.product")
job = Job(
    product=SPEC.name, module=SPEC.module, cutoff="0002", device="cpu", precision="float32", fingerprint="0" * 64,
    training_keys=[], holdout_keys=[], features={}, outcomes={},
)
maker = Learning.for_product(SPEC)
print(json.dumps(instructions.to_extras(job, maker, libraries.installed())))
"""
DEFINED = """
import json
from shop.definitions import defs

graph = defs().resolve_asset_graph()
print(json.dumps({
    "assets": sorted("/".join(key.path) for key in graph.get_all_asset_keys()),
    "error": {"/".join(spec.key.path): spec.metadata["error"]
              for spec in defs().resolve_all_asset_specs() if "error" in spec.metadata},
}))
"""
TICK = """
import dagster as dg
from shop.definitions import defs

defs = defs()
sensor = next(item for item in defs.get_repository_def().sensor_defs if item.name == "driftline_landings")
result = sensor(dg.build_sensor_context(instance=dg.DagsterInstance.ephemeral(), sensor_name=sensor.name))
assert not result.run_requests
print(result.skip_reason.skip_message)
"""
DG = str(Path(sys.executable).with_name("dg"))
NO_BUCKET = {
    "DRIFTLINE_ROOT": "s3://nowhere/store",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ALLOW_HTTP": "true",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = hosts.project(tmp_path / "shop")
    product = host.add(PRODUCT) / "product.py"
    text = product.read_text(encoding="utf-8")
    text = text.replace("from driftline import", "from shop.helpers import SCALE, settings\nfrom driftline import", 1)
    text = text.replace('            "width",\n', '            pl.col("width") * SCALE,\n', 1)
    text = text.replace("TabularNet(learned, **training.settings)", "TabularNet(learned, **settings())", 1)
    assert text.count("SCALE") == 2
    assert "**settings()" in text
    product.write_text(text, encoding="utf-8")
    (host.package / "helpers.py").write_text(HELPERS, encoding="utf-8")
    return host


def failing(host: Host, *command: str, code: str = "", **more: str) -> str:
    argv = [sys.executable, "-c", code] if code else command
    ended = subprocess.run(
        argv,
        cwd=host.folder,
        env={**host.environment, **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ended.returncode != 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.costly
def test_the_digests_cover_what_a_product_imports_of_the_hosts_package_and_nothing_else(host: Host) -> None:
    def versions() -> dict[str, str]:
        read: dict[str, str] = json.loads(host.run(code=VERSIONS).splitlines()[-1])
        return read

    before = versions()
    for file in ("defs/assets.py", "__init__.py", "other.py"):
        with (host.package / file).open("a", encoding="utf-8") as module:
            module.write("\nOTHER = 1\n")
    assert versions() == before
    (host.package / "helpers.py").write_text(HELPERS.replace("1.0", "2.0").replace("32", "16"), encoding="utf-8")
    changed = {name.partition("/")[2] for name, digest in versions().items() if digest != before[name]}
    assert {"features", "checkpoint"} <= changed
    assert not {name for name in changed if name.startswith(("raw", "validated", "outcomes", "quarantine"))}


@pytest.mark.costly
def test_a_step_refuses_another_package_than_the_runs(host: Host, tmp_path: Path) -> None:
    extras = json.loads(host.run(code=EXTRAS).splitlines()[-1])
    pipes = {
        "DAGSTER_PIPES_CONTEXT": encode_param({"data": {**CONTEXT, "extras": extras}}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(tmp_path / "messages")}),
    }
    step = (sys.executable, "-m", "platform_assets.launch.train")
    same = failing(host, *step, **pipes)
    assert "OtherCode" not in same
    assert "was read without any key" in same
    (host.package / "helpers.py").write_text(HELPERS.replace("32", "16"), encoding="utf-8")
    last = failing(host, *step, **pipes).strip().splitlines()[-1]
    assert last.startswith(
        "platform_assets.training.steps.instructions.OtherCode: the code of this step differs from that of the run "
        "that started it; different or missing here: "
    )
    assert "build the image again" in last


def broken(host: Host) -> str:
    """Break the product's file; return the sentence about it."""
    product = host.package / "defs" / PRODUCT / "product.py"
    product.write_text("1 / 0\n", encoding="utf-8")
    return f"{product}, line 1, cannot be loaded: ZeroDivisionError: division by zero."


@pytest.mark.costly
def test_a_broken_file_costs_the_host_nothing_and_one_asset_says_why(host: Host) -> None:
    whole = json.loads(host.run(code=DEFINED).splitlines()[-1])
    sentence = broken(host)
    left = json.loads(host.run(code=DEFINED).splitlines()[-1])
    theirs = [name for name in whole["assets"] if not name.startswith(PRODUCT)]
    assert left["assets"] == sorted([*theirs, f"{PRODUCT}/broken_file"])
    assert left["error"] == {f"{PRODUCT}/broken_file": sentence}
    host.run("dg", "launch", "--job", host.job)


@pytest.mark.costly
def test_a_check_and_a_run_of_a_broken_file_say_what_is_wrong(host: Host) -> None:
    sentence = broken(host)
    checked = failing(host, DG, "check", "defs")
    assert "".join(sentence.split()) in "".join(checked.split())
    output = failing(host, DG, "launch", "--assets", f"{PRODUCT}/broken_file")
    assert sentence in output


@pytest.fixture(params=["folder", "bucket"])
def away(request: pytest.FixtureRequest, host: Host) -> Iterator[tuple[dict[str, str], str]]:
    """The variables of a store that is not there, and the start of the sentence about it."""
    if request.param == "bucket":
        yield NO_BUCKET, "s3://nowhere/store"
        return
    (host.folder / "file").touch()
    place = host.folder / "file" / "store"
    yield {"DRIFTLINE_ROOT": str(place)}, f"the folder {place} cannot be made: "


def output(host: Host, variables: dict[str, str], *argv: str) -> str:
    environment = {**host.environment, **variables}
    ended = subprocess.run(
        argv, cwd=host.folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.costly
def test_without_its_store_the_host_loads_and_its_own_run_works(host: Host, away: tuple[dict[str, str], str]) -> None:
    variables, _ = away
    output(host, variables, DG, "check", "defs")
    output(host, variables, DG, "launch", "--job", host.job)


@pytest.mark.costly
def test_without_its_store_a_tick_and_a_run_say_so(host: Host, away: tuple[dict[str, str], str]) -> None:
    variables, sentence = away
    (line,) = output(host, variables, sys.executable, "-c", TICK).splitlines()
    assert line.startswith(f"{PRODUCT}: could not be read: ")
    assert sentence in line
    failed = failing(host, DG, "launch", "--job", f"advance__{PRODUCT}", "--partition", KEY, **variables)
    assert sentence in failed, failed
