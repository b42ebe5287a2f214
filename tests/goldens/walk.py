"""Walk a product through every stage on small inputs, in this process.

Files land as an upstream would deliver them, the stages run as Dagster runs them, and the live model answers the
product's own requests through the service's code. Everything a clock would measure is fixed, so two walks of the same
code store the same content.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.demo import replay
from platform_assets.demo.replay.recording import Reader
from platform_assets.engine.store_resource import StoreResource
from platform_assets.evaluation.releases import next_release
from platform_assets.launch.launchers import StepLauncher
from platform_assets.product.spec import FaultKind, Product
from platform_assets.serving.answer.live import Live
from platform_assets.serving.answer.model import Model
from platform_assets.serving.answer.predict import Predictor
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from tests.doubles import documents, instances
from tests.doubles.launcher import InProcessLauncher

LANDED_AT = datetime(2024, 1, 2, tzinfo=UTC)
LATENCY_US = 700
TRAINED = ("checkpoint", "onnx", "evaluation")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of `advance`: a range of keys, and the keys that are delivered broken in it."""

    first: str
    last: str
    faults: Mapping[str, FaultKind] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A product and the runs of its walk.

    Attributes:
        spec: the product, with its small settings.
        before: the run before the first model; the key after it is the first cutoff.
        after: the runs with answers of that model; the key after the last of them is the second cutoff.
    """

    spec: Product
    before: Run
    after: tuple[Run, ...]

    @property
    def cutoffs(self) -> tuple[str, str]:
        return tuple(self.spec.grain.shift(run.last, 1) for run in (self.before, self.after[-1]))  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class ServedKey:
    """A service's answers and refusals for one key."""

    answers: list[dict[str, Any]]
    refusals: list[str]


class Log:
    """Collects the service's records in memory, in place of its file."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def append(self, lines: bytes | bytearray) -> None:
        self.lines += [json.loads(line) for line in bytes(lines).splitlines()]


def walk(scenario: Walk, settings: Settings, launcher: StepLauncher | None = None) -> dict[str, ServedKey]:
    """Walk all stages on the settings' empty store; return the service's answers by key.

    Args:
        launcher: of the first training and export; the others run in this process.
    """
    store = StoreResource(variables=settings.to_environment())
    in_process = InProcessLauncher(scenario.spec, settings)
    here, defs = (
        build_defs(specs=[scenario.spec], resources={"store": store, "launcher": runner})
        for runner in (in_process, launcher or in_process)
    )
    with instances.forgetful() as instance:
        walker = Walker(scenario, settings, defs, instance)
        walker.advance(scenario.before)
        walker.retrain(scenario.cutoffs[0])
        for run in scenario.after:
            walker.ask(run)
            walker.advance(run)
        walker.defs = here
        walker.retrain(scenario.cutoffs[1])
    return walker.served


class Walker:
    def __init__(self, scenario: Walk, settings: Settings, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.spec, self.first, self.settings = scenario.spec, scenario.before.first, settings
        self.defs, self.instance = defs, instance
        self.served: dict[str, ServedKey] = {}

    def advance(self, run: Run) -> None:
        """Land a run's keys and take them in."""
        self.land(run)
        self.take_in(run)

    def take_in(self, run: Run, *, is_strict: bool = True) -> None:
        """Materialise a run's keys, and the earlier keys whose labels arrive with them.

        Args:
            is_strict: raise what a stage raises; otherwise go on with the stages that do not need it.
        """
        grain = self.spec.grain
        first = grain.key_at(max(grain.index(self.first), grain.index(run.first) - self.spec.label_delay))
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": run.last}
        self.job("advance").execute_in_process(instance=self.instance, tags=tags, raise_on_error=is_strict)

    def land(self, run: Run) -> None:
        spec, grain = self.delivered(run), self.spec.grain
        labelled = set(replay.labelled_keys(spec, grain.shift(run.last, 1)))
        list(replay.land(ProductStore(spec, self.settings), grain.span(self.first, run.last), labelled=labelled))
        for path in Path(self.settings.root, "landing").rglob("*.*"):
            os.utime(path, (LANDED_AT.timestamp(), LANDED_AT.timestamp()))
        replay.move_on(ProductStore(spec, self.settings), replay.end_of(spec, run.last, Reader(spec)))

    def retrain(self, cutoff: str) -> None:
        """Train, judge and release. A test of its own proves that a Bento serves; here that is assumed."""
        tables = TableStore(self.settings.root, self.spec.name)
        self.materialise(cutoff, TRAINED)
        bundle = tables.records("onnx", [cutoff])[cutoff].content_digest
        tables.record("service", cutoff, content_digest="0", inputs={"bundle": bundle}, code="0")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("LOGNAME", "a golden")  # the author of a release, from the system's user
            self.materialise(cutoff, ("release",))
        ledgers = Ledgers(self.settings.root, self.spec.name)
        if ledgers.latest(naming.RELEASES) is None:
            # Without a live model the rest of the walk would be empty, so a model that the gates refuse goes live too.
            manifest = ArtifactStore(self.settings.root).bundle(bundle).manifest
            at = clock.now(self.settings, self.spec.name, is_live=False)
            names = {"product": self.spec.name, "digest": bundle, "cutoff": cutoff, "why": "refused", "by": "a golden"}
            contract = manifest["contract_sha256"]
            record = next_release(**names, contract_sha256=contract, at=at, previous=None)
            ledgers.append(naming.RELEASES, record.document())

    def materialise(self, cutoff: str, stages: Sequence[str], *, is_strict: bool = True) -> None:
        """Materialise some stages of a cutoff; `is_strict` as in `take_in`."""
        chosen = [dg.AssetKey(naming.asset_key(self.spec.name, stage)) for stage in stages]
        self.job("retrain").execute_in_process(
            instance=self.instance, partition_key=cutoff, asset_selection=chosen, raise_on_error=is_strict
        )

    def ask(self, run: Run) -> None:
        """Let the live model answer the requests of a run's keys, once each, into the log that `predictions` reads."""
        spec = self.delivered(run)
        number, release = Ledgers(self.settings.root, spec.name).latest(naming.RELEASES) or (0, {})
        model = Model.load(ArtifactStore(self.settings.root), documents.live_digest(release))
        reader, lines = Reader(spec), []
        for key in spec.grain.span(run.first, run.last):
            if key not in self.served:
                questions = replay.requests(spec, key, reader)
                # Each request alone; the log records have fixed moments.
                live = Live(model, number, "release")
                log, answers, refused = Log(), [], []
                predictor = Predictor(log)  # type: ignore[arg-type]  # of the log it uses `append` alone
                for question in questions:
                    status, body, _ = predictor.answer(live, json.dumps(question).encode(), time.perf_counter())
                    if status == 200:
                        answers.append(json.loads(body))
                    else:
                        refused.append(f"{status}: {json.loads(body)['error']}")
                for line in log.lines:
                    line |= {"answered_at_utc": line["asked_at"], "latency_us": LATENCY_US}
                self.served[key], logged = ServedKey(answers=answers, refusals=refused), log.lines
                lines += logged
        folder = self.settings.prediction_log / spec.name
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{len(list(folder.iterdir())) + 1}-1.jsonl").write_text(text, encoding="utf-8")

    def delivered(self, run: Run) -> Product:
        spec = self.spec
        for key, kind in run.faults.items():
            spec = replay.inject(spec, replay.Injected(kind=kind, keys=(key,)))
        return spec

    def job(self, verb: str) -> Any:
        return self.defs.resolve_job_def(naming.job(verb, self.spec.name))


def settings_in(folder: Path) -> Settings:
    """Return settings with root and state in a folder, and create Dagster's home."""
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    settings.dagster_home.mkdir(parents=True)
    return settings
