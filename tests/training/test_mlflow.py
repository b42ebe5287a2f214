"""Trainings reach a real MLflow server once, whole; a dead, slow or wrong one costs a warning and no training."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import polars as pl
import pytest
from rich.console import Console

from platform_assets.experiments import train
from platform_assets.handle import Product
from platform_assets.records.trainings import Training
from platform_assets.serving.run import free_port
from platform_assets.settings import MLFLOW_VARIABLES, Settings
from platform_assets.storage.artifacts import ArtifactStore
from platform_assets.storage.tables import TableStore
from platform_assets.training import mlflow
from tests.doubles import tiny_product as tiny

STARTS_S = 180.0
PYTHON = os.environ.get("DRIFTLINE_MLFLOW_PYTHON")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server of the virtual environment that DRIFTLINE_MLFLOW_PYTHON names."""
    if PYTHON is None:
        pytest.skip("DRIFTLINE_MLFLOW_PYTHON names no Python with MLflow's server")
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
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    folder = tmp_path_factory.mktemp("exported")
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    tiny.store(settings)
    known = {key: pl.DataFrame({"key": [key], "known_at": [tiny.KNOWN_AT]}) for key in tiny.KEYS}
    for stage in ("validated_facts", "validated_outcomes"):
        TableStore(settings.root, "tiny").replace(stage, known, inputs={key: {} for key in known}, code="0")
    return Product(tiny.SPEC, settings)


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MLFLOW_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mlflow, "_warned", set())


def trained(product: Product) -> tuple[Training, str]:
    """Return a training's record, and what was printed; the second call finds the first one's."""
    out = io.StringIO()
    record = train.run(product, tiny.CUTOFF, ["epochs=3"], Console(file=out, width=400))
    return record, out.getvalue()


def test_a_training_and_its_graph_are_in_mlflow_once(
    product: Product, server: str, monkeypatch: pytest.MonkeyPatch
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


def test_without_a_server_nothing_is_called(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "Server", None)
    assert "MLFLOW" not in trained(product)[1]


@pytest.mark.parametrize("kind", ["dead", "silent", "drips", "file", "wrong"])
def test_a_server_that_does_not_work_is_named_once(
    product: Product, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind in ("silent", "drips"):
        monkeypatch.setattr(mlflow, "DEADLINE_S", 1.0)
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
            threading.Thread(target=_reply, args=(listening, replies[kind]), daemon=True).start()
        record, printed = trained(product)
        mlflow.export(product, record.fingerprint, pytest.fail)
    assert record.checkpoint
    assert printed.count("MLFLOW_TRACKING_URI is ") == 1
    assert expected in printed
    assert "secret" not in printed


def _reply(listening: socket.socket, data: bytes) -> None:
    """Answer one caller, and keep the connection."""
    connection, _ = listening.accept()
    connection.recv(65_536)
    connection.sendall(data)
    time.sleep(5)
    connection.close()
