"""Fit one trial of a search, and record how well it does on keys before the holdout. No model is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field

from platform_assets import clock
from platform_assets.compute import rare
from platform_assets.compute.train import TrainingProblem
from platform_assets.learners.base import History
from platform_assets.makers.checkpoint import Learning
from platform_assets.problems import Problem, RecordExists
from platform_assets.records import tunings
from platform_assets.records.base import Document, Number
from platform_assets.records.tunings import TRIALS, Trial
from platform_assets.steps import process
from platform_assets.steps.attempt import Attempt
from platform_assets.steps.fitting import Fit, Fitting
from platform_assets.steps.jobs import Job
from platform_assets.storage.ledger import Ledger
from platform_assets.storage.tables import TableStore


class Pruned(Problem):
    """The curve of a trial is worse than those of most others."""


class TrialJob(Job, frozen=True, kw_only=True):
    """Input of a trial: a training whose holdout are the keys that judge it.

    Attributes:
        study, number: where its record belongs.
        values: of what is varied.
    """

    study: str
    number: int
    values: Document


@dataclass(frozen=True)
class TrialFit(Fitting[TrialJob]):
    """Fits a trial.

    Attributes:
        is_hopeless: takes how far the fit is, how long it is, and the loss on the learner's validation rows; True ends
            the trial. It is called for every point of the curve, after a kill for those before it too.
        curve: filled while it fits.
    """

    _: KW_ONLY
    is_hopeless: Callable[[int, int, float], bool]
    curve: History = field(default_factory=list)
    attempts_ledger = tunings.ATTEMPTS

    def is_made(self) -> bool:
        """Return whether the trial is on record."""
        return self._trials.at(self.job.number) is not None

    def judge(self, point: Mapping[str, float], steps: int) -> None:
        """Keep a point of the curve; raise `Pruned` if the trial is hopeless."""
        self.curve.append(dict(point))
        done, loss = point["epoch"], point.get("judged_loss")
        if loss is not None and done < steps and self.is_hopeless(int(done), steps, loss):
            raise Pruned

    def make(self, attempt: Attempt) -> None:
        """Fit, judge, and record the trial; one that cannot be fitted is on record too."""
        began_s = process.cpu_s()
        try:
            fitted = self.fit(attempt)
            quality, loss = self._judged(fitted)
            result = self._record(tunings.FINISHED, began_s, loss=loss, quality=quality)
        except Pruned:
            result = self._record(tunings.PRUNED, began_s)
        except TrainingProblem as problem:
            result = self._record(tunings.FAILED, began_s, why=str(problem))
        attempt.beat(is_due=True)
        try:
            self._trials.create_number(self.job.number, result)
        except RecordExists:
            self.log(f"trial {self.job.number} is already on record.")

    def report(self, attempt: Attempt, used: object, *, is_reused: bool) -> Trial:
        """Return the record."""
        record = self._trials.at(self.job.number)
        assert record is not None
        return record

    def _judged(self, fitted: Fit) -> tuple[dict[str, Number | None], float]:
        job, maker = self.job, Learning.of(self.spec)
        tables = TableStore(self.settings.root, self.spec.name)
        rows = maker.rows(tables, job.holdout_keys, job.features, job.outcomes, self.known_before).labelled()
        if not len(rows.inputs):
            raise ValueError(
                f"the {len(job.holdout_keys)} keys from {job.holdout_keys[0]} on, which judge trials of "
                f"{self.spec.name}, have no labelled row; choose another cutoff."
            )
        answers, labels = maker.answers(fitted.blobs, fitted.learned, rows), rows.labels
        task = self.spec.task
        quality = {**rare.quality(labels, answers, task), **task.quality(labels, answers)}
        return dict(quality), float(task.losses(labels, answers).mean())

    def _record(
        self,
        state: str,
        began_s: float,
        *,
        loss: float | None = None,
        quality: dict[str, Number | None] | None = None,
        why: str = "",
    ) -> Trial:
        return Trial(
            fingerprint=self.job.fingerprint,
            at_utc=clock.now(self.settings, self.spec.name, is_live=True).isoformat(),
            values=self.job.values,
            state=state,
            why=why,
            loss=loss,
            quality=quality or {},
            curve=self.curve,
            cpu_s=round(process.cpu_s() - began_s, 3),
        )

    @property
    def _trials(self) -> Ledger[Trial]:
        return self.ledgers.of(TRIALS.of(self.job.study))
