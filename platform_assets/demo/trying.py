"""Try a product in one process: check it, take its data in, train, judge, ask once, and write the report.

Everything is written to a store of its own, `try/NAME` in the state's folder, which the next try empties. What is
released elsewhere, and the environment's store, stay as they are. No daemon, no webserver and no run of Dagster: stages
work as in a run, and a step runs here.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
from rich.markup import escape

from platform_assets import check as checking
from platform_assets.base import clock, naming
from platform_assets.base.keys import KeyProblem
from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings
from platform_assets.base.wording import counted, span
from platform_assets.check import deliveries
from platform_assets.data import features, outcomes, raw, validated
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
    from rich.status import Status

AUTHOR = "driftline try"
_LOG = logging.getLogger("driftline.try")
_LOG.setLevel(logging.ERROR)


class TryProblem(Problem, ValueError):
    """The product cannot be tried; the message says what to do."""


@dataclass
class Part:
    """One part of the work on the terminal.

    Attributes:
        outcome: what became of it, in one line.
    """

    name: str
    status: Status
    outcome: str = ""

    def show(self, done: int, total: int) -> None:
        """Show how much is done."""
        self.status.update(f"{self.name}  {done:,} of {total:,}")


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The outcome.

    Attributes:
        verdict: on the model, from rows that it never saw.
        answer: to the newest row, as a service would give it.
        report: an HTML file.
    """

    verdict: Verdict
    answer: asking.Answered
    report: Path


def run(spec: Product, settings: Settings, console: Console) -> Tried:
    """Try a product; see the module.

    Args:
        settings: of the environment; only its landed files are read.

    Raises:
        TryProblem: the check finds a problem, or there are too few keys.
    """
    folder = settings.state / "try" / spec.name
    shutil.rmtree(folder, ignore_errors=True)
    # Files land whole here, also where the source declares another way to arrive.
    sources = tuple(replace(source, arrives="rename") if source.is_landed else source for source in spec.sources)
    product = ProductStore(replace(spec, sources=sources), Settings(root=str(folder / "store"), state=folder))
    with _part(console, "check") as part:
        lines = list(checking.of_product(spec, settings))
        if problems := [line for line in lines if line.is_problem]:
            raise TryProblem(checking.as_text(spec.name, problems))
        notes = [line.message for line in lines if line.state == "note" and line.check not in ("clock", "versions")]
        part.outcome = "; ".join([counted(len(lines), "line"), *(f"note: {note}" for note in notes)])
    with _part(console, "advance") as part:
        keys = _take(spec, settings, product)
        _advance(product, keys, part)
    with _part(console, "train") as part:
        try:
            cutoff = spec.grain.shift(keys[-1], 1)
        except KeyProblem:  # the grain ends there
            cutoff = keys[-1]
        for stage in (*checkpoint.stages(product.spec), *onnx.stages(product.spec)):
            _work(product, stage, (cutoff,), part)
        digest = product.tables.records("onnx", [cutoff])[cutoff].content_digest
        manifest = product.artifacts.bundle(digest).manifest
        learned, held = (counted(len(manifest[name]), "key") for name in ("training_keys", "holdout_keys"))
        part.outcome = f"{learned} learned, {held} held out"
    with _part(console, "gate") as part:
        for stage in evaluation.stages(product.spec):
            _work(product, stage, (cutoff,))
        verdict = product.history.verdict(digest)
        assert verdict is not None  # the stage wrote it
        part.outcome = f"{'passed' if verdict.passed else 'not passed'}: {' '.join(verdict.reasons)}"
    with _part(console, "answer") as part:
        answer = _ask(product, verdict)
        about = {name: answer[name] for name in answer if name not in ("entity", "model", "release", "product")}
        part.outcome = f"{answer.get('entity', '')} {json.dumps(about)}".strip()
    with _part(console, "report") as part:
        report = pages.write(product.settings, product.spec, folder / "report.html")
        part.outcome = str(report)
    return Tried(verdict=verdict, answer=answer, report=report)


@contextmanager
def _part(console: Console, name: str) -> Iterator[Part]:
    """Show a part while it lasts, and one line when it ended well."""
    started_s = time.monotonic()
    with console.status(name) as status:
        part = Part(name, status)
        yield part
    line = f"[bold]{name:8}[/bold] {time.monotonic() - started_s:5.1f} s  {escape(part.outcome)}"
    # rich takes a pipe for 80 columns wide and would break the line.
    console.print(line, highlight=False, soft_wrap=not console.is_terminal)


def _take(spec: Product, settings: Settings, product: ProductStore) -> tuple[str, ...]:
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
        # A moment at which the recording's last key is over and its labels are known.
        endless = spec.grain.endless
        end = endless.instant_after(endless.key_at(spec.grain.index(available.keys[-1]) + spec.label_delay + 1))
        clock.move(product.settings, spec.name, end or datetime.fromisoformat("2200-01-01T00:00:00+00:00"))
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


def _advance(product: ProductStore, keys: tuple[str, ...], part: Part) -> None:
    spec = product.spec
    stages = [stage for module in (raw, validated, features, outcomes) for stage in module.stages(spec)]
    for stage in stages:
        # Once, before the first chunk of keys: the features of every chunk read the slow tables.
        if stage.source is not None and stage.source.is_slow:
            _work(product, stage, keys)
    for start in range(0, len(keys), CHUNK_KEYS):
        part.show(start, len(keys))
        for stage in stages:
            if stage.source is None or not stage.source.is_slow:
                _work(product, stage, keys[start : start + CHUNK_KEYS])
    rows = sum(record.rows for record in product.tables.records("features", keys).values())
    quarantined = sum(
        record.rows
        for source in spec.sources
        for record in product.tables.records(naming.stage("quarantine", source.name)).values()
    )
    part.outcome = f"{counted(rows, 'row')} of {counted(len(keys), 'key')}, {span(keys)}; {quarantined:,} in quarantine"


def _ask(product: ProductStore, verdict: Verdict) -> asking.Answered:
    """Release the model in the own store, and ask it about the newest row; of a live product, now."""
    outcome = "passed" if verdict.passed else "was not passed"
    signing.write_release(
        product,
        releases.next_release(
            product=product.name,
            digest=verdict.digest,
            contract_sha256=product.artifacts.bundle(verdict.digest).manifest["contract_sha256"],
            cutoff=verdict.cutoff,
            reason=f"tried once, in a store of its own: nothing is released, and the gate {outcome}",
            author=AUTHOR,
            at=product.now,
            previous=None,
            override=None if verdict.passed else Override(by=AUTHOR, reason="to be asked once"),
        ),
        warn=_LOG.info,  # that releases here are not signed
    )
    records = product.tables.records("features")
    newest = max((key for key in records if records[key].rows), key=product.spec.grain.index)
    row = product.tables.read("features", [newest]).tail(1)
    if product.spec.is_live:
        row = row.with_columns(pl.lit(product.now).alias(name) for name in ("service_time", "asked_at"))
    values = row.row(0, named=True)
    request = {
        "entity": values["entity"],
        **{name: values[name].isoformat() for name in ("service_time", "asked_at")},
        "features": {item.name: values[item.name] for item in product.spec.fields},
    }
    file = product.settings.state / "request.json"
    file.write_text(json.dumps(msgspec.to_builtins(request), indent=2), encoding="utf-8")
    return next(asking.answers(product, file))


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
    # A stage has done its work when it yields its report, of which nothing is needed here.
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
