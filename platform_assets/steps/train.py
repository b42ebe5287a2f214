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

import torch
from safetensors.torch import save

from platform_assets import naming, specs
from platform_assets.compute import baselines, determinism
from platform_assets.compute.learn import Learned, codes, learn
from platform_assets.compute.train import Loop, check_device, check_labels, tensors
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from platform_assets.steps import instructions, process, rows
from platform_assets.steps.attempt import TTL_S, Attempt
from platform_assets.steps.state import saves
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

    rows: rows.Rows
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
        record = ledgers.read(naming.CHECKPOINTS, job.fingerprint)
        return record is not None and store.is_whole(record["manifest"], naming.CHECKPOINT_BLOBS)

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
        data, learned, known_before = fitted.rows, fitted.learned, known_before_of(spec, job)
        attempt.beat(is_due=True)
        beside = baselines.fit(learned, data.inputs, data.labels, spec.task)
        stop.check()
        manifest = {
            "format": FORMAT,
            "product": job.product,
            "cutoff": job.cutoff,
            "weights": store.put(fitted.weights),
            "learned": store.put_json(learned.to_json()),
            "baselines": store.put_json(beside),
            "config": store.put_json({"format": FORMAT, "training": asdict(spec.training)}),
            "computed": {"device": job.device, "precision": job.precision},
            "data": {"features": dict(job.features), "outcomes": dict(job.outcomes)},
            "known_before": None if known_before is None else known_before.isoformat(),
            "training_keys": list(job.training_keys),
            "holdout_keys": list(job.holdout_keys),
            "history": fitted.history,
        }
        try:
            ledgers.create(naming.CHECKPOINTS, job.fingerprint, {"manifest": store.put(canonical(manifest))})
        except RecordExists:
            log("this checkpoint is on record already; it is used, and what was damaged of it is put right.")
        if not is_made():
            raise ArtifactProblem(
                f"{spec.name} {job.cutoff}: blobs of its checkpoint are damaged, and training again on this machine "
                "gave other bytes; put them back from a backup, or train with another seed."
            )
        saves(settings, job.fingerprint).forget()
        return _report(store, ledgers, job, attempt, is_reused=False) | {"use": use.columns()}


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
    check_device(job.device, job.precision)
    determinism.fix(spec.training.threads, job.device)
    data = rows.read(
        spec,
        TableStore(settings.root, spec.name),
        keys=job.training_keys,
        features=job.features,
        outcomes=job.outcomes,
        known_before=known_before_of(spec, job),
    ).labelled()
    labels = data.labels
    check_labels(labels, spec.task)
    learned = learn(data.inputs, spec.fields, target=spec.task.target_of(labels))
    log(f"{spec.name} {job.cutoff}: {len(labels)} labelled rows of {len(job.training_keys)} keys.")
    weights, history = _train(spec, job, settings, attempt, stop, data, learned, log, save_every_s)
    return Fit(rows=data, learned=learned, weights=weights, history=history)


def _train(
    spec: ProductSpec,
    job: Job,
    settings: Settings,
    attempt: Attempt,
    stop: process.StopRequest,
    data: rows.Rows,
    learned: Learned,
    log: Callable[[str], None],
    save_every_s: float | None,
) -> tuple[bytes, list[dict[str, float]]]:
    """Return the final weights as safetensors, and the loss of each epoch."""
    determinism.seed(spec.training.seed)
    network = spec.model(learned, spec.training)
    inputs, labels = tensors(data.inputs, codes(learned, data.inputs.categorical)), torch.from_numpy(data.labels)
    loop = Loop(network, inputs, labels, spec.training, spec.task, learned.target, job.device, job.precision)
    kept = saves(settings, job.fingerprint)
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
    return save({name: value.cpu().contiguous() for name, value in loop.model.state_dict().items()}), loop.history


def known_before_of(spec: ProductSpec, job: Job) -> datetime | None:
    """Return the moment at or after which a label counts as not known; None where all count."""
    if job.known_before is not None:
        return datetime.fromisoformat(job.known_before)
    return None if spec.grain.kind == "batch" else spec.grain.instant(job.cutoff)


def _report(store: ArtifactStore, ledgers: Ledgers, job: Job, attempt: Attempt, *, is_reused: bool) -> dict[str, Any]:
    record = ledgers.read(naming.CHECKPOINTS, job.fingerprint)
    assert record is not None
    manifest = store.get_json(record["manifest"])
    return {
        "kind": "result",
        "checkpoint": record["manifest"],
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
        result = run(specs.load(job.product), job, Settings.from_environment(), log=context.log.info, stop=stop)
        context.report_custom_message(result)


if __name__ == "__main__":
    main()
