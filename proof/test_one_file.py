"""One file means one file: docs/add_a_product.md, executed in a checkout of its own, exactly as printed.

The third product's file is copied in, checked, trained, released, served and removed by the page's own commands.
Nothing is faked: Dagster's command line, training and export as steps, a Bento. Takes some minutes; all tests below
read the results of one fixture.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from platform_assets.engine import product_files
from platform_assets.serving.answer.model import Model
from platform_assets.serving.run.child import free_port
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import TableStore
from tests.doubles import documents
from tests.doubles.checkout import copied
from tests.doubles.products.hourly_temperature import SPEC

PATIENCE_S = 1_200
PAGE = Path(__file__).resolve().parents[1] / "docs" / "add_a_product.md"
MARKER = "<!-- run by proof/test_one_file.py -->"
CUTOFF = "2013-01-09T07"
OTHER = product_files.load_all()[0].name
NAMES = ("copied", "checked", "seen", "trained", "compared", "tuned", "served", "removed")
"""The purpose of each block of the page, in order."""

SNAPSHOT = """
import json, sys
import platform_assets
from platform_assets.definitions import defs

graph = defs.resolve_asset_graph()
snapshot = {
    "place": platform_assets.__file__,
    "assets": {
        spec.key.to_user_string(): [spec.code_version, spec.group_name, spec.tags.get("driftline/stage")]
        for spec in defs.resolve_all_asset_specs()
    },
    "checks": sorted(f"{key.asset_key.to_user_string()} {key.name}" for key in graph.asset_check_keys),
    "jobs": sorted(job.name for job in defs.jobs),
    "sensors": {item.name: sorted(job.name for job in item.jobs) if item.has_jobs else [] for item in defs.sensors},
}
json.dump(snapshot, open(sys.argv[1], "w"))
"""
TICKS = """
import json, sys
import dagster as dg
from platform_assets.definitions import defs

results = {}
with dg.DagsterInstance.ephemeral() as instance:
    for sensor in defs.sensors:
        result = sensor(dg.build_sensor_context(instance=instance))
        results[sensor.name] = (result.skip_reason.skip_message or "") if result.skip_reason else str(result)
json.dump(results, open(sys.argv[1], "w"))
"""


@dataclass(frozen=True)
class Walked:
    """Output and results of the page's commands.

    Attributes:
        checkout: the copy.
        output: text printed by each block.
        bare, with_it, without_it: the definitions before the file was added, with it, and after its removal.
        ticks: the skip reason or requests of each sensor for a fresh store.
    """

    checkout: Path
    output: Mapping[str, str]
    bare: Mapping[str, Any]
    with_it: Mapping[str, Any]
    without_it: Mapping[str, Any]
    ticks: Mapping[str, str]

    @property
    def root(self) -> str:
        return str(self.checkout / ".driftline" / "store")


def blocks() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^{re.escape(MARKER)}\n```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Walked:
    folder = tmp_path_factory.mktemp("one_file")
    checkout = copied(repository, folder / "checkout")
    (checkout / "platform_assets" / "products" / f"{SPEC.name}.py").unlink(missing_ok=True)  # a reader may have kept it
    (folder / "snapshot.py").write_text(SNAPSHOT, encoding="utf-8")
    (folder / "ticks.py").write_text(TICKS, encoding="utf-8")
    look = f"{sys.executable} {folder}/snapshot.py {folder}"
    fresh = f"DRIFTLINE_STATE={folder}/fresh DRIFTLINE_ROOT={folder}/fresh/store"
    ticks = f"{fresh} {sys.executable} {folder}/ticks.py {folder}/ticks.json"
    *before, last = (f"echo '=== {name}'\n{block}" for name, block in zip(NAMES, blocks(), strict=True))
    lines = ["set -eo pipefail", f"{look}/bare.json", *before, "echo '=== looks'", f"{look}/with_it.json", ticks, last]
    (folder / "walk.sh").write_text("\n".join([*lines, f"{look}/without_it.json", ""]), encoding="utf-8")
    with (folder / "output.txt").open("wb") as file:
        ours = ("DRIFTLINE_", "DAGSTER_HOME", "BENTOML_", "PYTEST_")
        others = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        ended = subprocess.run(
            ["bash", str(folder / "walk.sh")],
            cwd=checkout,
            env={**others, "PYTHONPATH": str(checkout), "PORT": str(free_port()), "COLUMNS": "160"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
            check=False,
        )
    text = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
    assert ended.returncode == 0, text[-6_000:]
    parts = re.split(r"^=== (\w+)$", text, flags=re.MULTILINE)[1:]
    results = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("bare", "with_it", "without_it", "ticks")
    }
    return Walked(checkout=checkout, output=dict(zip(parts[::2], parts[1::2], strict=True)), **results)


def of(product: str, names: Any) -> set[str]:
    """Return names without the product's, for comparing two products."""
    return {name.replace(product, "*") for name in names if product in name}


# The page ------------------------------------------------------------------------------------------------------------


def test_every_block_of_the_page_is_run() -> None:
    assert PAGE.read_text(encoding="utf-8").count("```bash") == len(blocks()) == len(NAMES)


def test_the_page_states_the_length_of_the_file(repository: Path) -> None:
    lines = (repository / "tests/doubles/products/hourly_temperature.py").read_text(encoding="utf-8").splitlines()
    assert f"[{len(lines)} lines](../tests/doubles/products/hourly_temperature.py)" in PAGE.read_text(encoding="utf-8")
    assert len(lines) < 200


# With the file -------------------------------------------------------------------------------------------------------


def test_the_copy_is_what_ran_and_not_the_installed_checkout(walked: Walked) -> None:
    assert Path(walked.with_it["place"]).is_relative_to(walked.checkout)
    assert Path(walked.without_it["place"]).is_relative_to(walked.checkout)


def test_the_check_passes(walked: Walked) -> None:
    lines = walked.output["checked"].strip().splitlines()
    assert lines[0] == SPEC.name
    assert len(lines) > 8
    notes = [line.split()[1] for line in lines[1:] if not line.startswith("  ok  ")]
    assert notes == ["clock"], "it is a recording, which ended years ago"


def test_the_product_has_every_stage_check_and_job_of_another_product(walked: Walked) -> None:
    stages = {name: set() for name in (SPEC.name, OTHER)}
    for asset, (_, group, stage) in walked.with_it["assets"].items():
        product = asset.split("/")[0]
        if product in stages:
            stages[product].add((stage, group.rpartition("_")[2]))
    assert stages[SPEC.name] == stages[OTHER]
    keyed = {f"{SPEC.name}/validated_{source.name}" for source in SPEC.sources}
    assert keyed <= set(walked.with_it["assets"])
    assert of(SPEC.name, walked.with_it["jobs"]) == of(OTHER, walked.with_it["jobs"]) != set()
    kinds = [{check.split()[-1] for check in walked.with_it["checks"] if name in check} for name in (SPEC.name, OTHER)]
    assert kinds[0] == kinds[1] != set()


def test_every_sensor_that_watches_another_product_watches_this_one(walked: Walked) -> None:
    for sensor, jobs in walked.with_it["sensors"].items():
        assert of(SPEC.name, jobs) == of(OTHER, jobs), sensor
    naming = {sensor for sensor, message in walked.ticks.items() if SPEC.name in message}
    assert naming == {sensor for sensor, message in walked.ticks.items() if OTHER in message}
    assert {"landings", "retrain", "freshness"} <= naming


def test_the_command_lines_name_the_product(walked: Walked) -> None:
    assert f"{SPEC.name}/features" in walked.output["seen"]
    assert f"{SPEC.name}: {SPEC.title}" in walked.output["seen"]
    assert "none yet" in walked.output["seen"]


def test_files_of_the_product_are_taken_in_and_its_features_built(walked: Walked) -> None:
    tables = TableStore(walked.root, SPEC.name)
    keys = SPEC.grain.before(CUTOFF)
    assert f"{2 * len(keys) - 1} files landed; the next key is {CUTOFF}" in walked.output["trained"]
    assert {key: record.rows for key, record in tables.records("features").items()} == dict.fromkeys(keys, 3)
    assert set(tables.records("outcomes")) == set(keys[:-1])


def test_a_real_model_is_trained_judged_and_released(walked: Walked) -> None:
    ledgers = Ledgers(walked.root, SPEC.name)
    number, release = ledgers.latest("releases")
    assert (number, release["cutoff"], release["outcome"]) == (1, CUTOFF, "released")
    verdict = ledgers.read("verdicts", documents.live_digest(release))
    losses = {name: numbers["log_loss"] for name, numbers in verdict["models"].items()}
    assert verdict["passed"] is True, verdict["reasons"]
    assert losses["challenger"] < losses["baseline linear"] < losses["baseline constant"]
    assert verdict["models"]["challenger"]["r2"] < 0.95, "better than the data allow: look for a leak"
    assert documents.live_digest(release)[:12] in walked.output["trained"]


def test_a_search_ends_with_its_best_settings(walked: Walked) -> None:
    assert re.findall(r"^trial (\d): loss", walked.output["tuned"], re.MULTILINE) == ["1", "2", "3", "4"]
    assert "4 trials, 0 ended early, 0 failed; " in walked.output["tuned"]
    is_better = "the best is trial" in walked.output["tuned"]
    assert (f"driftline train {SPEC.name} --cutoff {CUTOFF} --set " in walked.output["tuned"]) is is_better


def test_a_service_answers_with_a_value_and_its_spread(walked: Walked) -> None:
    (line,) = [line for line in walked.output["served"].splitlines() if '"prediction_id"' in line]
    answer = json.loads(line[line.index("{") : line.rindex("}") + 1])
    _, release = Ledgers(walked.root, SPEC.name).latest("releases")
    assert answer["digest"] == documents.live_digest(release)
    assert 0 < answer["value"] < 90
    assert 0 < answer["spread"] < 20


# Without the file ----------------------------------------------------------------------------------------------------


def test_without_the_file_the_graph_has_no_trace_of_the_product(walked: Walked) -> None:
    assert not (walked.checkout / "platform_assets" / "products" / f"{SPEC.name}.py").exists()
    assert SPEC.name not in json.dumps(
        {name: walked.without_it[name] for name in ("assets", "checks", "jobs", "sensors")}
    )
    assert f"{SPEC.name}: {SPEC.title}" not in walked.output["removed"]
    assert f"{OTHER}: " in walked.output["removed"]


def test_the_other_products_are_unchanged(walked: Walked) -> None:
    others = {name: asset for name, asset in walked.with_it["assets"].items() if SPEC.name not in name}
    assert others == walked.bare["assets"], "the same assets with the same code versions"
    assert walked.without_it == walked.bare
    assert not (Path(walked.root) / "tables" / OTHER).exists()


def test_history_of_the_product_stays_readable(walked: Walked) -> None:
    _, release = Ledgers(walked.root, SPEC.name).latest("releases")
    model = Model.load(ArtifactStore(walked.root), documents.live_digest(release))
    assert model.contract.product == SPEC.name
    assert f"1 {model.digest}" in walked.output["removed"]
    features = TableStore(walked.root, SPEC.name).read("features", [SPEC.grain.shift(CUTOFF, -1)])
    assert features["station"].to_list() == ["EWR", "JFK", "LGA"]
    assert "shape: (3, " in walked.output["removed"]
