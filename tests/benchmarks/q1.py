"""Model quality: ten monthly folds of the flights, paired with LightGBM on the same matrices.

Train on every month up to M, test M+1, ten times. Standard errors are clustered by day. All choices for our network
used only the folds that test March to June; July to December is separate. One exception: which of 112 candidate
features were kept was judged by LightGBM on June and by importances of a fold that tests November, so July to
December is independent of the choice of the network, but not of the choice of the features.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from platform_assets import specs
from platform_assets.compute import baselines, determinism, validate
from platform_assets.compute.learn import Learned, codes, learn
from platform_assets.compute.matrix import Inputs, categorical_matrix, numeric_matrix
from platform_assets.compute.tasks import Binary
from platform_assets.compute.train import Loop, outputs, tensors
from platform_assets.naming import UNPARTITIONED
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec, Source, Window
from tests.benchmarks.harness import Measure

PRODUCT = "flight_delays"
TESTED = tuple(range(3, 13))
CHOSEN_ON, LEFT_ALONE = TESTED[:4], TESTED[4:]
LIGHTGBM = "lightgbm==4.7.0"
OURS, PEER, LOGISTIC, CONSTANT = "Driftline", "LightGBM", "logistic", "constant"
BASELINES = {LOGISTIC: baselines.LINEAR, CONSTANT: baselines.CONSTANT}
DEMO_ROWS_UNTIL = "2013-02-13"


@dataclass(frozen=True, kw_only=True)
class Year:
    """The labelled rows of a year: matrices, labels, keys and the month of each row."""

    numeric: np.ndarray
    categorical: np.ndarray
    labels: np.ndarray
    keys: np.ndarray
    months: np.ndarray

    @property
    def inputs(self) -> Inputs:
        """Return the inputs of a model."""
        return Inputs(numeric=self.numeric, categorical=self.categorical)

    def part(self, chosen: np.ndarray) -> Year:
        """Return only these rows."""
        return Year(**{name: values[chosen] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The answers of every contestant for each tested row, and the CPU seconds of its fits, by month."""

    year: Year
    answers: Mapping[str, np.ndarray]
    cpu_s: Mapping[str, Mapping[int, float]]

    def mean(self, contestant: str, statistic: str, months: Sequence[int] = TESTED) -> float:
        """Return the mean over folds of one of the task's measures."""
        folds = [self.year.months == month for month in months]
        return statistics.fmean(
            Binary().quality(self.year.labels[rows], self.answers[contestant][rows])[statistic] or 0.0 for rows in folds
        )

    def difference(self, statistic: str, other: str, months: Sequence[int] = TESTED) -> tuple[float, float]:
        """Return the mean over folds of ours minus the other's, and its standard error clustered by day."""
        task = Binary()
        (measure,) = (item for item in task.measures if item.name == statistic)
        result = []
        for month in months:
            rows = self.year.months == month
            pair = (self.answers[OURS][rows], self.answers[other][rows])
            result.append(
                task.difference(measure, self.year.labels[rows], *pair, self.year.keys[rows], confidence=0.95)
            )
        return statistics.fmean(item.value for item in result), sum(
            item.standard_error**2 for item in result
        ) ** 0.5 / len(result)


def run() -> list[Measure]:
    """Fit four contestants on ten folds and return the measures."""
    spec = specs.load(PRODUCT)
    year = load_year(spec)
    contest = hold(spec, year)
    measures = []
    for name, months in (("March-June", CHOSEN_ON), ("July-December", LEFT_ALONE), ("ten folds", TESTED)):
        for statistic in ("auc", "log_loss", "brier", "ece"):
            peers = {
                contestant: contest.mean(contestant, statistic, months) for contestant in (PEER, LOGISTIC, CONSTANT)
            }
            target = "<= 0.03" if (name, statistic) == ("ten folds", "ece") else None
            ours = contest.mean(OURS, statistic, months)
            measures.append(Measure(measure=f"{statistic}, {name}", ours=ours, peers=peers, target=target))
    above, above_error = contest.difference("auc", LOGISTIC)
    auc, auc_error = contest.difference("auc", PEER)
    loss, loss_error = contest.difference("log_loss", PEER)
    used_s = {
        contestant: statistics.median(contest.cpu_s[contestant].values()) for contestant in (OURS, PEER, LOGISTIC)
    }
    return [
        *measures,
        Measure(measure="AUC above logistic regression", ours=above, target=">= 0.007"),
        Measure(measure="AUC above logistic regression, standard error clustered by day", ours=above_error),
        Measure(measure="AUC minus LightGBM's, bound", ours=auc, target=">= -0.008"),
        Measure(measure="AUC minus LightGBM's, Q1's target", ours=auc, target=">= -0.002"),
        Measure(measure="AUC minus LightGBM's, standard error clustered by day", ours=auc_error),
        Measure(measure="log loss minus LightGBM's, Q1's target", ours=loss, target="<= 0.003"),
        Measure(measure="log loss minus LightGBM's, standard error clustered by day", ours=loss_error),
        Measure(measure="CPU s a fit, median of folds", ours=used_s.pop(OURS), peers=used_s),
        Measure(
            measure=f"CPU s of a fit on the days to {DEMO_ROWS_UNTIL}", ours=demo_fit_s(spec, year), target="<= 25 s"
        ),
    ]


def load_year(spec: ProductSpec) -> Year:
    """Deliver, validate and build a whole recording as the platform would, and keep the labelled rows."""
    assert spec.grain.last is not None
    keys = spec.grain.span(spec.grain.first, spec.grain.last)
    tables = {source.name: _validated(spec, source, keys) for source in spec.sources}
    labels = spec.label(tables.pop(spec.label_source.name)).select("key", "entity", "label")
    frame = spec.features(tables, Window(grain=spec.grain, keys=keys))
    frame = frame.join(labels, on=["key", "entity"], how="inner", maintain_order="left").drop_nulls("label")
    names = frame["key"].to_numpy().astype(str)
    return Year(
        numeric=numeric_matrix(frame, spec.fields),
        categorical=categorical_matrix(frame, spec.fields),
        labels=spec.task.labels_of(frame["label"]),
        keys=names,
        months=np.array([int(name[5:7]) for name in names]),
    )


def hold(spec: ProductSpec, year: Year) -> Contest:
    """Fit every contestant on every fold, one after the other."""
    answers = {contestant: np.full(len(year.labels), np.nan) for contestant in (OURS, LOGISTIC, CONSTANT)}
    cpu_s: dict[str, dict[int, float]] = {OURS: {}, LOGISTIC: {}}
    for month in TESTED:
        rows, tested = year.part(year.months < month), year.months == month
        inputs = year.part(tested).inputs
        answers[OURS][tested], cpu_s[OURS][month] = fit(spec, rows, inputs)
        begin_s = time.process_time()
        learned = _learned(spec, rows)
        models = baselines.fit(learned, rows.inputs, rows.labels, spec.task)["models"]
        cpu_s[LOGISTIC][month] = time.process_time() - begin_s
        for contestant in (LOGISTIC, CONSTANT):
            answers[contestant][tested] = baselines.score(models[BASELINES[contestant]], learned, inputs, spec.task)
        print(f"month {month}: {len(rows.labels)} rows, {cpu_s[OURS][month]:.1f} CPU s", file=sys.stderr, flush=True)
    answers[PEER], cpu_s[PEER] = _lightgbm(year, spec.training.threads)
    return Contest(year=year, answers=answers, cpu_s=cpu_s)


def fit(spec: ProductSpec, rows: Year, tested: Inputs) -> tuple[np.ndarray, float]:
    """Train the product's own network as the training step does; return its answers and the fit's CPU seconds."""
    begin_s = time.process_time()
    determinism.fix(spec.training.threads)
    learned = _learned(spec, rows)
    determinism.seed(spec.training.seed)
    inputs = tensors(rows.inputs, codes(learned, rows.categorical))
    loop = Loop(spec.model(learned, spec.training), inputs, torch.from_numpy(rows.labels), spec.training, spec.task)
    while not loop.is_finished:
        loop.step()
    used_s = time.process_time() - begin_s
    values = outputs(loop.model, tensors(tested, codes(learned, tested.categorical)))
    return spec.task.graph_answer(values, learned.target).numpy(), used_s


def demo_fit_s(spec: ProductSpec, year: Year) -> float:
    """Return the CPU seconds of a fit on the rows that the demo trains on."""
    rows = year.part(year.keys <= DEMO_ROWS_UNTIL)
    return fit(spec, rows, rows.inputs[:1])[1]


def _learned(spec: ProductSpec, rows: Year) -> Learned:
    return learn(rows.inputs, spec.fields)


def _validated(spec: ProductSpec, source: Source, keys: Sequence[str]) -> pl.DataFrame:
    assert spec.history is not None
    schema = source.schema()
    key_of = None if source.partition_by is None else validate.key_column(source.partition_by, spec.grain.key_of)
    parts = []
    for key in (UNPARTITIONED,) if source.is_slow else keys:
        data = spec.history.deliver(source.name, key)
        if data is not None:
            raw = (
                pl.read_csv(data, infer_schema=False).with_row_index("source_offset").cast({"source_offset": pl.Int64})
            )
            result = validate.split(
                raw, schema, schema_version=source.schema_version, unique=source.unique, key=key, key_of=key_of
            )
            parts.append(result.good.with_columns(pl.lit(key).alias("key")))
    return pl.concat(parts)


def _lightgbm(year: Year, threads: int) -> tuple[np.ndarray, dict[int, float]]:
    """Fit the peer in its own virtual environment, created on first use."""
    path = Settings.from_environment().state / "bench-envs" / "lightgbm"
    python = path / "bin" / "python"
    if not (path / "ready").exists():
        venv.create(path, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", LIGHTGBM], check=True)
        (path / "ready").touch()
    categories = [np.unique(column, return_inverse=True)[1] for column in year.categorical.T.astype(str)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "x.npy", np.column_stack([year.numeric, *categories]).astype(np.float32))
        np.save(folder / "y.npy", year.labels)
        np.save(folder / "fold.npy", year.months)
        options = {"categories": len(categories), "tested": TESTED, "threads": threads}
        (folder / "folds.json").write_text(json.dumps(options), encoding="utf-8")
        subprocess.run([python, Path(__file__).with_name("lightgbm_peer.py"), folder], check=True)
        used_s = {int(month): value for month, value in json.loads((folder / "lightgbm.json").read_text()).items()}
        return np.load(folder / "lightgbm.npy"), used_s
