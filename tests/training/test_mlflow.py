"""Trainings reach a real MLflow server once, whole; a dead, slow or wrong one costs a warning and no training.

What a sound server does not answer is answered by a stand-in for it, `Played`.
"""

import functools
import io
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import polars as pl
import pytest
from rich.console import Console

from platform_assets.base.settings import MLFLOW_VARIABLES, Settings
from platform_assets.operations import mlflow
from platform_assets.operations.experiments import train
from platform_assets.serving.run.child import free_port
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.trainings import Training
from platform_assets.store.tables import TableStore
from tests.doubles import tiny_product as tiny

pytestmark = pytest.mark.slow

STARTS_S = 180.0
PYTHON = os.environ.get("DRIFTLINE_MLFLOW_PYTHON")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server of the virtual environment that DRIFTLINE_MLFLOW_PYTHON names."""
    if PYTHON is None:
        pytest.skip("needs MLflow's server: DRIFTLINE_MLFLOW_PYTHON names no Python that has it")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [
        *(PYTHON, "-m", "mlflow", "server", "--workers=1", "--host=127.0.0.1", f"--port={port}"),
        *(f"--backend-store-uri=sqlite:///{folder}/runs.db", f"--artifacts-destination={folder}/files"),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **quiet}, start_new_session=True)
    address, began_s = f"http://127.0.0.1:{port}", time.monotonic()
    try:
        while not _answers(address):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() - began_s < STARTS_S, (folder / "log").read_text()[-2000:]
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=2.0).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> ProductStore:
    folder = tmp_path_factory.mktemp("exported")
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    tiny.store(settings)
    outcomes = {key: pl.DataFrame({"key": [key], "known_at": [tiny.KNOWN_AT]}) for key in tiny.KEYS}
    for stage in ("validated_facts", "validated_outcomes"):
        TableStore(settings.root, "tiny").replace(stage, outcomes, inputs={key: {} for key in outcomes}, code="0")
    return ProductStore(tiny.SPEC, settings)


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MLFLOW_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mlflow, "_warned", set())


def trained(product: ProductStore) -> tuple[Training, str]:
    """Return a training's record, and what was printed; the second call finds the first one's."""
    out = io.StringIO()
    return train.run(product, tiny.CUTOFF, ["epochs=3"], Console(file=out, width=400)), out.getvalue()


def test_a_training_and_its_graph_are_in_mlflow_once(
    product: ProductStore, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    (record, printed), _again = trained(product), trained(product)
    assert "MLFLOW" not in printed
    bundle = ArtifactStore(product.settings.root).write_bundle({"model.onnx": b"a graph"}, {"product": "tiny"})
    warnings: list[str] = []
    mlflow.attach(product, record.checkpoint, bundle, warnings.append)
    assert warnings == []

    def call(method: str, path: str, **arguments: Any) -> Any:
        return httpx.request(method, f"{server}/api/2.0/{path}", timeout=60.0, **arguments)

    experiment = call("GET", "mlflow/experiments/get-by-name", params={"experiment_name": "driftline/tiny"}).json()
    identifier = experiment["experiment"]["experiment_id"]
    (run,) = call("POST", "mlflow/runs/search", json={"experiment_ids": [identifier]}).json()["runs"]
    assert run["info"]["status"] == "FINISHED"
    parameters = {item["key"]: item["value"] for item in run["data"]["params"]}
    assert (parameters["training.epochs"], parameters["learner"], parameters["cutoff"]) == ("3", "Network", tiny.CUTOFF)
    metrics = {item["key"]: item["value"] for item in run["data"]["metrics"]}
    assert metrics["auc"] == pytest.approx(record.quality["auc"])
    assert metrics["cpu_s"] == pytest.approx(record.cpu_s)
    tags = {item["key"]: item["value"] for item in run["data"]["tags"]}
    assert (tags["driftline.code"], tags["driftline.data"]) == (record.code, record.data)
    run_id = run["info"]["run_id"]
    curve = call("GET", "mlflow/metrics/get-history", params={"run_id": run_id, "metric_key": "train_loss"}).json()
    points = [(int(point["step"]), point["value"]) for point in curve["metrics"]]
    assert points == [(point["epoch"], pytest.approx(point["train_loss"])) for point in record.curve]
    path = run["info"]["artifact_uri"].removeprefix("mlflow-artifacts:").lstrip("/")
    assert call("GET", f"mlflow-artifacts/artifacts/{path}/model.onnx").content == b"a graph"


def test_without_a_server_nothing_is_called(product: ProductStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "Server", None)
    assert "MLFLOW" not in trained(product)[1]


@pytest.mark.parametrize("kind", ["dead", "silent", "drips", "file", "wrong"])
def test_a_server_that_does_not_work_is_named_once(product: ProductStore, kind: str, monkeypatch: pytest.MonkeyPatch):
    if kind in ("silent", "drips"):
        monkeypatch.setattr(mlflow, "DEADLINE_S", 1.0)
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        replies = {"drips": b"HTTP/1.1 200 OK\r\nX: ", "wrong": b"HTTP/1.1 418 No\r\nContent-Length: 3\r\n\r\ntea"}
        address, expected = {
            "dead": (f"http://u:secret@127.0.0.1:{free_port()}", "refused"),
            "silent": (f"http://u:secret@127.0.0.1:{port}", "it has not answered within 1 s"),
            "drips": (f"http://u:secret@127.0.0.1:{port}", "it has not answered within 1 s"),
            "file": ("file:///tmp/runs", "expected an address with http:// or https://"),
            "wrong": (f"http://u:secret@127.0.0.1:{port}", "experiments/get-by-name got 418"),
        }[kind]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        if kind in replies:
            threading.Thread(target=_reply, args=(listening, replies[kind], is_over), daemon=True).start()
        record, printed = trained(product)
        mlflow.export(product, record.fingerprint, pytest.fail)
        is_over.set()
    assert record.checkpoint
    assert printed.count("MLFLOW_TRACKING_URI is ") == 1
    assert expected in printed
    assert "secret" not in printed


def _reply(listening: socket.socket, data: bytes, is_over: threading.Event) -> None:
    """Answer one caller, and keep the connection until the test is over."""
    connection, _ = listening.accept()
    connection.recv(65_536)
    connection.sendall(data)
    is_over.wait(60)
    connection.close()


@dataclass
class Played:
    """Plays the calls of MLflow's API that Driftline uses, in memory, with one experiment.

    Attributes:
        other: answers by method of the API, in place of the sound ones.
        runs: by number, the runs that were made and not deleted.
        calls: methods that were called, in order.
        callers: the `Authorization` headers that came.
    """

    other: dict[str, httpx.Response] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    callers: set[str] = field(default_factory=set)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        method = request.url.path.removeprefix("/api/2.0/mlflow/")
        self.calls.append(method)
        self.callers.add(request.headers.get("Authorization", ""))
        body = json.loads(request.content) if request.content and request.method == "POST" else {}
        return self.other.get(method) or httpx.Response(200, json=self._sound(method, body))

    def _sound(self, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if method == "experiments/get-by-name":
            return {"experiment": {"experiment_id": "7"}}
        if method == "experiments/create":
            return {"experiment_id": "7"}
        if method == "runs/create":
            number = str(len(self.calls))
            info = {"run_id": number, "status": "RUNNING", "artifact_uri": f"mlflow-artifacts:/7/{number}/artifacts"}
            self.runs[number] = {"info": info, "tags": body["tags"], "params": []}
            return {"run": self.runs[number]}
        if method == "runs/search":
            matching = [run for run in self.runs.values() if any(tag["value"] in body["filter"] for tag in run["tags"])]
            return {"runs": matching[-1:]}
        if method == "runs/delete":
            del self.runs[body["run_id"]]
        if method == "runs/log-batch":
            self.runs[body["run_id"]]["params"] += body.get("params", [])
        if method == "runs/update":
            self.runs[body["run_id"]]["info"]["status"] = body["status"]
        return {}


@pytest.fixture
def played(product: ProductStore, monkeypatch: pytest.MonkeyPatch) -> Played:
    trained(product)  # before there is a server
    played = Played()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    monkeypatch.setattr(httpx, "Client", functools.partial(httpx.Client, transport=httpx.MockTransport(played)))
    return played


def exported(product: ProductStore) -> list[str]:
    ((_, record),) = product.history.trainings_newest_first()
    warnings: list[str] = []
    mlflow.export(product, record.fingerprint, warnings.append)
    return warnings


def test_an_interrupted_export_is_repeated_and_a_complete_one_is_left_alone(
    product: ProductStore, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.other["experiments/get-by-name"] = httpx.Response(404)
    played.other["runs/log-batch"] = httpx.Response(500, json={"message": "the disk is full"})
    (warning,) = exported(product)
    assert "runs/log-batch got 500 the disk is full" in warning
    (cut_off,) = played.runs
    assert "experiments/create" in played.calls

    played.other.clear()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of-a-person")
    assert exported(product) == []
    ((number, run),) = played.runs.items()
    assert number != cut_off
    assert run["info"]["status"] == "FINISHED"
    assert {"key": "training.epochs", "value": "3"} in run["params"]
    assert played.callers == {"", "Bearer of-a-person"}

    calls = len(played.calls)
    assert exported(product) == []
    assert played.calls[calls:] == ["experiments/get-by-name", "runs/search"]


NO_EXPERIMENT = {"experiments/get-by-name": httpx.Response(200, json={})}
NO_RUN = {"runs/create": httpx.Response(200, json={})}


@pytest.mark.parametrize(
    ("other", "expected"),
    [(NO_EXPERIMENT, "it has no experiment 'driftline/tiny' in its answer"), (NO_RUN, "it has no run in its answer")],
    ids=["experiment", "run"],
)
def test_an_answer_without_what_was_asked_for_is_named(
    product: ProductStore, played: Played, other: Mapping[str, httpx.Response], expected: str
) -> None:
    played.other.update(other)
    (warning,) = exported(product)
    assert expected in warning


def _of_another(played: Played) -> None:
    played.runs.clear()


def _in_a_bucket(played: Played) -> None:
    for run in played.runs.values():
        run["info"]["artifact_uri"] = "s3://files/7"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (None, None),
        (_of_another, "it has no run of checkpoint {}, so the ONNX graph is not added"),
        (_in_a_bucket, "it stores files of runs in s3://files/7, not itself, so the graph is not added"),
    ],
)
def test_a_graph_is_added_to_the_run_of_its_training(
    product: ProductStore, played: Played, change: Callable[[Played], None] | None, expected: str | None
) -> None:
    ((_, record),) = product.history.trainings_newest_first()
    assert exported(product) == []
    if change is not None:
        change(played)
    bundle = product.artifacts.write_bundle({"model.onnx": b"a graph"}, {"product": "tiny"})
    warnings: list[str] = []
    mlflow.attach(product, record.checkpoint, bundle, warnings.append)
    if expected is None:
        assert warnings == []
        assert played.calls[-1].startswith("/api/2.0/mlflow-artifacts/artifacts/7/")
    else:
        (warning,) = warnings
        assert expected.format(record.checkpoint[:12]) in warning
