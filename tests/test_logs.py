"""Logs as JSON: one line per record of every process, and an answer that leads to its training by `grep` alone."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.base import logs
from platform_assets.base.settings import Settings, SettingsProblem
from platform_assets.instance import home
from platform_assets.launch.attempt import Observation
from platform_assets.serving.run import child
from platform_assets.training.steps.instructions import PROTOCOL
from tests.doubles.logged_run import CUTOFF, SPEC

pytestmark = pytest.mark.slow

WAIT_S = 600.0
SECRETS = {"AWS_SECRET_ACCESS_KEY": "hidden-5d1f", "DRIFTLINE_ALERTMANAGER": "https://hooks.example/hidden-5d1f"}
REQUEST = {
    "entity": "s1",
    "service_time": "2024-01-02T06:00:00Z",
    "asked_at": "2024-01-02T06:00:00Z",
    "features": {"reading": 301.0, "recent_mean": 291.0, "colour": "red", "weight": 101},
}
Line = dict[str, Any]


def lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def wait_until(is_so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask(url: str, request: dict[str, Any], **headers: str) -> dict[str, Any]:
    body, head = json.dumps(request).encode(), {"Content-Type": "application/json", **headers}
    with urllib.request.urlopen(urllib.request.Request(url, body, head), timeout=WAIT_S) as response:
        answer: dict[str, Any] = json.loads(response.read())
        return answer


@contextmanager
def process(folder: Path, *command: str, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a process whose output is a log in JSON; its settings have secrets."""
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(folder), "DRIFTLINE_LOG_FORMAT": "json"})
    path = folder / f"{'-'.join(command[:3]).replace('/', '_')}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = {**settings.child_environment(), **SECRETS, **variables}
    with path.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=environment) as started:
        try:
            yield started, path
        finally:
            started.send_signal(signal.SIGTERM)
            started.wait(WAIT_S)


@dataclass(frozen=True)
class Followed:
    """The folder of all logs; the run that trained, and the ids of two callers."""

    folder: Path
    run_id: str
    digest: str
    caller: str = "order-4711"
    refused: str = "order-4712"

    def grep(self, *words: str) -> list[Line]:
        found = [line for path in sorted(self.folder.glob("*.log")) for line in path.read_text().splitlines()]
        return [json.loads(line) for line in found if all(word in line for word in words)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the logs, with that of the run that trained; and the run's id."""
    folder = tmp_path_factory.mktemp("logs")
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(folder), "DRIFTLINE_LOG_FORMAT": "json"})
    with (folder / "run.log").open("wb") as log:
        ran = subprocess.run(
            [sys.executable, "-m", "tests.doubles.logged_run"],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**settings.child_environment(), **SECRETS},
            check=False,
        )
    assert ran.returncode == 0, (folder / "run.log").read_text()[-3000:]
    return folder, ran.stdout.decode().strip()


@pytest.fixture(scope="module")
def followed(ran: tuple[Path, str]) -> Followed:
    folder, run_id = ran
    port = child.free_port()
    with process(folder, *child.command(f"{SPEC.name}:latest", port)) as (serving, path):
        url = "http://127.0.0.1:"
        server = child.Server(f"{url}{port}", f"{url}{port + 1}", serving, path)
        server.wait_ready()
        address = f"{server.url}/predict"
        followed = Followed(folder, run_id, "")
        answer = ask(address, REQUEST, **{"X-Request-ID": followed.caller})
        with pytest.raises(urllib.error.HTTPError):
            ask(address, {}, **{"X-Request-ID": followed.refused})
    return Followed(folder, run_id, answer["digest"])


@pytest.mark.costly
def test_every_line_of_a_run_is_json_with_its_product_and_key(ran: tuple[Path, str]) -> None:
    of_runs = lines(ran[0] / "run.log")
    assert len(of_runs) > 100
    assert {line["product"] for line in of_runs if "run_id" in line} == {SPEC.name}
    assert {line["key"] for line in of_runs if line.get("job") == f"advance__{SPEC.name}"} == {"0001...0020"}
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in of_runs)


@pytest.mark.costly
def test_an_answer_is_followed_from_the_callers_id_to_the_training(followed: Followed) -> None:
    (answer,) = followed.grep(followed.caller)
    assert answer["product"] == SPEC.name
    assert (answer["status"], answer["release"], answer["request_id"]) == (200, 1, followed.caller)
    of_model = followed.grep(answer["model"])
    assert followed.digest in {line.get("model") for line in of_model}, "the service says which bundle it is"
    (run_id,) = {line["run_id"] for line in of_model if "run_id" in line}
    assert run_id == followed.run_id
    of_run = followed.grep(run_id)
    assert {(line["product"], line["key"], line["job"]) for line in of_run} == {
        (SPEC.name, CUTOFF, f"retrain__{SPEC.name}")
    }
    steps = [line["message"] for line in of_run if line.get("step") == f"{SPEC.name}__checkpoint"]
    assert any("epoch" in message or "steps" in message for message in steps), steps


@pytest.mark.costly
def test_a_refused_request_has_a_line_too(followed: Followed) -> None:
    (refused,) = followed.grep(followed.refused)
    assert (refused["status"], refused["release"]) == (422, 1)


@pytest.mark.costly
def test_no_log_has_a_secret(followed: Followed) -> None:
    assert followed.grep("hidden-5d1f") == []


@pytest.mark.costly
def test_dagsters_servers_write_json(tmp_path: Path) -> None:
    home.prepare(Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path), "DRIFTLINE_LOG_FORMAT": "json"}))
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    programs = Path(sys.executable).parent
    workspace = ("--workspace", str(tmp_path / "workspace.yaml"))
    web_command = (str(programs / "dagster-webserver"), "--port", str(child.free_port()), *workspace)
    with process(tmp_path, str(programs / "dagster-daemon"), "run", *workspace) as (_, daemon):
        # One after the other: two that make Dagster's tables at the same time fail, and a test waited ten minutes.
        wait_until(lambda: "SensorDaemon" in daemon.read_text())
        with process(tmp_path, *web_command) as (_, web):
            wait_until(lambda: "Serving dagster-webserver" in web.read_text())
            # Before they are ended: Python writes the traceback of a process that is interrupted while it starts.
            of_daemon, of_web = lines(daemon), lines(web)
    assert {"info"} <= {line["level"] for line in of_daemon}
    assert any("Serving dagster-webserver" in line["message"] for line in of_web)


def test_a_step_writes_what_it_tells_its_run_to_its_own_log(tmp_path: Path) -> None:
    log = tmp_path / "step.log"
    program = (
        "import os, sys; os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 2)\n"
        "from platform_assets.training.steps import instructions\n"
        "with instructions.opened() as context: context.log.info('epoch 1')"
    )
    environment = {**os.environ, "DRIFTLINE_LOG_FORMAT": "json", "DRIFTLINE_STATE": str(tmp_path)}

    @dg.asset(name="checkpoint", key_prefix="shop", partitions_def=dg.StaticPartitionsDefinition(["0001"]))
    def trains(context, pipes: dg.ResourceParam[dg.PipesSubprocessClient]) -> Any:  # type: ignore[no-untyped-def]
        command = [sys.executable, "-c", program, str(log)]
        extras = {"protocol": PROTOCOL, "product": "shop"}
        return pipes.run(
            command=command, context=context.op_execution_context, extras=extras, env=environment
        ).get_results()

    result = dg.materialize([trains], partition_key="0001", resources={"pipes": dg.PipesSubprocessClient()})
    (line,) = lines(log)
    del line["time"], line["job"]
    assert line == {
        "level": "info",
        "logger": "dagster-pipes",
        "message": "epoch 1",
        "product": "shop",
        "key": "0001",
        "run_id": result.run_id,
        "step": "shop__checkpoint",
    }
    observed = Observation()
    observed.add_line(log.read_text().rstrip(), logging.getLogger("a run"))  # type: ignore[arg-type]
    assert observed.lines == 0, "it came by Pipes"


@pytest.mark.parametrize(("text", "is_json"), [(None, False), ("", False), ("text", False), ("json", True)])
def test_text_is_the_default(monkeypatch: pytest.MonkeyPatch, text: str | None, is_json: bool) -> None:
    monkeypatch.setattr(logging.StreamHandler, "format", logging.StreamHandler.format)  # put back afterwards
    if text is None:
        monkeypatch.delenv("DRIFTLINE_LOG_FORMAT", raising=False)
    else:
        monkeypatch.setenv("DRIFTLINE_LOG_FORMAT", text)
    assert logs.install() is is_json
    stream = io.StringIO()
    logging.StreamHandler(stream).handle(logging.makeLogRecord({"msg": "as it is"}))
    assert (stream.getvalue() == "as it is\n") is not is_json


def test_another_format_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_LOG_FORMAT", "xml")
    with pytest.raises(SettingsProblem, match="DRIFTLINE_LOG_FORMAT is 'xml'; expected one of text, json"):
        logs.install()


def test_an_exception_is_part_of_its_one_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.getLogger("shop").makeRecord(
            "shop", logging.ERROR, __file__, 1, "it failed: %s", ("no\nrows",), sys.exc_info()
        )
    line = logs.as_json(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["level"], parsed["message"]) == ("error", "it failed: no\nrows")
    assert parsed["exception"].startswith("Traceback")
    assert parsed["exception"].endswith("ValueError: two\nlines")


def test_only_named_fields_of_a_record_are_written() -> None:
    record = logging.makeLogRecord({"msg": "asked", "request_id": "r1", "password": "hidden", "created": 0.0})
    expected = {"time": "1970-01-01T00:00:00Z", "level": "info", "logger": "", "message": "asked", "request_id": "r1"}
    assert json.loads(logs.as_json(record)) | {"level": "info", "logger": ""} == expected
    assert datetime.fromisoformat(expected["time"]) == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("meta", "fields"),
    [
        (
            {"job_name": "advance__shop", "job_tags": {"dagster/partition": "0004"}},
            {"product": "shop", "job": "advance__shop", "key": "0004"},
        ),
        (
            {"job_name": "__ASSET_JOB", "step_key": "shop__features", "job_tags": {}},
            {"product": "shop", "job": "__ASSET_JOB", "step": "shop__features"},
        ),
        ({"job_name": None, "job_tags": None}, {}),
    ],
)
def test_a_record_of_a_run_has_its_product_and_key(meta: Line, fields: Line) -> None:
    line = json.loads(logs.as_json(logging.makeLogRecord({"msg": "x", "dagster_meta": {"orig_message": "m", **meta}})))
    assert {name: line[name] for name in logs.FIELDS if name in line} == fields
    assert line["message"] == "m"
