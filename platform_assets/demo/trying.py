"""Try a product in one process: check it, take its data in, train, judge, ask once, and write the report.

Everything is written to a store of its own, `try/NAME` in the state's folder, which the next try empties. What is
released elsewhere, and the environment's store, stay as they are. No daemon, no webserver and no run of Dagster: stages
work as in a run, and a step runs here.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from platform_assets import check as checking
from platform_assets.base import clock, naming
from platform_assets.base.keys import KeyProblem
from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings
from platform_assets.base.wording import counted, span
from platform_assets.check import deliveries
from platform_assets.data import features, outcomes, raw, validated
from platform_assets.demo.parts import Part, Parts
from platform_assets.engine.ranges import CHUNK_KEYS
from platform_assets.engine.stage import Stage
from platform_assets.engine.store_resource import StoreResource
from platform_assets.evaluation import evaluation, releases, signing
from platform_assets.launch.profiles import StepProfile, profile
from platform_assets.launch.train import training
from platform_assets.operations.report import pages
from platform_assets.product.spec import Product, RecordingMissing
from platform_assets.serving import asking
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.releases import Override
from platform_assets.store.records.verdicts import Verdict
from platform_assets.training import checkpoint, libraries, onnx
from platform_assets.training.steps import export
from platform_assets.training.steps.jobs import ExportJob, Job

if TYPE_CHECKING:
    from rich.console import Console

AUTHOR = "driftline try"
_LOG = logging.getLogger("driftline.try")
_LOG.setLevel(logging.ERROR)


class TryProblem(Problem, ValueError):
    """The product cannot be tried; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The outcome.

    Attributes:
        verdict: on the model, from rows that it never saw.
        answer: to the newest row, as a service would give it.
        report: an HTML file.
    """

    verdict: Verdict
    answer: Mapping[str, Any]
    report: Path


def run(spec: Product, settings: Settings, console: Console) -> Tried:
    """Try a product; see the module.

    Args:
        settings: of the environment; only its landed files are read.

    Raises:
        TryProblem: the check finds a problem, or there are too few keys.
    """
    product = _own(spec, settings)
    with Parts(console) as parts:
        with parts.part("check", "the product's functions") as part:
            _check(spec, settings, part)
        with parts.part("advance", "files, which are read, validated and made features and labels of") as part:
            keys = _taken(spec, settings, product)
            _advance(product, keys, part)
        cutoff = _cutoff(product.spec, keys)
        with parts.part("train", f"the learner, which fits the labelled keys before {cutoff}") as part:
            _train(product, cutoff, part)
        with parts.part("gate", "the verdict on the rows that the model never saw") as part:
            verdict = _judge(product, cutoff, part)
        with parts.part("answer", "the model, which is loaded and asked once") as part:
            answer = _ask(product, verdict, part)
        with parts.part("report", "the report") as part:
            report = pages.write(product.settings, product.spec, product.settings.state / "report.html")
            part.end(str(report))
    return Tried(verdict=verdict, answer=answer, report=report)


def _own(spec: Product, settings: Settings) -> ProductStore:
    """Return the product in an empty store of its own, into which files land whole."""
    folder = settings.state / "try" / spec.name
    shutil.rmtree(folder, ignore_errors=True)
    sources = tuple(replace(source, arrives="rename") if source.is_landed else source for source in spec.sources)
    return ProductStore(replace(spec, sources=sources), Settings(root=str(folder / "store"), state=folder))


def _check(spec: Product, settings: Settings, part: Part) -> None:
    lines = []
    for line in checking.of_product(spec, settings):
        lines.append(line)
        part.advance(1)
    if problems := [line for line in lines if line.is_problem]:
        raise TryProblem(checking.as_text(spec.name, problems))
    notes = [line.message for line in lines if line.state == "note" and line.check not in ("clock", "versions")]
    part.end("; ".join([counted(len(lines), "line"), *(f"note: {note}" for note in notes)]))


def _taken(spec: Product, settings: Settings, product: ProductStore) -> tuple[str, ...]:
    """Copy what has landed, or was recorded, into the own store; return the keys that are over."""
    if asset := next((source.asset for source in spec.sources if source.asset is not None), None):
        raise TryProblem(
            f"{spec.name}: a source is the asset {asset.name} of a Dagster deployment, which only its runs reach; "
            f"launch advance__{spec.name} there instead."
        )
    try:
        available = deliveries.locate(spec, settings)
    except RecordingMissing as missing:
        raise TryProblem(f"{spec.name} cannot be tried: {missing}.") from None
    if not spec.is_live:
        clock.move(product.settings, spec.name, _end(spec, available.keys[-1]))
    for source in spec.sources:
        if source.is_landed:
            keys = (naming.UNPARTITIONED,) if source.is_slow else available.keys
            for key in keys:
                if (data := available.deliver(source.name, key)) is not None:
                    product.channels[source.name].deliver(key, data)
    is_over = {
        key: all(product.awaited_until(source, key) is None for source in spec.sources) for key in available.keys
    }
    keys = tuple(key for key in available.keys if is_over[key])
    if not keys:
        raise TryProblem(f"{spec.name} cannot be tried: no key of {span(available.keys)} is over yet.")
    return keys


def _end(spec: Product, key: str) -> datetime:
    """Return a moment at which a recording's key is over and its labels are known."""
    index = spec.grain.index(key) + spec.label_delay + 1
    end = spec.grain.endless.instant_after(spec.grain.endless.key_at(index))
    return datetime.fromisoformat("2200-01-01T00:00:00+00:00") if end is None else end


def _advance(product: ProductStore, keys: tuple[str, ...], part: Part) -> None:
    spec = product.spec
    stages = [stage for module in (raw, validated, features, outcomes) for stage in module.stages(spec)]
    part.expect(len(stages) * len(keys))
    for stage in stages:
        if stage.source is not None and stage.source.is_slow:
            _work(product, stage, keys)
    for start in range(0, len(keys), CHUNK_KEYS):
        chunk = keys[start : start + CHUNK_KEYS]
        for stage in stages:
            if stage.source is None or not stage.source.is_slow:
                _work(product, stage, chunk)
            part.advance(len(chunk))
    rows = sum(record.rows for record in product.tables.records("features", keys).values())
    quarantined = sum(
        record.rows
        for source in spec.sources
        for record in product.tables.records(naming.stage("quarantine", source.name)).values()
    )
    part.end(f"{counted(rows, 'row')} of {counted(len(keys), 'key')}, {span(keys)}; {quarantined:,} in quarantine")


def _cutoff(spec: Product, keys: tuple[str, ...]) -> str:
    try:
        return spec.grain.shift(keys[-1], 1)
    except KeyProblem:  # the grain ends there
        return keys[-1]


def _train(product: ProductStore, cutoff: str, part: Part) -> None:
    for stage in (*checkpoint.stages(product.spec), *onnx.stages(product.spec)):
        _work(product, stage, (cutoff,), part)
    manifest = product.artifacts.bundle(_bundle(product, cutoff)).manifest
    learned, held = (counted(len(manifest[name]), "key") for name in ("training_keys", "holdout_keys"))
    part.end(f"{learned} learned, {held} held out")


def _judge(product: ProductStore, cutoff: str, part: Part) -> Verdict:
    for stage in evaluation.stages(product.spec):
        _work(product, stage, (cutoff,))
    verdict = product.history.verdict(_bundle(product, cutoff))
    assert verdict is not None  # the stage wrote it
    part.end(f"{'passed' if verdict.passed else 'not passed'}: {' '.join(verdict.reasons)}")
    return verdict


def _bundle(product: ProductStore, cutoff: str) -> str:
    return product.tables.records("onnx", [cutoff])[cutoff].content_digest


def _ask(product: ProductStore, verdict: Verdict, part: Part) -> Mapping[str, Any]:
    """Release the model in the own store, and ask it about the newest row."""
    manifest = product.artifacts.bundle(verdict.digest).manifest
    outcome = "passed" if verdict.passed else "was not passed"
    signing.write_release(
        product,
        releases.next_release(
            product=product.name,
            digest=verdict.digest,
            contract_sha256=manifest["contract_sha256"],
            cutoff=verdict.cutoff,
            reason=f"tried once, in a store of its own: nothing is released, and the gate {outcome}",
            author=AUTHOR,
            at=product.now,
            previous=None,
            override=None if verdict.passed else Override(by=AUTHOR, reason="to be asked once"),
        ),
        warn=_LOG.info,  # that releases here are not signed
    )
    file = product.settings.state / "request.json"
    file.write_text(json.dumps(_request(product), indent=2), encoding="utf-8")
    answer = next(asking.answers(product, file))
    about = {name: answer[name] for name in answer if name not in ("entity", "model", "release", "product")}
    part.end(f"{answer.get('entity', '')} {json.dumps(about)}".strip())
    return answer


def _request(product: ProductStore) -> dict[str, Any]:
    """Return the newest row as a caller would send it; of a live product, now."""
    records = product.tables.records("features")
    filled = [name for name in records if records[name].rows]
    newest = max(filled, key=product.spec.grain.index)
    row = product.tables.read("features", [newest]).tail(1)
    if product.spec.is_live:
        row = row.with_columns(pl.lit(product.now).alias(name) for name in ("service_time", "asked_at"))
    values: dict[str, Any] = row.row(0, named=True)
    moments = {name: values[name].isoformat() for name in ("service_time", "asked_at")}
    inputs = {item.name: values[item.name] for item in product.spec.fields}
    return msgspec.to_builtins({"entity": values["entity"], **moments, "features": inputs})


# What stages ask of a run --------------------------------------------------------------------------------------------


def _work(product: ProductStore, stage: Stage[Any], keys: tuple[str, ...], part: Part | None = None) -> None:
    """Have a stage do the work of a run; what it would report to Dagster is left."""
    resources = {
        naming.STORE: StoreResource(variables=product.settings.to_environment()),
        naming.LAUNCHER: _Here(product, part),
    }
    context: Any = SimpleNamespace(
        log=_LOG,
        partition_keys=keys,
        partition_key=keys[0],
        resources=SimpleNamespace(**resources),
        run=SimpleNamespace(tags={}, run_id=AUTHOR),
        instance=None,
        op_execution_context=SimpleNamespace(op_config={}),
        add_asset_metadata=lambda *_, **__: None,
    )
    next(iter(stage.run(stage, context).work()), None)


@dataclass(frozen=True)
class _Here:
    """Runs steps in this process: a launcher without tries, prices and records of them."""

    product: ProductStore
    part: Part | None

    def size(self, name: str) -> StepProfile:
        """Return the profile, whose size nothing enforces here."""
        return profile(name)

    def libraries(self, _size: object) -> dict[str, str]:
        """Return the versions that are installed here."""
        return libraries.installed()

    def run(self, *, extras: Any, module: str, **_: Any) -> object:
        """Train or export."""
        spec, settings = self.product.spec, self.product.settings
        if module == checkpoint.STEP:
            step = training(spec, Job.from_extras(extras), settings, log=_LOG.info, on_step=self._show)
            return step.run()
        return export.run(spec, msgspec.convert(extras, ExportJob).checkpoint, settings, log=_LOG.info)

    def _show(self, done: int, steps: int) -> None:
        if self.part is not None:
            self.part.show(done, steps)
