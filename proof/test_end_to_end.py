"""The whole demo, twice: first on a terminal until Ctrl-C, then without one on the store of the first run.

Nothing is faked: Dagster's webserver and daemon with its sensors, training and export as steps, a Bento, its
service, real data, a few replayed keys with an injected fault.
Results are asserted, never times. Takes some minutes; all tests below read the results of one fixture.
"""

import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import httpx
import psutil
import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.demo import replay, script, servers
from platform_assets.demo.processes import Children
from platform_assets.engine import product_files
from platform_assets.operations import status, trace
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.attempts import ATTEMPTS, unique_attempts
from platform_assets.store.tables import TableStore
from tests.doubles import documents

PATIENCE_S = 1_500
COUNT, SEED = 3, 4
PRODUCT = "flight_delays"
COMMAND = [sys.executable, "-m", "platform_assets.cli", "demo", PRODUCT, "--keys", str(COUNT), "--seed", str(SEED)]
SPEC = product_files.load(PRODUCT)
PLAN = script.plan(SPEC, count=COUNT, seed=SEED)
FAULTY = replay.inject(SPEC, PLAN.injected)
CUTOFF, END = PLAN.keys[0], SPEC.grain.shift(PLAN.keys[-1], 1)
KEYS = SPEC.grain.before(END)
LABELLED = replay.labelled_keys(SPEC, END)


@dataclass
class Played:
    """Output, results and files of two runs of the demo."""

    settings: Settings
    first: str = ""
    first_status: int = -1
    curl: str = ""
    answer: dict = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    sequences: dict[str, dict[str, int]] = field(default_factory=dict)
    logged: int = 0
    runs: list[dg.DagsterRun] = field(default_factory=list)
    second: str = ""
    second_status: int = -1

    @property
    def tables(self) -> TableStore:
        return TableStore(self.settings.root, SPEC.name)

    @property
    def ledgers(self) -> Ledgers:
        return Ledgers(self.settings.root, SPEC.name)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Played:
    folder = tmp_path_factory.mktemp("demo")
    played = Played(Settings(root=str(folder / "store"), state=folder))
    environment = played.settings.child_environment({"TERM": "xterm-256color", "COLUMNS": "160", "LINES": "50"})
    # On a terminal of its own: its curl command is pasted into a shell, and Ctrl-C ends it.
    screen, terminal = pty.openpty()
    with subprocess.Popen(
        COMMAND,
        env=environment,
        cwd=repository,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=_hear_ctrl_c,
    ) as demo:
        os.close(terminal)
        os.set_blocking(screen, False)
        try:
            played.first = _read_until("Ctrl-C ends it.", screen, demo)
            played.curl = next(line for line in played.first.splitlines() if line.startswith("curl "))
            pasted = subprocess.run(["bash", "-c", played.curl], capture_output=True, text=True, check=True)
            played.answer = json.loads(pasted.stdout)
        finally:
            demo.send_signal(signal.SIGINT)
            played.first_status = demo.wait(PATIENCE_S)
            os.close(screen)
    played.left_over = _processes_of(folder)
    played.sequences, played.logged = _sequences(played.tables), len(_logged(played))
    second = subprocess.run(
        COMMAND, env=environment, cwd=repository, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    played.second, played.second_status = second.stdout + second.stderr, second.returncode
    played.left_over += _processes_of(folder)
    with dg.DagsterInstance.from_config(str(played.settings.dagster_home)) as instance:
        played.runs = list(instance.get_runs())
    return played


def _hear_ctrl_c() -> None:
    """Undo what a shell does to a background job, whose children would never receive Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read_until(text: str, screen: int, demo: subprocess.Popen[bytes]) -> str:
    """Return the terminal's output up to some text."""
    output, deadline = bytearray(), time.monotonic() + PATIENCE_S
    while text.encode() not in output:
        assert time.monotonic() < deadline, f"the demo never printed {text!r}:\n{_text(output)[-3000:]}"
        try:
            output += os.read(screen, 1 << 16)
        except BlockingIOError:
            assert demo.poll() is None, f"the demo ended early:\n{_text(output)[-3000:]}"
            time.sleep(0.2)
    return _text(output)


def _text(output: bytearray) -> str:
    return output.decode(errors="replace").replace("\r\n", "\n")


def _processes_of(folder: Path) -> list[str]:
    commands = []
    for process in psutil.process_iter(["environ", "cmdline", "status"]):
        is_ours = (process.info["environ"] or {}).get("DRIFTLINE_STATE", "").startswith(str(folder))
        if is_ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            commands.append(" ".join(process.info["cmdline"] or []))
    return commands


def _sequences(tables: TableStore) -> dict[str, dict[str, int]]:
    stages = [
        naming.stage(stage, source.name) for stage in ("raw", "validated", "quarantine") for source in SPEC.sources
    ]
    stages += ["features", "outcomes", "predictions", "performance", "drift", "decision"]
    stages += ["checkpoint", "onnx", "evaluation", "service"]
    return {stage: {key: record.sequence for key, record in tables.records(stage).items()} for stage in stages}


def _logged(played: Played) -> list[dict]:
    logs = (played.settings.prediction_log / SPEC.name).rglob("*.jsonl")
    return [json.loads(line) for log in logs for line in log.read_text(encoding="utf-8").splitlines()]


# The first time ------------------------------------------------------------------------------------------------------


def test_first_run_ends_by_ctrl_c_without_an_error(played: Played):
    assert played.first_status == 0


def test_every_landed_row_is_either_good_or_quarantined(played: Played):
    for source in SPEC.sources:
        raw, good, bad = (
            played.tables.records(naming.stage(stage, source.name)) for stage in ("raw", "validated", "quarantine")
        )
        expected = (naming.UNPARTITIONED,) if source.is_slow else LABELLED if source.is_label else KEYS
        assert tuple(raw) == tuple(good) == tuple(bad) == tuple(expected)
        assert all(raw[key].rows == good[key].rows + bad[key].rows for key in raw)


def test_released_model_beats_its_baselines(played: Played):
    record = played.ledgers.at(naming.RELEASES, 1)
    assert (record["cutoff"], record["outcome"]) == (CUTOFF, "released")
    verdict = played.ledgers.read(naming.VERDICTS, documents.live_digest(record))
    losses = {name: numbers["log_loss"] for name, numbers in verdict["models"].items()}
    assert verdict["passed"]
    assert losses["challenger"] < losses["baseline linear"] < losses["baseline constant"]
    assert verdict["models"]["challenger"]["auc"] < 0.83, "better than the data allow: look for a leak"


def test_every_entity_of_every_key_is_answered_once_by_the_released_model(played: Played):
    digest = documents.live_digest(played.ledgers.at(naming.RELEASES, 1))
    entities = [request["entity"] for key in PLAN.keys for request in replay.requests(FAULTY, key)]
    logged = {row["prediction_id"]: row for row in _logged(played)}
    assert sorted(row["entity"] for row in logged.values()) == sorted(entities)
    assert {row["digest"] for row in logged.values()} == {digest}


def test_every_answer_is_taken_in_exactly_once(played: Played):
    taken_in = played.tables.read("predictions", PLAN.keys, columns=["prediction_id"])["prediction_id"]
    assert taken_in.n_unique() == len(taken_in)
    assert set(taken_in) == {row["prediction_id"] for row in _logged(played)}


def test_answers_are_joined_with_their_outcomes_once_known(played: Played):
    measured = {key: record.notes for key, record in played.tables.records("performance", PLAN.keys).items()}
    assert [measured[key]["labelled"] > 0 for key in PLAN.keys] == [key in LABELLED for key in PLAN.keys]
    first = measured[CUTOFF]
    assert 0.5 < first["quality"]["auc"] < 0.83
    assert first["skew"]["share"] == 1.0, "the served features equal those of the platform"


def test_fault_is_named_on_each_of_its_keys_and_on_no_sound_key(played: Played):
    assert PLAN.injected is not None
    decisions = {key: played.ledgers.read(naming.DECISIONS, key) for key in PLAN.keys}
    accused = [key for key, decision in decisions.items() if decision["action"] == "alert_fault"]
    assert accused == list(PLAN.injected.keys)
    for key in accused:
        _, fault = played.ledgers.latest(f"{naming.FAULTS}/{key}")
        assert (fault["kind"], fault["source"], fault["check"]) == (
            "fault",
            PLAN.injected.kind.source,
            PLAN.injected.kind.check,
        )
    assert f"{PLAN.injected.kind.source} of {', '.join(PLAN.injected.keys)}. Expected" in played.first


def test_printed_command_gives_the_first_answer_again(played: Played):
    first = replay.requests(SPEC, CUTOFF)[0]
    assert played.answer["entity"] == first["entity"]
    logged = {row["prediction_id"]: row["probability"] for row in _logged(played)}
    assert logged[played.answer["prediction_id"]] == pytest.approx(played.answer["probability"], abs=1e-9)


def test_answer_is_traced_back_to_the_files_that_landed(played: Played):
    result = trace.of_prediction(ProductStore(SPEC, played.settings), played.answer["prediction_id"])
    assert result.answer["key"] == CUTOFF
    assert result.verdict.passed
    tries = [(attempt.step, attempt.reason) for attempt in result.training.attempts]
    assert tries == [("train", "finished"), ("export", "finished")]
    files = {(source.source, source.key): source.file.sha256 for source in result.features.sources}
    assert len(files) > SPEC.lookback
    for (source, key), sha256 in files.items():
        location = naming.landing_location(
            played.settings.root, f"{SPEC.name}/{source}", key, SPEC.source(source).suffix
        )
        assert hashlib.sha256(Path(location).read_bytes()).hexdigest() == sha256


def test_dagster_shows_every_key_and_stores_no_data(played: Played):
    with dg.DagsterInstance.from_config(str(played.settings.dagster_home)) as instance:
        key = dg.AssetKey(naming.asset_key(SPEC.name, "features"))
        assert set(instance.get_materialized_partitions(key)) == set(KEYS)
        assert (
            instance.get_latest_materialization_event(dg.AssetKey(naming.asset_key(SPEC.name, "release"))) is not None
        )
    suffixes = {path.suffix for path in (played.settings.dagster_home / "storage").rglob("*") if path.is_file()}
    assert suffixes <= {".out", ".err", ".complete"}


def test_every_run_was_launched_by_a_sensor_and_succeeded_except_for_held_keys(played: Played):
    assert [run.run_id for run in played.runs if "dagster/sensor_name" not in run.tags] == []
    verify = naming.job("verify", SPEC.name)
    assert {run.status for run in played.runs if run.job_name != verify} == {dg.DagsterRunStatus.SUCCESS}
    # On a slow machine it may start after the key was given up, and then passes.
    ends = {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS}
    assert {run.status for run in played.runs if run.job_name == verify} <= ends
    launched = Counter((run.job_name, run.tags["dagster/sensor_name"]) for run in played.runs)
    assert launched[naming.job("retrain", SPEC.name), "retrain"] == 1
    assert launched[naming.job("advance", SPEC.name), "landings"] > COUNT
    assert launched[verify, "held_keys"] == 1, "one episode"
    assert len(launched) == 3


def test_demo_prints_one_line_per_day_the_status_and_the_report(played: Played):
    assert re.findall(r"^(\d{4}-\d{2}-\d{2})  .* answered", played.first, re.MULTILINE) == list(PLAN.keys)
    state = status.as_text(status.of_product(ProductStore(SPEC, played.settings)))
    for text in (state.splitlines()[0], f"{SPEC.name}.html", "http://127.0.0.1:"):
        assert text in played.first


def test_report_begins_with_the_fault(played: Played):
    assert PLAN.injected is not None
    page = (played.settings.state / "reports" / f"{SPEC.name}.html").read_text(encoding="utf-8")
    assert f"Faulty delivery: {PLAN.injected.kind.source} of {PLAN.injected.keys[0]}" in page
    assert page.index("Faulty delivery: ") < page.index("Quality per day")
    for key in PLAN.injected.keys:
        assert f"Held: {key}" in page or f", {key}" in page, "the top names held days"
    assert "<script" not in page


# The second time -----------------------------------------------------------------------------------------------------


def test_second_run_ends_by_itself(played: Played):
    assert played.second_status == 0, played.second[-3000:]
    assert "Ctrl-C" not in played.second


def test_second_run_asks_nothing_again(played: Played):
    assert not re.findall(r"^.*  .* answered", played.second, re.MULTILINE)
    assert len(_logged(played)) == played.logged


def test_second_run_makes_nothing_again(played: Played):
    assert _sequences(played.tables) == played.sequences
    assert played.ledgers.latest(naming.RELEASES)[0] == 1
    tries = [record for _, record in unique_attempts(played.ledgers.of(ATTEMPTS).records())]
    assert sorted((attempt.step, attempt.reason) for attempt in tries) == [
        ("export", "finished"),
        ("train", "finished"),
    ]


def test_no_process_is_left_behind(played: Played):
    assert played.left_over == []


# A webserver on their results -------------------------------------------------------------------------------------


LAUNCH = """
mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } } }
"""


def test_a_cutoff_picked_and_materialised_in_the_ui_is_trained(played: Played):
    cutoff = SPEC.grain.shift(CUTOFF, -1)
    selector = {
        "repositoryLocationName": "driftline",
        "repositoryName": "__repository__",
        "jobName": "__ASSET_JOB",
        "assetSelection": [{"path": naming.asset_key(SPEC.name, "checkpoint")}],
        "assetCheckSelection": [],
    }
    tags = [{"key": "dagster/partition", "value": cutoff}]
    params = {"selector": selector, "runConfigData": {}, "mode": "default", "executionMetadata": {"tags": tags}}
    with (
        Children(played.settings.child_environment(), played.settings.state / "logs") as children,
        servers.dagster(played.settings, children) as (address, instance),
    ):
        query = {"query": LAUNCH, "variables": {"params": params}}
        launched = httpx.post(f"{address}/graphql", json=query, timeout=60).json()["data"]["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        deadline = time.monotonic() + PATIENCE_S
        while not (run := instance.get_run_by_id(launched["run"]["runId"])).is_finished:
            assert time.monotonic() < deadline, run
            time.sleep(0.5)
        assert run.is_success
        assert any("epoch 1 of" in entry.message for entry in instance.all_logs(run.run_id))
    assert set(played.tables.records("checkpoint")) == {cutoff, CUTOFF}
