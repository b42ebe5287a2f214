"""Run the trials of a search: in this process one after the other, or as steps, several at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from platform_assets.base import naming
from platform_assets.base.failures import DEADLINE, OUT_OF_MEMORY
from platform_assets.engine import digests
from platform_assets.engine.outside import Work
from platform_assets.launch.launchers import StepFailure, StepLauncher
from platform_assets.launch.monthly_budget import MonthlyBudget
from platform_assets.launch.profiles import StepProfile
from platform_assets.operations.experiments import launching
from platform_assets.product.spec import Product
from platform_assets.store.artifacts import canonical
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.attempts import TRIAL
from platform_assets.training import requests
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.steps import instructions, process, trial
from platform_assets.training.steps.jobs import Request, TrialJob, Tried

if TYPE_CHECKING:
    import dagster as dg
    from rich.progress import Progress

STEP = "platform_assets.training.steps.trial"
OF_SETTINGS = (OUT_OF_MEMORY.name, DEADLINE.name)
"""Failures of a step that other settings may not have: the trial has failed, and the search goes on."""


def done(tried: Tried) -> Future[Tried]:
    """Return what has ended already."""
    future: Future[Tried] = Future()
    future.set_result(tried)
    return future


@dataclass
class Here:
    """Fits trials in this process."""

    product: ProductStore
    stop: process.StopRequest
    progress: Progress

    def over_budget(self, cutoff: str, under_way: int) -> str | None:
        """Return None: they are not paid for."""
        return None

    def submit(self, spec: Product, job: TrialJob) -> Future[Tried]:
        """Fit a trial of a product with the trial's settings."""
        bar = self.progress.add_task("trial", total=None)
        try:
            shown = trial.TrialProgress(
                job, self.stop, lambda done, steps: self.progress.update(bar, completed=done, total=steps)
            )
            return done(trial.run(spec, job, self.product.settings, shown))
        finally:
            self.progress.remove_task(bar)


@contextmanager
def steps(
    product: ProductStore, launcher: StepLauncher, size: StepProfile, versions: Mapping[str, str], room: int
) -> Iterator[Steps]:
    """Yield what runs trials as steps; those under way are stopped when the block ends."""
    withdrawn = threading.Event()
    with ThreadPoolExecutor(room) as pool:
        try:
            yield Steps(product, launcher, size, versions, pool, withdrawn)
        finally:
            withdrawn.set()


@dataclass
class Steps:
    """Runs trials as steps, each in a thread and in a run of Dagster's of its own."""

    product: ProductStore
    launcher: StepLauncher
    size: StepProfile
    versions: Mapping[str, str]
    pool: ThreadPoolExecutor
    withdrawn: threading.Event

    def over_budget(self, cutoff: str, under_way: int) -> str | None:
        """Return why no other trial may start; each is expected to cost what a training does."""
        over = MonthlyBudget().over(self.product, cutoff, under_way)
        return over and (
            f"no more trials of {self.product.name} are launched: {over} Raise Retraining.monthly_budget_usd, or "
            "search in this process: DRIFTLINE_LAUNCHER=subprocess."
        )

    def submit(self, spec: Product, job: TrialJob) -> Future[Tried]:
        """Begin a trial of a product with the trial's settings."""
        return self.pool.submit(self._run, spec, job)

    def _run(self, spec: Product, job: TrialJob) -> Tried:
        maker = Learning.for_product(spec)
        request = msgspec.convert(job, Request, from_attributes=True)
        params = canonical(job.params).decode()
        fingerprint = requests.fingerprint(
            spec, digests.code_digest(maker), request, self.versions, step=TRIAL, params=params
        )
        work = Work(product=spec.name, step=TRIAL, cutoff=job.cutoff, fingerprint=fingerprint, owner=spec.owner)

        def launched(context: dg.AssetExecutionContext) -> object:
            return self.launcher.run(
                context=context,
                module=STEP,
                extras=instructions.to_extras(job, maker, self.versions),
                profile=self.size,
                work=work,
                withdrawn=self.withdrawn,
            )

        try:
            job_name, pool = naming.job("tune", spec.name), naming.pool(self.size.name)
            result = launching.in_a_run(self.product.settings, job_name, pool, launched)
        except StepFailure as failure:
            if failure.kind not in OF_SETTINGS:
                raise
            problem = str(failure.description).partition(" Its last output:")[0]
            return Tried(curve=[], loss=None, problem=problem, cpu_s=0.0, peak_memory_mb=0.0)
        return msgspec.convert(result, Tried)
