"""Fit one cutoff of a backtest and score what came later: `python -m platform_assets.steps.backtest`, told by Pipes.

It learns by the lines of `steps.train`: same rows, seed and threads, the same keys held out although nobody judges it
here, because what production would release has not seen them either. Baselines, export and verdict are left out: they
choose nothing and every retraining pays them alike. A fit is made once a fingerprint, its scores once a set of
scored rows; killed at any moment, the next attempt goes on.
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
from platform_assets.steps.use import Columns
from platform_assets.storage.artifacts import ArtifactProblem
from platform_assets.storage.ledgers import RecordExists
from platform_assets.storage.tables import TableStore


class Scored(scores.Found, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    """What a fit reports, and whether fit and scores were there already."""

    is_fit_reused: bool
    is_score_reused: bool


class Backtesting(fitting.Fitting[BacktestJob]):
    """Keeps the fit itself, and its scores."""

    told = BACKTEST_ATTEMPTS

    def attempt(self) -> Attempt:
        """Return a try that tells what its process had used before."""
        attempt = super().attempt()
        attempt.note(cpu_s_before=process.cpu_s())
        return attempt

    def is_made(self) -> bool:
        """Tell whether the fit is on record and whole."""
        return scores.fit(self.store, self.ledgers, self.job.fingerprint) is not None

    def make(self, attempt: Attempt) -> None:
        """Fit, and put it on record with the CPU seconds of all attempts at it."""
        fitted, job, store = self.fit(attempt), self.job, self.store
        manifest = {
            "format": scores.FORMAT,
            "product": job.product,
            "cutoff": job.cutoff,
            "weights": store.put(fitted.weights),
            "learned": store.put_json(fitted.learned.to_json()),
            "training_keys": job.training_keys,
            "holdout_keys": job.holdout_keys,
            "history": fitted.history,
        }
        told = self.ledgers.of(BACKTEST_ATTEMPTS)
        before = unique_attempts(told.records()) if attempt.fence > 1 else []
        mine = [record for _, record in before if record.fingerprint == job.fingerprint]
        lost_s = sum((record.cpu_s or 0.0) - (record.cpu_s_before or 0.0) for record in mine)
        cpu_s = round(process.cpu_s() - (attempt.facts.cpu_s_before or 0.0) + lost_s, 3)
        try:
            record = FitRecord(manifest=store.put_json(manifest), cpu_s=cpu_s)
            self.ledgers.of(FITS).create(job.fingerprint, record)
        except RecordExists:
            self.log("this fit is on record already; it is used, and what was damaged of it is put right.")

    def report(self, attempt: Attempt, used: Columns | None, *, is_reused: bool) -> Scored:
        """Score, unless that was done."""
        job, store, ledgers = self.job, self.store, self.ledgers
        scored = {"features": job.scored_features, "outcomes": job.scored_outcomes}
        is_score_reused = scores.find(store, ledgers, job.fingerprint, **scored) is not None
        fitted = scores.fit(store, ledgers, job.fingerprint)
        if fitted is not None and not is_score_reused:
            try:
                made = Scores(manifest=self._score(fitted.manifest))
                ledgers.of(SCORES).create(scores.address(fitted.manifest, **scored), made)
            except RecordExists:
                self.log(
                    "the same rows were scored before; those scores are used, and what was damaged of them is put "
                    "right."
                )
        found = scores.find(store, ledgers, job.fingerprint, **scored)
        if found is None:
            raise ArtifactProblem(
                f"{self.spec.name} {job.cutoff}: blobs of a fit or of its scores are damaged, and making them again on "
                "this machine gave other bytes; put them back from a backup."
            )
        return Scored(**asdict(found), is_fit_reused=is_reused, is_score_reused=is_score_reused)

    def _score(self, fitted: str) -> str:
        """Score the labelled rows of the keys; return the sha256 of the manifest."""
        job, store = self.job, self.store
        told, maker = store.get_json(fitted), Learning.of(self.spec)
        learned = Learned.from_json(store.get_json(told["learned"]))
        maker.prepare("cpu", "float32")
        network = maker.load(learned, store.get(told["weights"]))
        keys = list(job.scored_features)
        tables = TableStore(self.settings.root, self.spec.name)
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
    fitting.main(Backtesting, BacktestJob)


if __name__ == "__main__":
    main()
