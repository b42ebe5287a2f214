"""Close a product's keys with the real sensors, with real label files, label stages and decisions.

Everything that a test of labels does not examine is recorded directly: features, predictions, performance, a sound
judgement, and a training that succeeds. The keys of each training are determined as `checkpoint` does.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import dagster as dg

from platform_assets.base import naming
from platform_assets.base.keys import BatchGrain, DailyGrain, Grain, HourlyGrain
from platform_assets.data import outcomes, raw, validated
from platform_assets.data.stage_inputs import require
from platform_assets.engine.outside import ALONE
from platform_assets.engine.store_resource import StoreResource
from platform_assets.evaluation import releases
from platform_assets.monitoring import decision
from platform_assets.monitoring.staleness import IDLE_S
from platform_assets.product.spec import Product, Retraining
from platform_assets.sensors import freshness, landings, retrain
from platform_assets.store.partition_records import PartitionRecord, Records
from platform_assets.store.product_store import ProductStore
from platform_assets.training import requests
from tests.doubles import empty_jobs, present, recorded
from tests.doubles.built import built

LABEL = "results"
RULES = Retraining(decide_every=4, max_age=8, cooldown=4, label_patience=6)
GRAINS: Mapping[str, Grain] = {
    "daily": DailyGrain(start="2020-01-01", end="2020-03-31"),
    "hourly": HourlyGrain(start="2020-01-01T00", end="2020-01-04T12"),
    "batches": BatchGrain(count=80),
}


def product(grain: str, rules: Retraining = RULES, **changes: Any) -> Product:
    """Return the recorded product with other keys; batches are not partitioned by a column."""
    batches = grain == "batches"
    deadline = timedelta(minutes=30) if grain == "hourly" else timedelta(days=1)
    sources = tuple(
        replace(source, partition_by=None if batches else source.partition_by, deadline=deadline)
        for source in recorded.SPEC.sources
    )
    values = {"grain": GRAINS[grain], "sources": sources, "history": None, "retraining": rules, **changes}
    return replace(recorded.SPEC, **values)


@dataclass
class Loop:
    """One product's loop.

    Attributes:
        world: the world of the sensor tests.
        trained: by cutoff, training and holdout keys.
        runs: the ranges advanced so far.
    """

    world: Any
    trained: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    runs: list[tuple[str, str]] = field(default_factory=list)

    @property
    def spec(self) -> Product:
        return self.world.spec

    @cached_property
    def assets(self) -> dict[str, dg.AssetsDefinition]:
        """The real assets by stage: those of the label source, to outcomes, and decisions."""
        return {
            key.path[-1]: entry
            for entry in built(self.spec, raw, validated, outcomes, decision, outside=ALONE)
            for key in entry.keys
        }

    @cached_property
    def sensors(self) -> tuple[dg.SensorDefinition, ...]:
        specs = [self.spec]
        return (
            landings.watch.build(specs, empty_jobs.of("advance", specs)),
            retrain.watch.build(specs, empty_jobs.of("retrain", specs)),
            freshness.watch.build(specs),
        )

    def label(self, key: str, *, good: bool = True) -> None:
        grain = self.spec.grain
        at = datetime(2020, 1, 1, tzinfo=UTC) if isinstance(grain, BatchGrain) else grain.instant(key)
        starts, known_at = (recorded.instant_text(at + timedelta(minutes=minutes)) for minutes in (1, 40))
        rows = [f"{key}-{row},{starts},{str(good).lower()},{known_at}" for row in range(2)]
        self.world.land(LABEL, key, "\n".join(["job_id,starts_utc,is_good,known_at_utc", *rows, ""]))

    def close(self, *keys: str) -> None:
        """Land the keys' features, let their time pass, and run the sensors until they request no run."""
        grain = self.spec.grain
        over = grain.instant_after(keys[-1])
        moment = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=grain.index(keys[-1])) if over is None else over
        self.world.move(moment.isoformat())
        self.world.land_key(*keys)
        self.settle()
        self.world.wait(IDLE_S)
        if '"behind":{}' not in self.world.cursors["freshness"]:
            self.world.tick(self.sensors[-1])

    def settle(self) -> None:
        """Tick every sensor until none requests a run, twice."""
        quiet = 0
        while quiet < 2:
            requests = [run for sensor in self.sensors for run in self.world.tick(sensor).run_requests or ()]
            quiet = 0 if requests else quiet + 1
            for run in requests:
                if run.job_name == naming.job("advance", self.spec.name):
                    self._advance(run)
                else:
                    self._train(run)

    def decision(self, key: str) -> dict[str, Any]:
        result = self.world.ledgers.read(naming.DECISIONS, key)
        assert result is not None, key
        return result

    def alerts(self) -> list[tuple[str, str]]:
        """Return kind and id of the alerts, in order."""
        return [(alert["kind"], alert["id"]) for alert in self.world.alerts()]

    def _advance(self, request: dg.RunRequest) -> None:
        first, last = (request.tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end"))
        self.runs.append((first, last))
        keys, tables = self.spec.grain.span(first, last), self.world.tables
        of_labels = naming.stage("validated", LABEL)
        is_taken = self._run(keys, naming.stage("raw", LABEL), of_labels, "outcomes")
        labelled, rows = tables.records("outcomes", keys), tables.records(of_labels, keys)
        for stage in (*(f"validated_{name}" for name in ("plans", "readings")), "features", "predictions"):
            absent = set(keys) - set(tables.records(stage, keys))
            self._record(stage, {key: {"content_digest": f"{stage} {key}"} for key in sorted(absent)})
        inputs = {
            "performance": {key: {"outcomes": record.content_digest} for key, record in labelled.items()},
            "drift": {key: {of_labels: record.content_digest} for key, record in rows.items()},
        }
        notes = {
            "performance": {"window": None, "quality": None},
            "drift": {"verdict": "fine", "is_faulty": False, "primary": None},
        }
        for stage, inputs_by_key in inputs.items():
            stored = tables.records(stage, keys)
            fields = {key: {"inputs": inputs_by_key.get(key, {}), "notes": notes[stage]} for key in keys}
            changed = {
                key: values
                for key, values in fields.items()
                if key not in stored or stored[key].inputs != values["inputs"]
            }
            self._record(stage, changed)
        is_decided = is_taken and self._run(keys, "decision")
        self.world.run(request, dg.DagsterRunStatus.SUCCESS if is_decided else dg.DagsterRunStatus.FAILURE)

    def _record(self, stage: str, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Record several keys of a stage without a table in one commit, as `TableStore.record` does one."""
        stored = self.world.tables.records(stage, values)
        records = [
            PartitionRecord(
                stage=stage,
                key=key,
                sequence=stored[key].sequence + 1 if key in stored else 1,
                rows=0,
                code_digest="0",
                versions=present.of(self.spec, stage),
                **{"content_digest": "0", "inputs": {}, **fields},
            )
            for key, fields in values.items()
        ]
        if records:
            Records(self.world.settings.root, self.spec.name, stage).append(records)

    def _run(self, keys: tuple[str, ...], *stages: str) -> bool:
        """Call the assets' own functions without a run around them; return whether all succeeded."""
        context = SimpleNamespace(
            partition_keys=keys,
            run=SimpleNamespace(tags={}),
            instance=self.world.instance,
            resources=SimpleNamespace(driftline_store=StoreResource()),
            log=logging.getLogger(),
            add_asset_metadata=lambda *_, **__: None,
        )
        for stage in stages:
            compute: Any = self.assets[stage].op.compute_fn
            try:
                result = compute.decorated_fn(context)
                _ = list(result) if isinstance(result, Iterator) else result
            except dg.Failure:
                return False
        return True

    def _train(self, request: dg.RunRequest) -> None:
        cutoff, spec = request.tags["dagster/partition"], self.spec
        tables, ledgers = self.world.tables, self.world.ledgers
        self.trained[cutoff] = self.keys_of(cutoff)
        require(tables, "outcomes", [key for part in self.trained[cutoff] for key in part])
        digest = f"{spec.grain.index(cutoff):064d}"
        tables.record("evaluation", cutoff, content_digest=digest, inputs={}, code="0")
        latest = ledgers.latest(naming.RELEASES)
        record = releases.next_release(
            product=spec.name,
            digest=digest,
            contract_sha256="c" * 64,
            cutoff=cutoff,
            reason="passed",
            author="retrain",
            at=datetime(2020, 1, 1, tzinfo=UTC),
            previous=None if latest is None else latest[0],
        )
        ledgers.append(naming.RELEASES, record.document())
        self.world.run(request, dg.DagsterRunStatus.SUCCESS)

    def keys_of(self, cutoff: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return training and holdout keys of a cutoff, as `checkpoint` does."""
        out = requests.left_out(ProductStore(self.spec, self.world.settings), cutoff)
        return self.spec.split(cutoff, out)
