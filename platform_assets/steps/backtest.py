"""Fit one cutoff of a backtest and score later keys: `python -m platform_assets.steps.backtest`, input by Pipes.

It learns as `steps.train` does: same rows, seed and threads, and the same keys held out. Nothing is judged on those
here, but a model released in production would not have seen them either. Baselines, export and verdict are left out:
they choose nothing, and every retraining pays the same for them. A fit is made once per fingerprint, its scores once
per set of scored rows; after a kill at any moment, the next attempt resumes.
"""

from __future__ import annotations

from msgspec.structs import asdict

from platform_assets.compute.learn import Learned
from platform_assets.makers.checkpoint import Learning
from platform_assets.records.attempts import BACKTEST_ATTEMPTS, unique_attempts
from platform_assets.records.models import FITS, SCORES, Scores
from platform_assets.records.models import Fit as FitRecord
from platform_assets.steps import fitting, process, scores
from platform_assets.steps.attempt import Attempt
from platform_assets.steps.jobs import BacktestJob
from platform_assets.steps.models import read_model, stored_model
from platform_assets.steps.use import Columns
from platform_assets.storage.artifacts import ArtifactProblem
from platform_assets.storage.ledgers import RecordExists
from platform_assets.storage.tables import TableStore


class Scored(scores.FitScores, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    """Result of a backtest step, and whether its fit and its scores existed already."""

    is_fit_reused: bool
    is_score_reused: bool


class Backtesting(fitting.Fitting[BacktestJob]):
    """Stores the fit itself, and its scores."""

    attempts_ledger = BACKTEST_ATTEMPTS

    def attempt(self) -> Attempt:
        """Return a try that records what its process had used before."""
        attempt = super().attempt()
        attempt.note(cpu_s_before=process.cpu_s())
        return attempt

    def is_made(self) -> bool:
        """Return whether the fit is on record and complete."""
        return scores.fit(self.store, self.ledgers, self.job.fingerprint) is not None

    def make(self, attempt: Attempt) -> None:
        """Fit, and record it with the CPU seconds of all attempts at it."""
        fitted, job, store = self.fit(attempt), self.job, self.store
        manifest = {
            "format": scores.FORMAT,
            "product": job.product,
            "cutoff": job.cutoff,
            "weights": stored_model(store, fitted.blobs),
            "learned": store.put_json(fitted.learned.to_json()),
            "training_keys": job.training_keys,
            "holdout_keys": job.holdout_keys,
            "history": fitted.history,
        }
        ledger = self.ledgers.of(BACKTEST_ATTEMPTS)
        before = unique_attempts(ledger.records()) if attempt.fence > 1 else []
        mine = [record for _, record in before if record.fingerprint == job.fingerprint]
        lost_s = sum((record.cpu_s or 0.0) - (record.cpu_s_before or 0.0) for record in mine)
        cpu_s = round(process.cpu_s() - (attempt.facts.cpu_s_before or 0.0) + lost_s, 3)
        if not attempt.conclude(FITS, FitRecord(manifest=store.put_json(manifest), cpu_s=cpu_s)):
            self.log("this fit is already on record and is used; blobs that were damaged are restored.")

    def report(self, attempt: Attempt, used: Columns | None, *, is_reused: bool) -> Scored:
        """Score, unless that is done already."""
        job, store, ledgers = self.job, self.store, self.ledgers
        scored = {"features": job.scored_features, "outcomes": job.scored_outcomes}
        is_score_reused = scores.find(store, ledgers, job.fingerprint, **scored) is not None
        fitted = scores.fit(store, ledgers, job.fingerprint)
        if fitted is not None and not is_score_reused:
            try:
                result = Scores(manifest=self._score(fitted.manifest))
                ledgers.of(SCORES).create(scores.address(fitted.manifest, **scored), result)
            except RecordExists:
                self.log("the same rows were scored before and are used; blobs that were damaged are restored.")
        complete = scores.find(store, ledgers, job.fingerprint, **scored)
        if complete is None:
            raise ArtifactProblem(
                f"{self.spec.name} {job.cutoff}: blobs of a fit or of its scores are damaged, and computing them again "
                "on this machine gave other bytes; restore them from a backup."
            )
        return Scored(**asdict(complete), is_fit_reused=is_reused, is_score_reused=is_score_reused)

    def _score(self, fitted: str) -> str:
        """Score the labelled rows of the keys; return the sha256 of the manifest."""
        job, store = self.job, self.store
        document, maker = store.get_json(fitted), Learning.of(self.spec)
        learned = Learned.from_json(store.get_json(document["learned"]))
        maker.prepare("cpu", "float32")
        blobs = read_model(store, document["weights"])
        keys = list(job.scored_features)
        tables = TableStore(self.settings.root, self.spec.name)
        labelled = maker.rows(tables, keys, job.scored_features, job.scored_outcomes, None).labelled()
        answers = maker.answers(blobs, learned, labelled)
        counted = dict(labelled.frame.group_by("key").len().iter_rows())
        manifest = {
            "format": scores.FORMAT,
            "fit": fitted,
            "keys": keys,
            "rows": [counted.get(key, 0) for key in keys],
            "answers": store.put(answers.tobytes()),
            "width": None if answers.ndim == 1 else answers.shape[1],
            "labels": store.put(labelled.labels.astype("<f8").tobytes()),
        }
        return store.put_json(manifest)


def main() -> None:
    """Run the step that Dagster Pipes describes."""
    fitting.main(Backtesting, BacktestJob)


if __name__ == "__main__":
    main()
