"""Replay history under every retraining policy, and say what each gains for its CPU seconds: `driftline backtest`.

Every decision could have trained one model. Each of these is a training as any checkpoint's, by the same launcher and
request, and what is on record is not trained again. A policy then only chooses among them: never, always, every n keys,
by performance, by drift, or the product's own. Each is compared with an even calendar of as many trainings and with
random ones, because a policy that a calendar beats is not worth its complexity.
"""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING

import dagster as dg
import msgspec
import numpy as np

from platform_assets.base import naming
from platform_assets.data import unlabelled
from platform_assets.data.stage_inputs import require
from platform_assets.engine.digests import reads
from platform_assets.engine.outside import Work
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.launch.launchers import StepLauncher
from platform_assets.launch.profiles import profile
from platform_assets.monitoring import drift_index
from platform_assets.operations.experiments import backtest_policies, launching
from platform_assets.operations.experiments.backtest_arithmetic import Outcome, Past, Plan, outcome, percent, sentences
from platform_assets.product.learned import Learned
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.attempts import BACKTEST
from platform_assets.store.records.trainings import CheckpointManifest
from platform_assets.training import requests
from platform_assets.training.checkpoint import STEP
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.histograms import histograms
from platform_assets.training.labelled_rows import Rows
from platform_assets.training.reference import Reference, reference_of
from platform_assets.training.steps import instructions
from platform_assets.training.steps.jobs import Job
from platform_assets.training.stored_models import read_model

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table


@dataclass(frozen=True)
class Backtest:
    """A history that is replayed.

    Attributes:
        keys: those that are scored.
        jobs: the training of each cutoff.
    """

    product: ProductStore
    keys: Sequence[str]
    jobs: Mapping[str, Job]

    @cached_property
    def manifests(self) -> dict[str, CheckpointManifest]:
        """The manifest of each cutoff's checkpoint."""
        digests = {cutoff: _made(self.product, job) for cutoff, job in self.jobs.items()}
        get = self.product.artifacts.get_json
        return {cutoff: msgspec.convert(get(digest or ""), CheckpointManifest) for cutoff, digest in digests.items()}

    @cached_property
    def learned(self) -> dict[str, Learned]:
        """What each training learned besides weights."""
        artifacts = self.product.artifacts
        return {
            cutoff: Learned.from_json(artifacts.get_json(manifest.learned))
            for cutoff, manifest in self.manifests.items()
        }

    @cached_property
    def past(self) -> Past:
        """Each model's answers on the labelled rows from its cutoff on, and the CPU seconds of its training."""
        product, grain, keys = self.product, self.product.spec.grain, list(self.keys)
        maker = Learning.for_product(product.spec)
        features, outcomes = (
            {key: record.content_digest for key, record in require(product.tables, stage, keys).items()}
            for stage in ("features", "outcomes")
        )
        with reads.guarded(product.spec.module, maker):
            maker.prepare("cpu", "float32")
            rows = maker.rows(product.tables, keys, features, outcomes, None).labelled()
            counts = dict(rows.frame.group_by("key").len().iter_rows())
            ends = np.cumsum([counts.get(key, 0) for key in keys])
            starts = [bisect_left(keys, grain.index(cutoff), key=grain.index) for cutoff in self.jobs]
            answers = []
            for (cutoff, manifest), start in zip(self.manifests.items(), starts, strict=True):
                first = int(ends[start - 1]) if start else 0
                scored = Rows(frame=rows.frame[first:], inputs=rows.inputs[first:], task=rows.task)
                blobs = read_model(product.artifacts, manifest.weights)
                given = maker.answers(blobs, self.learned[cutoff], scored)
                answers.append(tuple(np.split(given, ends[start:-1] - first)))
        # Of the process that finished a training, whose record is the newest.
        missing, seconds = {job.fingerprint for job in self.jobs.values()}, dict[str, float]()
        for _, record in product.history.trainings_newest_first():
            if record.fingerprint in missing:
                missing.remove(record.fingerprint)
                seconds[record.fingerprint] = record.cpu_s
            if not missing:
                break
        if missing:
            raise ValueError(
                f"{product.name}: {len(missing)} of {len(self.jobs)} trainings of the backtest left a checkpoint and "
                "no record of their CPU seconds; expected both. Choose another first cutoff, or train with another "
                "seed."
            )
        return Past(
            measures=measures_of(product.spec.task),
            keys=tuple(keys),
            labels=tuple(np.split(rows.labels, ends[:-1])),
            starts=tuple(starts),
            answers=tuple(answers),
            cpu_s=tuple(seconds[job.fingerprint] for job in self.jobs.values()),
        )

    @cached_property
    def index_of(self) -> backtest_policies.Drift:
        """Measures the drift index at a decision against the champion's training keys.

        Rows are read once and counted lazily, per key and champion, because only policies that look at drift need them.
        The counts of two champions are cached, as policies look at one after the other.
        """
        spec, cutoffs = self.product.spec, list(self.jobs)
        usable = {*self.keys, *(key for job in self.jobs.values() for key in job.features)}
        keys = sorted(usable, key=spec.grain.index)

        @cache
        def rows() -> "dict[str, pl.DataFrame]":
            frame = self.product.tables.read("features", keys, columns=[item.name for item in spec.fields])
            parts = frame.partition_by("key", as_dict=True)
            return {key: parts.get((key,), frame.clear()) for key in keys}

        @lru_cache(maxsize=2 * len(keys))
        def counts(champion: int, key: str) -> dict[str, list[int]]:
            return histograms(rows()[key], self.learned[cutoffs[champion]])

        @lru_cache(maxsize=2)
        def reference(champion: int) -> Reference:
            training_keys = self.jobs[cutoffs[champion]].training_keys
            return reference_of({key: counts(champion, key) for key in training_keys})

        def index_of(champion: int, fit: int) -> drift_index.Index:
            before = [key for key in keys if spec.grain.index(key) < spec.grain.index(cutoffs[fit])]
            window = {key: counts(champion, key) for key in before[-spec.monitors.drift_window :]}
            return drift_index.index(
                window, reference(champion), limit=spec.monitors.drift_limit, margin=spec.monitors.margin
            )

        return index_of

    @cached_property
    def plans(self) -> dict[str, Plan]:
        """When every policy would have trained, by its name."""
        return backtest_policies.plans(self.past, self.product.spec, self.index_of)

    @cached_property
    def outcomes(self) -> dict[str, Outcome]:
        """What every policy gains and costs, by its name."""
        return {name: outcome(self.past, name, plan) for name, plan in self.plans.items()}

    def sentences(self) -> list[str]:
        """Return the findings about the product's own policy."""
        own = self.outcomes[backtest_policies.OWN]
        return sentences(own, [value for value in self.outcomes.values() if value is not own])

    def retrained_at(self, policy: str) -> list[str]:
        """Return the cutoffs at which a policy trains."""
        return [list(self.jobs)[fit] for fit in self.plans[policy][1:]]


def open_backtest(product: ProductStore, first: str | None, last: str | None, versions: Mapping[str, str]) -> Backtest:
    """Compose what is replayed.

    Args:
        first: cutoff of the first model that answers; by default the earliest with enough labelled keys before it.
        last: the last key to score; by default the newest with labels.
        versions: of libraries, from the launcher.

    Raises:
        ValueError: no labels, too few to train twice, or too few keys before a cutoff.
        MissingPartitions: a key has no features or outcomes.
    """
    spec, grain = product.spec, product.spec.grain
    labelled = product.tables.records("outcomes")
    if not labelled:
        raise ValueError(f"{spec.name} has no labelled key yet; advance some before a backtest.")
    first = first or grain.key_at(spec.min_keys + spec.label_delay)
    last = last or max(labelled, key=grain.index)
    every = spec.retraining.decide_every
    if grain.index(last) < grain.index(first) + every:
        raise ValueError(
            f"a backtest of {spec.name} from cutoff {first} to key {last} holds no decision; expected at least "
            f"{every + 1} labelled keys from the first cutoff on."
        )
    span = grain.span(first, last)
    out = {*product.history.excluded(span), *unlabelled.missing(product.tables, span)}
    size = profile(spec.training.profile)
    jobs = {
        cutoff: requests.job(product, cutoff, requests.left_out(product, cutoff), versions, size, purpose=BACKTEST)
        for cutoff in span[::every]
    }
    return Backtest(product, [key for key in span if key not in out], jobs)


def run(product: ProductStore, launcher: StepLauncher, first: str | None = None, last: str | None = None) -> Backtest:
    """Train the models that are missing, one after the other, and return what is replayed.

    Raises:
        dagster.Failure: a training failed.
    """
    spec = product.spec
    size = profile(spec.training.profile)
    versions = launcher.libraries(size)
    backtest = open_backtest(product, first, last, versions)
    missing = {cutoff: job for cutoff, job in backtest.jobs.items() if _made(product, job) is None}

    def trainings(context: dg.AssetExecutionContext) -> None:
        for number, (cutoff, job) in enumerate(missing.items(), start=1):
            context.log.warning(f"training {number} of {len(missing)}, cutoff {cutoff}")
            launcher.run(
                context=context,
                module=STEP,
                extras=instructions.to_extras(job, Learning.for_product(spec), versions),
                profile=size,
                work=Work(
                    product=spec.name, step=BACKTEST, cutoff=cutoff, fingerprint=job.fingerprint, owner=spec.owner
                ),
                is_shared=True,
            )

    if missing:
        launching.in_a_run(product.settings, naming.job("backtest", spec.name), naming.pool(size.name), trainings)
    return backtest


def _made(product: ProductStore, job: Job) -> str | None:
    """Return the digest of a training's manifest; None unless it is on record and complete."""
    manifest = product.history.checkpoint(job.fingerprint)
    is_whole = manifest is not None and product.artifacts.is_whole(manifest, naming.CHECKPOINT_BLOBS)
    return manifest if is_whole else None


def as_json(backtest: Backtest) -> str:
    """Return the outcome of every policy as one JSON object."""
    past = backtest.past
    document = {
        "product": backtest.product.name,
        "keys": [past.keys[0], past.keys[-1]],
        "rows": int(past.rows.sum()),
        "cutoffs": list(backtest.jobs),
        "findings": backtest.sentences(),
        "policies": [
            {**value.row(), "retrained_at": backtest.retrained_at(name)} for name, value in backtest.outcomes.items()
        ],
    }
    return json.dumps(document)


def as_table(backtest: Backtest) -> "Table":
    """Return a terminal's table of the policies."""
    from platform_assets.operations.experiments import terminal

    past = backtest.past
    title = f"{past.fits} models, {past.keys[0]} to {past.keys[-1]}, {past.rows.sum():,} rows"
    numbers = ("trains", "log loss", "gain", "cost", "even calendar", "random dates", "hindsight")
    table = terminal.table(title, ("policy",), numbers)
    table.add_column("trained at")
    for name, value in backtest.outcomes.items():
        shares = (value.gain_share, value.cost_share, value.even_gain_share, value.random_gain_share)
        dates = ", ".join(backtest.retrained_at(name)) or "never"
        percentages = (percent(share) for share in (*shares, value.best_gain_share))
        table.add_row(name, str(value.retrainings), f"{value.log_loss:.5f}", *percentages, dates)
    return table
