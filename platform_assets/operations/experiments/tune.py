"""Search for better settings: `driftline tune`. Each trial learns from training keys alone and is judged on the last of
them, so the holdout and everything behind it stay unseen. No model is stored.

Trials run in this process one after the other, or as steps, several at once. One thread asks Optuna and reports to it,
in the order of ends.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console

from platform_assets.base.failures import ADMISSION, UNSCHEDULABLE
from platform_assets.base.wording import counted
from platform_assets.engine import digests
from platform_assets.launch.launchers import StepFailure, StepLauncher
from platform_assets.launch.profiles import profile
from platform_assets.operations.experiments import study, terminal
from platform_assets.operations.experiments.study import FAILED_BECAUSE, FINISHED, PRUNED
from platform_assets.operations.experiments.trials import Here, Steps, done, steps
from platform_assets.product.spec import Product
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.product_store import ProductStore
from platform_assets.training import libraries, requests
from platform_assets.training.changes import check_search, values_of, with_values
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.learners.network import learner_of
from platform_assets.training.steps import process
from platform_assets.training.steps.jobs import Request, TrialJob, Tried

if TYPE_CHECKING:
    import optuna
    from rich.progress import Progress

STUDY_LETTERS = 12
POLL_S = 0.2
"""Seconds until a request to stop is seen while steps run."""
NO_ROOM = (ADMISSION.name, UNSCHEDULABLE.name)
"""Failures of a step that has to wait until another trial ends."""


def run(
    product: ProductStore,
    cutoff: str,
    count: int,
    console: Console,
    *,
    seed: int = 0,
    stop: process.StopRequest | None = None,
    launcher: StepLauncher | None = None,
    at_once: int | None = None,
) -> list[optuna.trial.FrozenTrial]:
    """Go on with a search until it has a number of trials; return them, in the order of their begin.

    The first trial has the settings of the product's file. The same product file, data, libraries and seed continue the
    same search.

    Args:
        count: of all trials, those of earlier calls included.
        launcher: runs trials as steps; None to run them in this process, one after the other.
        at_once: steps at the same time; None for as many as the pool of the profile has.

    Raises:
        ValueError: nothing to vary, a setting that the product refuses, too few keys, more at once than the pool has, a
            month's budget that is used up, or the search is under way.
        MissingPartitions: a training key has no features or outcomes yet.
        dagster.Failure: a step could not be run, or failed by its own error.
        Preempted: stopped on request.
    """
    size = profile(product.spec.training.profile).of_one_process
    if launcher is not None and at_once is not None and not 1 <= at_once <= size.at_once:
        raise ValueError(
            f"--at-once is {at_once}; expected 1 to {size.at_once}, the slots of the pool of profile {size.name} "
            "(its at_once)."
        )
    room = 1 if launcher is None else at_once or size.at_once
    versions = libraries.installed() if launcher is None else launcher.libraries(size)
    request, stop = request_of(product, cutoff), process.StopRequest().listen() if stop is None else stop
    with ExitStack() as stack:
        opened = stack.enter_context(_opened(product, request, versions, seed))
        progress = stack.enter_context(terminal.progress(console))
        trials: Here | Steps = Here(product, stop, progress)
        if launcher is not None:
            trials = stack.enter_context(steps(product, launcher, size, versions, room))
        return _Search(product, request, opened, seed, count, room, trials, stop, progress).run()


def request_of(product: ProductStore, cutoff: str) -> Request:
    """Return what every trial learns from and is judged on: as many keys as a holdout has, just before the holdout."""
    spec = product.spec
    if not spec.search:
        raise ValueError(
            f"{spec.name} has no search; expected one or more in its file, such as "
            "search=(Range(name='learning_rate', low=1e-4, high=1e-2, is_log=True),)."
        )
    check_search(spec)
    training_keys, _holdout = spec.split(cutoff, requests.left_out(product, cutoff))
    learned, judged = training_keys[: -spec.holdout], training_keys[-spec.holdout :]
    if len(learned) < max(1, learner_of(spec).validation_keys + 1):
        raise ValueError(
            f"{spec.name}: cutoff {cutoff} has {counted(len(training_keys), 'training key')}, of which the last "
            f"{spec.holdout} judge the trials; {len(learned)} are left to learn from, expected at least "
            f"{max(1, learner_of(spec).validation_keys + 1)}. Choose a later cutoff."
        )
    return requests.request_of(product, cutoff, profile(spec.training.profile).of_one_process, learned, judged)


def _opened(
    product: ProductStore, request: Request, versions: Mapping[str, str], seed: int
) -> AbstractContextManager[optuna.Study]:
    """Open the study of equal code, data, configuration, space, libraries and seed."""
    spec = product.spec
    used = {**versions, "optuna": study.library().__version__}
    base = requests.fingerprint(spec, digests.code_digest(Learning.for_product(spec)), request, used, step="tune")
    space = [setting.document() for setting in spec.search]
    name = sha256(canonical({"base": base, "space": space, "seed": seed}))[:STUDY_LETTERS]
    return study.opened(product.settings.state / "tuning" / f"{product.name}-{name}.journal", name)


@dataclass
class _Search:
    """A search under way.

    Attributes:
        room: how many trials run at once.
        running: trials under way, by what they will return.
        waiting: trials for which there was no room; each is tried again when another one has ended.
    """

    product: ProductStore
    request: Request
    study: optuna.Study
    seed: int
    count: int
    room: int
    trials: Here | Steps
    stop: process.StopRequest
    progress: Progress
    running: dict[Future[Tried], optuna.Trial] = field(default_factory=dict)
    waiting: list[optuna.Trial] = field(default_factory=list)

    def run(self) -> list[optuna.trial.FrozenTrial]:
        """Run trials until there are enough; return all, in the order of their begin."""
        left, begun = study.left_running(self.study, self.product.spec), study.counted(self.study)
        bar = self.progress.add_task(f"{self.product.name} {self.request.cutoff}", total=self.count)
        while (over := len(study.ended(begun))) < self.count:
            self.progress.update(bar, completed=over)
            self.stop.check()
            # First those that have their settings, while there is room and money.
            while len(self.running) + len(self.waiting) < min(self.room, self.count - over):
                if (spent := self.trials.over_budget(self.request.cutoff, len(self.running))) is not None:
                    if self.running:
                        break
                    raise ValueError(spent)
                is_alone = self.room == 1
                one = left.pop(0) if left else study.ask(self.study, self.product.spec, self.seed, is_alone=is_alone)
                self.running[self._submit(one)] = one
            while not (ended := wait(self.running, timeout=POLL_S, return_when=FIRST_COMPLETED).done):
                self.stop.check()
            in_order = sorted(ended, key=lambda future: self.running[future].number)
            refusals = [self._end(future) for future in in_order]
            if None in refusals:
                left[:0], self.waiting = self.waiting, []
            elif not self.running and (refusal := refusals[0]) is not None:
                raise refusal
            begun = study.counted(self.study)
        return begun

    def _submit(self, one: optuna.Trial) -> Future[Tried]:
        job = TrialJob(
            **msgspec.structs.asdict(self.request),
            module=self.product.spec.module,
            params=one.params,
            medians=study.medians(study.counted(self.study)),
        )
        try:
            spec = with_values(self.product.spec, values_of(self.product.spec, one.params))
        except ValueError as problem:  # each value is fine, and together they are not
            return done(Tried(curve=[], loss=None, problem=str(problem), cpu_s=0.0, peak_memory_mb=0.0))
        return self.trials.submit(spec, job)

    def _end(self, future: Future[Tried]) -> StepFailure | None:
        """Tell the study how a trial ended; have one that had no room wait, and return why."""
        one = self.running.pop(future)
        try:
            tried = future.result()
        except StepFailure as failure:
            if failure.kind not in NO_ROOM:
                raise
            self.progress.print(f"{failure.description}\nIt waits until another trial ends.", markup=False)
            self.waiting.append(one)
            return failure
        study.tell(self.study, one, tried)
        begun = study.counted(self.study)
        number = next(at for at, trial in enumerate(begun, start=1) if trial.number == one.number)
        text = f"{line(self.product.spec, begun, number)}; {tried.cpu_s:.1f} CPU s"
        self.progress.print(text, highlight=False, markup=False)
        return None


def line(spec: Product, trials: Sequence[optuna.trial.FrozenTrial], number: int) -> str:
    """Return one line about a trial, by its number from 1, and the best so far."""
    trial, winner = trials[number - 1], best(trials)
    if trial.state.name == FINISHED:
        outcome = f"loss {trial.value:.5f}"
    elif trial.state.name == PRUNED:
        outcome = f"ended early at epoch or round {trial.last_step}"
    else:
        outcome = f"failed: {trial.user_attrs[FAILED_BECAUSE]}"
    against = "" if winner is None else f"; best {winner[0]:.5f} (trial {winner[1]})"
    values = ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values_of(spec, trial.params).items()
    )
    return f"trial {number}: {outcome}{against}; {values}"


def best(trials: Sequence[optuna.trial.FrozenTrial]) -> tuple[float, int] | None:
    """Return the lowest loss of a finished trial, and its number, from 1; the first of equals."""
    losses = [
        (trial.value or 0.0, number) for number, trial in enumerate(trials, start=1) if trial.state.name == FINISHED
    ]
    return min(losses, default=None)


def report(spec: Product, cutoff: str, trials: Sequence[optuna.trial.FrozenTrial]) -> str:
    """Return what came of a search, and its best settings as text to paste."""
    over = study.ended(trials)
    states = Counter(trial.state.name for trial in over)
    failed = len(over) - states[FINISHED] - states[PRUNED]
    outcomes = f"{counted(len(over), 'trial')}, {states[PRUNED]} ended early, {failed} failed"
    winner = best(trials)
    if winner is None:
        return f"{outcomes}; none finished."
    loss, number = winner
    if number == 1:
        return f"{outcomes}; none is better than the product's file (loss {loss:.5f})."
    first, values = trials[0].value, values_of(spec, trials[number - 1].params)
    gain = "" if first is None else f", {first - loss:.5f} below the product's file"
    edges = (setting.edge(values[setting.name]) for setting in spec.search)
    settings = " ".join(f"--set {shlex.quote(f'{name}={_toml(value)}')}" for name, value in values.items())
    return "\n".join(
        [
            f"{outcomes}; the best is trial {number} with loss {loss:.5f}{gain}.",
            *(f"{sentence}." for sentence in edges if sentence is not None),
            "Write its settings into the product's file, or train with them once:",
            f"driftline train {spec.name} --cutoff {cutoff} {settings}",
        ]
    )


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
