"""Model quality: ten monthly folds of the flights, paired with a tuned LightGBM on the same features.

Train on every month up to M, test M+1, ten times. The candidates are the network, boosted trees and their blend. The
one with the lowest log loss on the folds that test March to June is chosen, and judged on July to December. Intervals
are clustered by the four blocks of days of each month, because days that follow each other share their weather. The
peer's settings are frozen in `q1_lightgbm.json`. One exception: which of 112 candidate features were kept was judged by
LightGBM on June and by importances of a fold that tests November, so July to December is independent of the choice of
the model, but not of the choice of the features.

Two more choices flatter: on which folds the peer was tuned, whose settings the trees have, is not recorded; and the
timetable carries the aircraft that actually flew, as if known the day before.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import polars as pl

from platform_assets.base.naming import UNPARTITIONED
from platform_assets.data import validation
from platform_assets.engine import product_files
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.evaluation.paired import student_t_quantile
from platform_assets.product.inputs import Inputs
from platform_assets.product.learned import Learned
from platform_assets.product.learner import Alone, Context, Learner
from platform_assets.product.spec import Product, Source, Window
from platform_assets.product.tasks import Binary
from platform_assets.products import flight_delays
from platform_assets.store.artifacts import sha256
from platform_assets.training import baselines, determinism
from platform_assets.training.learn import learn
from platform_assets.training.learners.graphs import OnnxGraphs
from platform_assets.training.matrix import categorical_matrix, numeric_matrix
from proof.benchmarks.harness import Measure

TESTED = tuple(range(3, 13))
CHOSEN_ON, JUDGED_ON = TESTED[:4], TESTED[4:]
PERIODS = {"March-June": CHOSEN_ON, "July-December": JUDGED_ON, "ten folds": TESTED}
STATISTICS = ("auc", "log_loss", "brier", "ece")
FROZEN = Path(__file__).with_name("q1_lightgbm.json")
NETWORK, TREES, BLEND = "network", "trees", "blend"
PEER, LOGISTIC, CONSTANT = "tuned LightGBM", "logistic", "constant"
BASELINES = {LOGISTIC: baselines.LINEAR, CONSTANT: baselines.CONSTANT}
BLOCKS = 4
"""Of a month: three weeks, and its last 7 to 10 days."""
DEMO_ROWS_UNTIL = "2013-02-13"
REQUESTS, ROUNDS = 2_000, 5

shown: list[str] = []


def candidates() -> dict[str, Learner]:
    """Return the learners among which the flights' model is chosen; the last one joins the others."""
    network, trees = flight_delays.LEARNER.learners
    return {NETWORK: network, TREES: trees, BLEND: flight_delays.LEARNER}


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
        return Inputs(numeric=self.numeric, categorical=self.categorical)

    def part(self, chosen: np.ndarray) -> Year:
        return Year(**{name: values[chosen] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The mean over folds of one contestant's measure minus another's, with its interval at 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The answers of every contestant for each tested row, and the CPU seconds of its fits, by month."""

    year: Year
    answers: Mapping[str, np.ndarray]
    cpu_s: Mapping[str, Mapping[int, float]]

    def mean(self, contestant: str, statistic: str, months: Sequence[int]) -> float:
        """Return the mean over folds of one of the task's measures."""
        folds = [self.year.months == month for month in months]
        return statistics.fmean(
            measures_of(Binary()).quality(self.year.labels[rows], self.answers[contestant][rows])[statistic] or 0.0
            for rows in folds
        )

    def chosen(self) -> str:
        return min((NETWORK, TREES, BLEND), key=lambda name: self.mean(name, "log_loss", CHOSEN_ON))

    def gap(self, first: str, second: str, statistic: str, months: Sequence[int]) -> Gap:
        """Return the difference of two contestants; folds are strata, and blocks of days their clusters."""
        task = Binary()
        (measure,) = (item for item in measures_of(task).of_answers if item.name == statistic)
        folds = []
        for month in months:
            rows = self.year.months == month
            pair = (self.answers[first][rows], self.answers[second][rows])
            blocks = np.array([min((int(key[8:10]) - 1) // 7, BLOCKS - 1) for key in self.year.keys[rows]])
            folds.append(measures_of(task).difference(measure, self.year.labels[rows], *pair, blocks, confidence=0.95))
        value = statistics.fmean(item.value for item in folds)
        error = sum(item.standard_error**2 for item in folds) ** 0.5 / len(folds)
        reach = student_t_quantile(0.975, sum(item.keys - 1 for item in folds)) * error
        return Gap(value=value, low=value - reach, high=value + reach)


def run() -> list[Measure]:
    spec = product_files.load(flight_delays.SPEC.name)
    # Deliver, validate and build a whole recording as the platform would, and keep the labelled rows.
    assert spec.grain.last is not None
    keys = spec.grain.span(spec.grain.first, spec.grain.last)
    tables = {source.name: _validated(spec, source, keys) for source in spec.sources}
    labels = spec.label(tables.pop(spec.label_source.name)).select("key", "entity", "label")
    frame = spec.features(tables, Window(grain=spec.grain, keys=keys))
    frame = frame.join(labels, on=["key", "entity"], how="inner", maintain_order="left").drop_nulls("label")
    days = frame["key"].to_numpy().astype(str)
    year = Year(
        numeric=numeric_matrix(frame, spec.fields),
        categorical=categorical_matrix(frame, spec.fields),
        labels=spec.task.labels_of(frame["label"]),
        keys=days,
        months=np.array([int(day[5:7]) for day in days]),
    )
    contest = hold(spec, year)
    ours = contest.chosen()
    shown[:] = [
        f"chosen on March-June by log loss: {ours}.",
        f"the tuned LightGBM is frozen in proof/benchmarks/{FROZEN.name}, sha256 {sha256(FROZEN.read_bytes())}.",
        "lightgbm itself fits the peer, with the candidates' features and one thread.",
        "intervals: 95 %, from leaving out blocks of days, four per month.",
    ]
    # What a fit, its file and a request cost, next to the network's.
    used_s = {name: statistics.median(months.values()) for name, months in contest.cpu_s.items()}
    early, late = year.part(year.keys <= DEMO_ROWS_UNTIL), year.part(year.months < TESTED[-1])
    names = (ours,) if ours == NETWORK else (ours, NETWORK)
    early_s = {name: fit(spec, candidates()[name], early, early.inputs[:1])[1] for name in names}
    files = {name: graph_of(spec, candidates()[name], late) for name in names}
    request_us = {name: statistics.median(times) for name, times in request_costs(files, late.inputs).items()}
    megabytes = {name: len(data) / 1e6 for name, data in files.items()}
    return [
        *(
            Measure(
                f"{statistic}, {period}",
                contest.mean(ours, statistic, months),
                peers={name: contest.mean(name, statistic, months) for name in contest.answers if name != ours},
                target="<= 0.03" if statistic == "ece" and months != CHOSEN_ON else None,
            )
            for period, months in PERIODS.items()
            for statistic in STATISTICS
        ),
        *judged(contest, ours),
        Measure("CPU s of a fit, median of folds", used_s.pop(ours), peers=used_s),
        Measure(f"CPU s of a fit on the days to {DEMO_ROWS_UNTIL}", early_s.pop(ours), peers=early_s, target="<= 25 s"),
        Measure("MB of the ONNX file of January-November", megabytes.pop(ours), peers=megabytes, target="<= 10 MB"),
        Measure(
            "CPU µs of its graph in ONNX Runtime for one request of one row", request_us.pop(ours), peers=request_us
        ),
    ]


def judged(contest: Contest, ours: str) -> list[Measure]:
    """Return what the chosen candidate is judged by, and the same of all candidates."""
    auc = contest.gap(ours, PEER, "auc", JUDGED_ON)
    loss = contest.gap(ours, PEER, "log_loss", JUDGED_ON)
    above = contest.gap(ours, LOGISTIC, "auc", TESTED)
    against = f"minus the {PEER}'s, July-December"
    measures = [
        Measure(f"AUC {against}, lower end of its interval", auc.low, target=">= -0.001"),
        Measure(f"AUC {against}, upper end", auc.high),
        Measure(f"log loss {against}", loss.value, target="<= 0"),
        Measure(f"log loss {against}, stretch", loss.value, target="<= -0.003"),
        Measure(f"log loss {against}, lower end of its interval", loss.low),
        Measure(f"log loss {against}, upper end", loss.high),
        Measure("AUC above logistic regression, ten folds", above.value, target=">= 0.007"),
    ]
    for statistic in STATISTICS[:2]:
        others = [name for name in (NETWORK, TREES, BLEND) if name != ours]
        gaps = {name: contest.gap(name, PEER, statistic, JUDGED_ON).value for name in others}
        value = contest.gap(ours, PEER, statistic, JUDGED_ON).value
        measures.append(Measure(f"{statistic} {against}, each candidate", value, peers=gaps))
    return measures


def graph_of(spec: Product, learner: Learner, rows: Year) -> bytes:
    """Fit a learner and return its ONNX file."""
    context = _context(spec, rows)
    blobs = learner.fit(rows.inputs, rows.labels, context)
    return learner.to_onnx(blobs, OnnxGraphs(**{**vars(context), "progress": Alone()}))


def request_costs(files: Mapping[str, bytes], rows: Inputs) -> dict[str, list[float]]:
    """Return the CPU microseconds of each graph per row, asked one by one, in interleaved rounds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]) for name, data in files.items()
    }
    asked = [
        {"numeric": row.numeric, "categorical": np.asarray(row.categorical, dtype=object)}
        for row in (rows[number : number + 1] for number in range(REQUESTS))
    ]
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(ROUNDS + 1):
        for name, session in sessions.items():
            begin_s = time.process_time()
            for row in asked:
                session.run(["answer"], row)
            times[name].append((time.process_time() - begin_s) / REQUESTS * 1e6)
    return {name: values[1:] for name, values in times.items()}


def hold(spec: Product, year: Year) -> Contest:
    """Fit every contestant on every fold, one after the other."""
    learners = candidates()
    answers = {name: np.full(len(year.labels), np.nan) for name in (*learners, LOGISTIC, CONSTANT)}
    cpu_s: dict[str, dict[int, float]] = {name: {} for name in (*learners, LOGISTIC)}
    for month in TESTED:
        rows, tested = year.part(year.months < month), year.months == month
        inputs = year.part(tested).inputs
        for name in (NETWORK, TREES):
            answers[name][tested], cpu_s[name][month] = fit(spec, learners[name], rows, inputs)
        # A blend's answers are its parts' mean; `tests/training` tests that, so its parts are not fitted again.
        answers[BLEND][tested] = np.mean([answers[name][tested] for name in (NETWORK, TREES)], axis=0)
        cpu_s[BLEND][month] = cpu_s[NETWORK][month] + cpu_s[TREES][month]
        begin_s = time.process_time()
        learned = learn(rows.inputs, spec.fields)
        models = baselines.fit(learned, rows.inputs, rows.labels, spec.task)["models"]
        cpu_s[LOGISTIC][month] = time.process_time() - begin_s
        for name, model in BASELINES.items():
            answers[name][tested] = baselines.score(models[model], learned, inputs, spec.task)
        losses = {name: float(spec.task.losses(year.labels[tested], answers[name][tested]).mean()) for name in learners}
        print(f"month {month}: {len(rows.labels)} rows, {cpu_s[BLEND][month]:.1f} CPU s, {losses}", file=sys.stderr)
    answers[PEER], cpu_s[PEER] = _lightgbm(year, spec.training.threads)
    return Contest(year=year, answers=answers, cpu_s=cpu_s)


def fit(spec: Product, learner: Learner, rows: Year, tested: Inputs) -> tuple[np.ndarray, float]:
    """Fit a learner as the training step does; return its answers and the fit's CPU seconds."""
    begin_s = time.process_time()
    determinism.fix(spec.training.threads)
    context = _context(spec, rows)
    blobs = learner.fit(rows.inputs, rows.labels, context)
    used_s = time.process_time() - begin_s
    return learner.answers(blobs, tested, context), used_s


def _context(spec: Product, rows: Year) -> Context:
    learned: Learned = learn(rows.inputs, spec.fields)
    return Context(task=spec.task, training=spec.training, learned=learned, progress=Alone())


def _validated(spec: Product, source: Source, keys: Sequence[str]) -> pl.DataFrame:
    assert spec.history is not None
    schema = source.schema()
    key_of = None if source.partition_by is None else validation.key_column(source.partition_by, spec.grain.key_of)
    parts = []
    for key in (UNPARTITIONED,) if source.is_slow else keys:
        data = spec.history.deliver(source.name, key)
        if data is not None:
            raw = (
                pl.read_csv(data, infer_schema=False).with_row_index("source_offset").cast({"source_offset": pl.Int64})
            )
            result = validation.split(
                raw, schema, schema_version=source.schema_version, unique=source.unique, key=key, key_of=key_of
            )
            parts.append(result.good.with_columns(pl.lit(key).alias("key")))
    return pl.concat(parts)


def _lightgbm(year: Year, threads: int) -> tuple[np.ndarray, dict[int, float]]:
    """Fit the peer in a process of its own, which imports nothing of this project."""
    categories = [np.unique(column, return_inverse=True)[1] for column in year.categorical.T.astype(str)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "x.npy", np.column_stack([year.numeric, *categories]).astype(np.float32))
        np.save(folder / "y.npy", year.labels)
        np.save(folder / "fold.npy", year.months)
        options = {"categories": len(categories), "tested": TESTED, "threads": threads}
        (folder / "folds.json").write_text(json.dumps(options), encoding="utf-8")
        peer = Path(__file__).with_name("lightgbm_peer.py")
        subprocess.run([sys.executable, "-P", peer, folder, FROZEN], check=True, cwd=folder)
        used_s = {int(month): value for month, value in json.loads((folder / "lightgbm.json").read_text()).items()}
        return np.load(folder / "lightgbm.npy"), used_s
