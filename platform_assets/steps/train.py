"""Train one product for one cutoff: `python -m platform_assets.steps.train`, told what to do by Dagster Pipes.

Killed at any moment, the next attempt goes on and ends with the same bytes. A fingerprint that is finished is
reused. The result is a checkpoint manifest in the artifact store, which names weights, learned preprocessing,
baselines, configuration and data by digest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from platform_assets import naming, specs
from platform_assets.compute.learn import Learned
from platform_assets.compute.train import Loop
from platform_assets.makers.checkpoint import Learning
from platform_assets.makers.rows import Rows
from platform_assets.records.models import CHECKPOINTS, Checkpoint
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from platform_assets.steps import instructions, process
from platform_assets.steps.attempt import TTL_S, Attempt
from platform_assets.steps.state import Keeps, saves
from platform_assets.steps.use import Use
from platform_assets.storage.artifacts import ArtifactProblem, ArtifactStore, canonical
from platform_assets.storage.ledgers import Ledgers, RecordExists
from platform_assets.storage.tables import TableStore

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a training is told.

    Attributes:
        fingerprint: equal means same result: resume or reuse.
        device: `cpu` or `cuda`, as the spec's profile has accelerators; part of the fingerprint.
        precision: `float32` or `bfloat16`, as the profile says; part of the fingerprint.
        features, outcomes: content digests by key, of training and holdout keys.
        known_before: ISO moment; labels known later do not count. None asks the grain, or takes all for batches.
        attempt: what the launcher says of this try.
    """

    product: str
    cutoff: str
    fingerprint: str
    device: str
    precision: str
    training_keys: tuple[str, ...]
    holdout_keys: tuple[str, ...]
    features: Mapping[str, str]
    outcomes: Mapping[str, str]
    known_before: str | None = None
    attempt: Mapping[str, Any] | None = None

    @staticmethod
    def from_extras(extras: Mapping[str, Any]) -> Job:
        """Return the job that a Pipes context's extras describe; raise `ValueError` naming what is missing."""
        digests = ("features", "outcomes")
        needed = ("product", "cutoff", "fingerprint", "device", "precision", "training_keys", "holdout_keys", *digests)
        if missing := [name for name in needed if name not in extras]:
            raise ValueError(f"the training step was started without {', '.join(missing)} in its extras.")
        job = Job(**{name: extras[name] for name in (*needed, "known_before", "attempt") if name in extras})
        return replace(job, training_keys=tuple(job.training_keys), holdout_keys=tuple(job.holdout_keys))


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What was learned: from which labelled rows, their preprocessing, weights as safetensors, losses by epoch."""

    rows: Rows
    learned: Learned
    weights: bytes
    history: list[dict[str, float]]


def run(
    spec: ProductSpec,
    job: Job,
    settings: Settings,
    *,
    log: Callable[[str], None],
    stop: process.StopRequest | None = None,
    ttl_s: float = TTL_S,
    save_every_s: float | None = None,
) -> dict[str, Any]:
    """Train, or go on with, or reuse; return what the step reports.

    Args:
        log: takes one line an epoch and at other turns.
        stop: asked between steps; a request saves the step in hand and raises `Preempted`.
        ttl_s: of the lease.
        save_every_s: how much work may be lost to a kill; None for what suits the place of the saves.

    Raises:
        TrainingProblem: rows or a configuration from which nothing can be learned.
        Preempted: stopped on request.
        ArtifactProblem: the checkpoint is on record, is damaged, and cannot be made again here.
    """
    stop = stop or process.StopRequest()
    store, ledgers = ArtifactStore(settings.root), Ledgers(settings.root, spec.name)

    def is_made() -> bool:
        record = ledgers.of(CHECKPOINTS).read(job.fingerprint)
        return record is not None and store.is_whole(record.manifest, naming.CHECKPOINT_BLOBS)

    def goes_on() -> bool:
        stop.check()
        return not is_made()

    attempt = Attempt(
        settings,
        ledgers,
        fingerprint=job.fingerprint,
        cutoff=job.cutoff,
        profile_name=spec.training.profile,
        ttl_s=ttl_s,
        told=job.attempt,
    )
    with attempt:
        if not goes_on() or not attempt.acquire(wait=goes_on) or not goes_on():
            return _report(store, ledgers, job, attempt, is_reused=True)
        with Use() as use:
            fitted = fit(spec, job, settings, attempt, stop, log=log, save_every_s=save_every_s)
        attempt.beat(is_due=True)
        baselines = Learning.of(spec).baselines(fitted.learned, fitted.rows)
        stop.check()
        manifest = store.put(canonical(_manifest(spec, job, store, fitted, baselines)))
        try:
            ledgers.of(CHECKPOINTS).create(job.fingerprint, Checkpoint(manifest=manifest))
        except RecordExists:
            log("this checkpoint is on record already; it is used, and what was damaged of it is put right.")
        if not is_made():
            raise ArtifactProblem(
                f"{spec.name} {job.cutoff}: blobs of its checkpoint are damaged, and training again on this machine "
                "gave other bytes; put them back from a backup, or train with another seed."
            )
        saves(settings, job.fingerprint).forget()
        return _report(store, ledgers, job, attempt, is_reused=False) | {"use": use.columns()}


def _manifest(
    spec: ProductSpec, job: Job, store: ArtifactStore, fitted: Fit, baselines: Mapping[str, Any]
) -> dict[str, Any]:
    """Put what was learned into the store, and return the manifest that names it."""
    known_before = known_before_of(spec, job)
    return {
        "format": FORMAT,
        "product": job.product,
        "cutoff": job.cutoff,
        "weights": store.put(fitted.weights),
        "learned": store.put_json(fitted.learned.to_json()),
        "baselines": store.put_json(dict(baselines)),
        "config": store.put_json({"format": FORMAT, "training": asdict(spec.training)}),
        "computed": {"device": job.device, "precision": job.precision},
        "data": {"features": dict(job.features), "outcomes": dict(job.outcomes)},
        "known_before": None if known_before is None else known_before.isoformat(),
        "training_keys": list(job.training_keys),
        "holdout_keys": list(job.holdout_keys),
        "history": fitted.history,
    }


def fit(
    spec: ProductSpec,
    job: Job,
    settings: Settings,
    attempt: Attempt,
    stop: process.StopRequest,
    *,
    log: Callable[[str], None],
    save_every_s: float | None,
) -> Fit:
    """Learn from the rows that a job names, going on from the newest save; the lease must be held.

    Raises:
        TrainingProblem: rows or a configuration from which nothing can be learned.
        Preempted: stopped on request; the step in hand is saved.
    """
    maker = Learning.of(spec)
    maker.prepare(job.device, job.precision)
    tables = TableStore(settings.root, spec.name)
    rows = maker.rows(tables, job.training_keys, job.features, job.outcomes, known_before_of(spec, job)).labelled()
    learned, loop = maker.start(rows, job.device, job.precision)
    log(f"{spec.name} {job.cutoff}: {len(rows.inputs)} labelled rows of {len(job.training_keys)} keys.")
    _take_steps(loop, saves(settings, job.fingerprint), attempt, stop, log=log, save_every_s=save_every_s)
    return Fit(rows=rows, learned=learned, weights=maker.weights(loop), history=loop.history)


def _take_steps(
    loop: Loop,
    kept: Keeps,
    attempt: Attempt,
    stop: process.StopRequest,
    *,
    log: Callable[[str], None],
    save_every_s: float | None,
) -> None:
    """Go on from the newest save to the end."""
    due_s = kept.every_s if save_every_s is None else save_every_s
    if (state := kept.newest()) is not None:
        loop.restore(state)
        log(f"goes on from step {loop.done} of {loop.steps}.")
    attempt.facts |= dict.fromkeys(("resumed_from_step", "steps_done", "steps_saved"), loop.done)
    saved_at_s = time.perf_counter()
    while not loop.is_finished:
        if stop.is_set:
            kept.save(loop.state(), fence=attempt.fence)
            attempt.facts["steps_saved"] = loop.done
            log(f"asked to stop: step {loop.done} of {loop.steps} is saved.")
            raise process.Preempted
        epochs = len(loop.history)
        loop.step()
        attempt.facts["steps_done"] = loop.done
        if len(loop.history) > epochs:
            log(f"epoch {epochs + 1} of {loop.epochs}: train loss {loop.history[-1]['train_loss']:.5f}")
        if loop.done == loop.steps or time.perf_counter() - saved_at_s >= due_s:
            kept.save(loop.state(), fence=attempt.fence)
            attempt.facts["steps_saved"] = loop.done
            saved_at_s = time.perf_counter()
        attempt.beat()


def known_before_of(spec: ProductSpec, job: Job) -> datetime | None:
    """Return the moment at or after which a label counts as not known; None where all count."""
    if job.known_before is not None:
        return datetime.fromisoformat(job.known_before)
    return None if spec.grain.kind == "batch" else spec.grain.instant(job.cutoff)


def _report(store: ArtifactStore, ledgers: Ledgers, job: Job, attempt: Attempt, *, is_reused: bool) -> dict[str, Any]:
    record = ledgers.of(CHECKPOINTS).read(job.fingerprint)
    assert record is not None
    manifest = store.get_json(record.manifest)
    return {
        "kind": "result",
        "checkpoint": record.manifest,
        "history": manifest["history"],
        **manifest["computed"],
        "baselines": store.get_json(manifest["baselines"])["train_log_loss"],
        "is_reused": is_reused,
        "resumed_from_step": attempt.facts["resumed_from_step"],
        "cpu_s": round(process.cpu_s(), 3),
        "peak_memory_mb": round(process.peak_memory_mb(), 1),
    }


def main() -> None:
    """Run the step that Dagster Pipes describes."""
    process.die_with_parent()
    stop = process.StopRequest().listen()
    with instructions.opened() as context:
        job = Job.from_extras(context.extras)
        spec = specs.load(job.product)
        instructions.check_maker(context.extras, Learning.of(spec))
        instructions.check_libraries(context.extras)
        result = run(spec, job, Settings.from_environment(), log=context.log.info, stop=stop)
        context.report_custom_message(result)


if __name__ == "__main__":
    main()
