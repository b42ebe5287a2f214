"""Export trainings to MLflow where `MLFLOW_TRACKING_URI` names a server. It is never required: whatever it does, a
training goes on, and one warning names the server.

Six calls of MLflow's REST API: its client would bring eight more packages, Databricks' SDK among them, and its retries
take minutes. Runs of Dagster export, not steps, so a training pod needs no way to the server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from platform_assets.base import settings
from platform_assets.base.problems import Problem
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.trainings import Training

if TYPE_CHECKING:
    import httpx

DEADLINE_S = 20.0
"""For one export, however slowly the server answers."""
REQUEST_S = 5.0
PARAMETERS_AT_ONCE, METRICS_AT_ONCE = 100, 800
"""MLflow takes at most 100 parameters, and 1,000 values in all, per call."""
LETTERS = 500
"""Longest value of a parameter that every version of MLflow takes."""
API = "/api/2.0/mlflow"
PROXIED = "mlflow-artifacts:"
"""Scheme of runs whose files the server itself stores."""
FINGERPRINT, CHECKPOINT = "driftline.fingerprint", "driftline.checkpoint"
"""Tags by which a run is found again."""

_warned = set[str]()
Warn = Callable[[str], object]


class Refused(Problem):
    """MLflow's answer is not the expected one."""


class Experiment(msgspec.Struct):
    """An experiment, as the server names it."""

    experiment_id: str


class RunInfo(msgspec.Struct):
    """Where a run is."""

    run_id: str
    status: str
    artifact_uri: str = ""


class Run(msgspec.Struct):
    """A run of MLflow's: one training."""

    info: RunInfo


class _Answer(msgspec.Struct):
    experiment: Experiment | None = None
    experiment_id: str = ""
    run: Run | None = None
    runs: list[Run] = []
    message: str = ""


def export(product: ProductStore, fingerprint: str, warn: Warn) -> None:
    """Export the training with a fingerprint, once; an export that was cut off is repeated from the start."""
    variables = settings.mlflow_variables()
    if not variables:
        return
    newest = product.history.trainings_newest_first()
    record = next((record for _, record in newest if record.fingerprint == fingerprint), None)
    if record is None:  # trained by code that left no record
        return
    attempts = product.history.attempts().filter(pl.col("fingerprint") == fingerprint)
    usd = float(attempts["usd"].sum()) if attempts["usd"].count() else None
    _bounded(variables, lambda server: _export(server, product.name, record, usd), warn)


def attach(product: ProductStore, checkpoint: str, bundle: str, warn: Warn) -> None:
    """Add the ONNX graph of a bundle to the run of its training."""
    variables = settings.mlflow_variables()
    if not variables:
        return
    graph = product.artifacts.bundle(bundle).read("model.onnx")

    def add_graph(server: Server) -> None:
        run = server.run(server.experiment_id(product.name), CHECKPOINT, checkpoint)
        if run is None:
            raise Refused(f"it has no run of checkpoint {checkpoint[:12]}, so the ONNX graph is not added")
        server.put(run, "model.onnx", graph)

    _bounded(variables, add_graph, warn)


def _bounded(variables: Mapping[str, str], work: Callable[[Server], None], warn: Warn) -> None:
    """Work in a thread that is left behind after `DEADLINE_S`; say once per process and server what went wrong."""
    import httpx

    address = variables[settings.TRACKING]
    problems = [f"it has not answered within {DEADLINE_S:g} s"]

    def attempt() -> None:
        try:
            with closing(Server(variables)) as server:
                work(server)
            problems.clear()
        except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError, Refused) as problem:
            problems[:] = [str(problem) or type(problem).__name__]

    if address.startswith(("http://", "https://")):
        thread = threading.Thread(target=attempt, name="export to MLflow", daemon=True)
        thread.start()
        thread.join(DEADLINE_S)
    else:
        problems = ["expected an address with http:// or https://"]
    reasons = list(problems)  # the thread may end yet
    scheme, sign, rest = address.partition("://")
    name = f"{scheme}{sign}{rest.rpartition('@')[2]}"  # without user and password
    if reasons and name not in _warned:
        _warned.add(name)
        warn(f"{settings.TRACKING} is {name}, and an export there failed: {reasons[0]}. The training is on record.")


class Server:
    """MLflow's REST API.

    Args:
        variables: `MLFLOW_...` of the environment.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        import httpx

        token, user = variables.get("MLFLOW_TRACKING_TOKEN"), variables.get("MLFLOW_TRACKING_USERNAME")
        self.experiment = variables.get("MLFLOW_EXPERIMENT_NAME")
        self._client = httpx.Client(
            base_url=variables[settings.TRACKING].rstrip("/"),
            timeout=REQUEST_S,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            auth=(user, variables.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def post(self, path: str, **body: object) -> _Answer:
        """Call a method of the API; raise `Refused` with the server's reason."""
        return self._read(self._client.post(f"{API}/{path}", json=body), path)

    def experiment_id(self, product: str) -> str:
        """Return the product's experiment, made on first use."""
        name = self.experiment or f"driftline/{product}"
        response = self._client.get(f"{API}/experiments/get-by-name", params={"experiment_name": name})
        if response.status_code == HTTPStatus.NOT_FOUND:
            return self.post("experiments/create", name=name).experiment_id
        answer = self._read(response, "experiments/get-by-name")
        if answer.experiment is None:
            raise Refused(f"it has no experiment {name!r} in its answer")
        return answer.experiment.experiment_id

    def run(self, experiment: str, tag: str, value: str) -> RunInfo | None:
        """Return the newest run with a tag, or None."""
        page = self.post("runs/search", experiment_ids=[experiment], filter=f"tags.`{tag}` = '{value}'", max_results=1)
        return page.runs[0].info if page.runs else None

    def put(self, run: RunInfo, name: str, data: bytes) -> None:
        """Store a file of a run through the server."""
        if not run.artifact_uri.startswith(PROXIED):
            raise Refused(f"it stores files of runs in {run.artifact_uri}, not itself, so the graph is not added")
        path = run.artifact_uri.removeprefix(PROXIED).lstrip("/")
        response = self._client.put(f"/api/2.0/mlflow-artifacts/artifacts/{path}/{name}", content=data)
        self._read(response, "mlflow-artifacts")

    def _read(self, response: httpx.Response, path: str) -> _Answer:
        if response.is_success:
            return msgspec.json.decode(response.content or b"{}", type=_Answer)
        try:
            message = msgspec.json.decode(response.content, type=_Answer).message
        except msgspec.MsgspecError:
            message = ""
        raise Refused(f"{path} got {response.status_code} {message[:200]}".rstrip())


def _export(server: Server, product: str, record: Training, usd: float | None) -> None:
    experiment = server.experiment_id(product)
    before = server.run(experiment, FINGERPRINT, record.fingerprint)
    if before is not None and before.status == "FINISHED":
        return
    if before is not None:
        server.post("runs/delete", run_id=before.run_id)
    end_ms = round(datetime.fromisoformat(record.at_utc).timestamp() * 1000)
    about = ("purpose", "code", "data", "checkpoint", "fingerprint")
    tags = {"driftline.product": product, **{f"driftline.{name}": getattr(record, name) for name in about}}
    created = server.post(
        "runs/create",
        experiment_id=experiment,
        run_name=f"{product} {record.cutoff} {record.purpose}",
        start_time=end_ms - round(record.wall_s * 1000),
        tags=_pairs(tags.items()),
    ).run
    if created is None:
        raise Refused("it has no run in its answer to runs/create")
    run_id = created.info.run_id
    texts = {"learner": record.learner, "cutoff": record.cutoff, "profile": record.profile}
    numbers = {name: getattr(record, name) for name in ("training_keys", "holdout_keys", "rows")}
    for some in _chunks(_pairs({**texts, **record.parameters, **numbers}.items()), PARAMETERS_AT_ONCE):
        server.post("runs/log-batch", run_id=run_id, params=some)
    points = [
        (name, value, int(point["epoch"])) for point in record.curve for name, value in point.items() if name != "epoch"
    ]
    spent = {"cpu_s": record.cpu_s, "wall_s": record.wall_s, "peak_memory_mb": record.peak_memory_mb, "usd": usd}
    points += [(name, value, 0) for name, value in {**record.quality, **spent}.items() if value is not None]
    metrics = [{"key": name, "value": value, "timestamp": end_ms, "step": step} for name, value, step in points]
    for values in _chunks(metrics, METRICS_AT_ONCE):
        server.post("runs/log-batch", run_id=run_id, metrics=values)
    server.post("runs/update", run_id=run_id, status="FINISHED", end_time=end_ms)


def _pairs(values: Iterable[tuple[str, object]]) -> list[dict[str, str]]:
    return [{"key": name, "value": str(value)[:LETTERS]} for name, value in values]


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
