"""Fit one cutoff of a backtest and score what came later: `python -m platform_assets.steps.backtest`, told by Pipes.

It learns by the lines of `steps.train`: same rows, seed and threads, the same keys held out although nobody judges it
here, because what production would release has not seen them either. Baselines, export and verdict are left out: they
choose nothing and every retraining pays them alike. A fit is made once a fingerprint, its scores once a set of
scored rows; killed at any moment, the next attempt goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from platform_assets import specs
from platform_assets.compute.learn import Learned
from platform_assets.makers.checkpoint import Learning
from platform_assets.records.attempts import BACKTEST_ATTEMPTS, each_once
from platform_assets.records.models import FITS, SCORES, Fit, Scores
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from platform_assets.steps import instructions, process, scores, train
from platform_assets.steps.attempt import TTL_S, Attempt
from platform_assets.steps.state import saves
from platform_assets.storage.artifacts import ArtifactProblem, ArtifactStore
from platform_assets.storage.ledgers import Ledgers, RecordExists
from platform_assets.storage.tables import TableStore


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a fit of a backtest is told.

    Attributes:
        training: as the training step is told; the fingerprint is the fit's.
        scored_features, scored_outcomes: content digests by key, of the keys to score, all at or after the cutoff.
    """

    training: train.Job
    scored_features: Mapping[str, str]
    scored_outcomes: Mapping[str, str]

    @staticmethod
    def from_extras(extras: Mapping[str, Any]) -> Job:
        """Return the job that a Pipes context's extras describe; raise `ValueError` naming what is missing."""
        needed = ("scored_features", "scored_outcomes")
        if missing := [name for name in needed if not extras.get(name)]:
            raise ValueError(f"the backtest step was started without {', '.join(missing)} in its extras.")
        return Job(training=train.Job.from_extras(extras), **{name: dict(extras[name]) for name in needed})


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
    """Fit, or go on with, or reuse; score; return what the step reports.

    Args:
        log: takes one line an epoch and at other turns.
        stop: asked between steps of the training.
        ttl_s: of the lease.
        save_every_s: how much work may be lost to a kill; None for what suits the place of the saves.

    Returns:
        As `scores.find`, and whether fit and scores were there already.

    Raises:
        TrainingProblem: rows or a configuration from which nothing can be learned.
        Preempted: stopped on request.
        ArtifactProblem: what is on record is damaged and cannot be made again here.
    """
    stop = stop or process.StopRequest()
    store, ledgers = ArtifactStore(settings.root), Ledgers(settings.root, spec.name)
    is_new = _fit(spec, job.training, settings, store, ledgers, log, stop, ttl_s, save_every_s)
    scored = {"features": job.scored_features, "outcomes": job.scored_outcomes}
    is_reused = scores.find(store, ledgers, job.training.fingerprint, **scored) is not None
    fitted = scores.fit(store, ledgers, job.training.fingerprint)
    if fitted is not None and not is_reused:
        try:
            made = Scores(manifest=_score(spec, job, settings, store, fitted.manifest))
            ledgers.of(SCORES).create(scores.address(fitted.manifest, **scored), made)
        except RecordExists:
            log("the same rows were scored before; those scores are used, and what was damaged of them is put right.")
    found = scores.find(store, ledgers, job.training.fingerprint, **scored)
    if found is None:
        raise ArtifactProblem(
            f"{spec.name} {job.training.cutoff}: blobs of a fit or of its scores are damaged, and making them again on "
            "this machine gave other bytes; put them back from a backup."
        )
    return {"kind": "result", **found, "is_fit_reused": not is_new, "is_score_reused": is_reused}


def _fit(
    spec: ProductSpec,
    job: train.Job,
    settings: Settings,
    store: ArtifactStore,
    ledgers: Ledgers,
    log: Callable[[str], None],
    stop: process.StopRequest,
    ttl_s: float,
    save_every_s: float | None,
) -> bool:
    """Make sure that the fit is there; return whether this attempt made it."""

    def goes_on() -> bool:
        stop.check()
        return scores.fit(store, ledgers, job.fingerprint) is None

    attempt = Attempt(
        settings,
        ledgers,
        fingerprint=job.fingerprint,
        cutoff=job.cutoff,
        profile_name=spec.training.profile,
        ttl_s=ttl_s,
        records=BACKTEST_ATTEMPTS,
        told=job.attempt,
    )
    attempt.facts["cpu_s_before"] = began_cpu_s = process.cpu_s()
    with attempt:
        if not goes_on() or not attempt.acquire(wait=goes_on) or not goes_on():
            return False
        fitted = train.fit(spec, job, settings, attempt, stop, log=log, save_every_s=save_every_s)
        manifest = {
            "format": scores.FORMAT,
            "product": job.product,
            "cutoff": job.cutoff,
            "weights": store.put(fitted.weights),
            "learned": store.put_json(fitted.learned.to_json()),
            "training_keys": list(job.training_keys),
            "holdout_keys": list(job.holdout_keys),
            "history": fitted.history,
        }
        before = each_once(ledgers.of(BACKTEST_ATTEMPTS).each()) if attempt.fence > 1 else []
        mine = [record for _, record in before if record.fingerprint == job.fingerprint]
        lost_s = sum((record.cpu_s or 0.0) - (record.cpu_s_before or 0.0) for record in mine)
        cpu_s = round(process.cpu_s() - began_cpu_s + lost_s, 3)
        try:
            record = Fit(manifest=store.put_json(manifest), cpu_s=cpu_s)
            ledgers.of(FITS).create(job.fingerprint, record)
        except RecordExists:
            log("this fit is on record already; it is used, and what was damaged of it is put right.")
        saves(settings, job.fingerprint).forget()
        return True


def _score(spec: ProductSpec, job: Job, settings: Settings, store: ArtifactStore, fitted: str) -> str:
    """Score the labelled rows of the keys; return the sha256 of the manifest."""
    told, maker = store.get_json(fitted), Learning.of(spec)
    learned = Learned.from_json(store.get_json(told["learned"]))
    maker.prepare("cpu", "float32")
    network = maker.load(learned, store.get(told["weights"]))
    keys = sorted(job.scored_features, key=spec.grain.index)
    tables = TableStore(settings.root, spec.name)
    asked = maker.rows(tables, keys, job.scored_features, job.scored_outcomes, None).labelled()
    said = maker.answers(network, learned, asked)
    counted = dict(asked.frame.group_by("key").len().iter_rows())
    manifest = {
        "format": scores.FORMAT,
        "fit": fitted,
        "keys": keys,
        "rows": [counted.get(key, 0) for key in keys],
        "answers": store.put(said.tobytes()),
        "width": None if said.ndim == 1 else said.shape[1],
        "labels": store.put(asked.labels.astype("<f8").tobytes()),
    }
    return store.put_json(manifest)


def main() -> None:
    """Run the step that Dagster Pipes describes."""
    process.die_with_parent()
    stop = process.StopRequest().listen()
    with instructions.opened() as context:
        job = Job.from_extras(context.extras)
        spec = specs.load(job.training.product)
        instructions.check_maker(context.extras, Learning.of(spec))
        instructions.check_libraries(context.extras)
        result = run(spec, job, Settings.from_environment(), log=context.log.info, stop=stop)
        context.report_custom_message(result)


if __name__ == "__main__":
    main()
