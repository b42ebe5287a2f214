"""Fit a product's learner on a few rows, export it, and compare both: what `driftline check` does without torch."""

from __future__ import annotations

import time
from dataclasses import replace

import polars as pl

from platform_assets.checking.messages import fix_in
from platform_assets.compute.export import ParityFailure
from platform_assets.compute.matrix import inputs_of
from platform_assets.compute.train import TrainingProblem
from platform_assets.learners.base import Alone
from platform_assets.makers.checkpoint import Learning
from platform_assets.makers.onnx import Exporting
from platform_assets.makers.rows import Rows
from platform_assets.problems import Problem
from platform_assets.specs.base import ProductSpec


def check_learner(spec: ProductSpec, built: pl.DataFrame, labelled: pl.DataFrame) -> str:
    """Fit the learner on the sample's labelled rows, export it, and prove parity on them.

    Args:
        built: rows of `features`.
        labelled: rows of `label`.

    Raises:
        Problem: it cannot be fitted or exported, or model and graph differ.
    """
    frame = built.join(
        labelled.drop_nulls("label").select("key", "entity", "label"), on=["key", "entity"], maintain_order="left"
    )
    rows = Rows(frame=frame, inputs=inputs_of(frame, spec.fields), task=spec.task)
    keys, began_s = list(dict.fromkeys(frame["key"])), time.process_time()
    learner = replace(spec.learner, validation_keys=min(spec.learner.validation_keys, max(0, len(keys) - 1)))
    maker = replace(Learning.of(spec), learner=learner)
    exporting = replace(Exporting.of(spec), learning=maker)
    try:
        learned = maker.learn(rows)
        blobs = maker.fit(learned, rows, keys, Alone(), "cpu", "float32")
        graph = exporting.graph(learned, blobs)
        parity = exporting.parity(blobs, learned, graph, rows)
    except (TrainingProblem, ParityFailure, ValueError) as problem:
        raise Problem(
            f"the learner of {spec.name} cannot be fitted on {len(rows.inputs)} rows: {problem} {fix_in(spec)}"
        ) from None
    used_s = time.process_time() - began_s
    return (
        f"{type(learner).__name__} fits {len(rows.inputs):,} rows in {used_s:.1f} CPU s; its graph has "
        f"{len(graph) / 1e6:.2f} MB and differs by at most {parity.max_abs_difference:.1e}"
    )
