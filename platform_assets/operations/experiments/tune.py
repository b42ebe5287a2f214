"""Search for better settings: `driftline tune`. Each trial learns from training keys alone and is judged on the last of
them, so the holdout and everything behind it stay unseen. No model is stored.

Trials are in Optuna's journal, a file of JSON lines in the searcher's state folder. The sampler's seed follows from the
search's seed and the number of ended trials: a trial that a kill left running is repeated with the same settings.
"""

from __future__ import annotations

import fcntl
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from platform_assets.base.wording import counted
from platform_assets.engine import digests
from platform_assets.engine.digests import reads
from platform_assets.launch.profiles import profile
from platform_assets.operations.experiments import terminal
from platform_assets.product.learner import Alone, Resumable, TrainingProblem
from platform_assets.product.spec import Product
from platform_assets.product.tuning import Range
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.product_store import ProductStore
from platform_assets.training import libraries, requests
from platform_assets.training.changes import check_search, value_of, with_values
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.learners.network import learner_of
from platform_assets.training.steps import process
from platform_assets.training.steps.jobs import Request

if TYPE_CHECKING:
    import optuna

STUDY_LETTERS = 12
STARTS = 5
"""Trials that are never pruned: a median of fewer says little."""
UNJUDGED = 0.2
"""First share of a trial in which it is not pruned: twice the share in which the learning rate of a network climbs."""
FINISHED, PRUNED = "COMPLETE", "PRUNED"
"""Names of Optuna's states."""
FAILED_BECAUSE = "why"
"""Attribute of a trial that could not be fitted; one that failed without it was killed, and does not count."""


def run(
    product: ProductStore,
    cutoff: str,
    count: int,
    console: Console,
    *,
    seed: int = 0,
    stop: process.StopRequest | None = None,
) -> list[optuna.trial.FrozenTrial]:
    """Go on with a search until it has a number of trials; return them.

    The first trial has the settings of the product's file. The same product file, data, libraries and seed continue the
    same search.

    Args:
        count: of all trials, those of earlier calls included.

    Raises:
        ValueError: nothing to vary, a setting that the product refuses, too few keys, or the search is under way.
        MissingPartitions: a training key has no features or outcomes yet.
    """
    spec, request = product.spec, request_of(product, cutoff)
    stop = process.StopRequest().listen() if stop is None else stop
    with _opened(product, request, seed) as study, terminal.progress(console) as progress:
        trials = _ended(study)
        whole = progress.add_task(f"{product.name} {cutoff}", total=count, completed=len(trials))
        one = progress.add_task("trial", total=None)
        while len(trials) < count:
            stop.check()
            progress.reset(one, description=f"trial {len(trials) + 1}", total=None)
            trial, began_s = _ask(study, spec, seed * 1_000_003 + len(trials)), process.cpu_s()
            one_trial = Trial(trial, stop, lambda done, steps: progress.update(one, completed=done, total=steps))
            _fit(product, request, study, one_trial)
            trials = _ended(study)
            text = f"{line(spec, trials)}; {process.cpu_s() - began_s:.1f} CPU s"
            progress.print(text, highlight=False, markup=False)
            progress.update(whole, completed=len(trials))
    return trials


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


@contextmanager
def _opened(product: ProductStore, request: Request, seed: int) -> Iterator[optuna.Study]:
    """Open the study of equal code, data, configuration, space, libraries and seed; no other process may meanwhile."""
    optuna, spec = _optuna(), product.spec
    versions = {**libraries.installed(), "optuna": optuna.__version__}
    base = requests.fingerprint(spec, digests.code_digest(Learning.for_product(spec)), request, versions, step="tune")
    space = [setting.document() for setting in spec.search]
    name = sha256(canonical({"base": base, "space": space, "seed": seed}))[:STUDY_LETTERS]
    path = product.settings.state / "tuning" / f"{product.name}-{name}.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another `driftline tune` is at this search ({path}); wait until it has ended.") from None
        # A kill may leave Optuna's lock, for which it would wait 30 s, and half a line, which would spoil the next.
        Path(f"{path}.lock").unlink(missing_ok=True)
        file.truncate(path.read_bytes().rfind(b"\n") + 1)
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTS)
        study = optuna.create_study(storage=storage, pruner=pruner, study_name=name, load_if_exists=True)
        for left in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(left.number, state=optuna.trial.TrialState.FAIL)
        yield study


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that ended by themselves, in order."""
    return [
        trial for trial in study.trials if trial.state.name in (FINISHED, PRUNED) or FAILED_BECAUSE in trial.user_attrs
    ]


def _ask(study: optuna.Study, spec: Product, seed: int) -> optuna.Trial:
    """Begin the next trial. Equal trials before it and an equal seed give equal settings.

    The first one has those of the product's file, or no parameters where one of these lies outside of the search.
    """
    optuna, space = _optuna(), spec.search
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    if not _ended(study):
        values = {setting.name: value_of(spec, setting.name) for setting in space}
        if not all(setting.has(values[setting.name]) for setting in space):
            return study.ask()
        if not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
            study.enqueue_trial(
                {
                    item.name: values[item.name] if isinstance(item, Range) else item.samples.index(values[item.name])
                    for item in space
                }
            )
    distributions, kinds = {}, optuna.distributions
    for item in space:
        if isinstance(item, Range):
            kind = kinds.IntDistribution if item.is_whole else kinds.FloatDistribution
            distributions[item.name] = kind(item.low, item.high, log=item.is_log)
        else:
            distributions[item.name] = kinds.CategoricalDistribution(range(len(item.samples)))
    return study.ask(distributions)


def values_of(spec: Product, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a trial's parameters: those of the product's file where it has none."""
    if not params:
        return {setting.name: value_of(spec, setting.name) for setting in spec.search}
    return {
        item.name: params[item.name] if isinstance(item, Range) else item.samples[params[item.name]]
        for item in spec.search
    }


class Trial(Alone):
    """Progress of a trial: its curve ends it where it is worse than most others."""

    def __init__(self, trial: optuna.Trial, stop: process.StopRequest, on_step: Callable[[int, int], None]) -> None:
        super().__init__()
        self.trial, self._stop, self._on_step = trial, stop, on_step

    def note(self, done: int, steps: int, **measures: float) -> None:
        """Keep and judge the measures."""
        super().note(done, steps, **measures)
        self._go_on(done, steps)
        self._judge(done, steps, measures)

    def take_steps(self, loop: Resumable) -> None:
        """Run a loop to its end."""
        while not loop.is_finished:
            epochs = len(loop.history)
            loop.step()
            self._go_on(loop.done, loop.steps)
            if len(loop.history) > epochs:
                self._judge(len(loop.history), loop.epochs, loop.history[-1])

    def _go_on(self, done: int, steps: int) -> None:
        self._on_step(done, steps)
        self._stop.check()

    def _judge(self, done: int, steps: int, measures: Mapping[str, float]) -> None:
        loss = measures.get("judged_loss")
        if loss is not None and done < steps:
            self.trial.report(loss, done)
            if done > UNJUDGED * steps and self.trial.should_prune():
                raise _optuna().TrialPruned


def _fit(product: ProductStore, request: Request, study: optuna.Study, progress: Trial) -> None:
    """Fit a trial, and tell the study how it ended."""
    optuna, trial = _optuna(), progress.trial
    try:
        loss = _loss(product, _tried(product.spec, trial.params), request, progress)
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except TrainingProblem as problem:
        trial.set_user_attr(FAILED_BECAUSE, str(problem))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, loss)


def _tried(spec: Product, params: Mapping[str, Any]) -> Product:
    try:
        return with_values(spec, values_of(spec, params))
    except ValueError as problem:  # each value is fine, and together they are not
        raise TrainingProblem(str(problem)) from None


def _loss(product: ProductStore, spec: Product, request: Request, progress: Trial) -> float:
    """Learn from the training keys; return the mean log loss on the keys that judge, in nats."""
    maker, digests_by_key = Learning.for_product(spec), (request.features, request.outcomes)
    assert request.known_before is not None
    known_before = datetime.fromisoformat(request.known_before)
    with reads.guarded(spec.module, maker):
        maker.prepare(request.device, request.precision)
        rows = maker.rows(product.tables, request.training_keys, *digests_by_key, known_before).labelled()
        learned = maker.learn(rows)
        blobs = maker.fit(learned, rows, request.training_keys, progress, request.device, request.precision)
        judging = maker.rows(product.tables, request.holdout_keys, *digests_by_key, known_before).labelled()
        if not len(judging.inputs):
            raise ValueError(
                f"the {len(request.holdout_keys)} keys from {request.holdout_keys[0]} on, which judge trials of "
                f"{spec.name}, have no labelled row; choose another cutoff."
            )
        loss = float(spec.task.losses(judging.labels, maker.answers(blobs, learned, judging)).mean())
    if not math.isfinite(loss):
        raise TrainingProblem(f"the loss on the rows that judge is {loss}; expected a finite number")
    return loss


def line(spec: Product, trials: Sequence[optuna.trial.FrozenTrial]) -> str:
    """Return one line about the newest of some trials, and the best so far."""
    trial, winner = trials[-1], best(trials)
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
    return f"trial {len(trials)}: {outcome}{against}; {values}"


def best(trials: Sequence[optuna.trial.FrozenTrial]) -> tuple[float, int] | None:
    """Return the lowest loss of a finished trial, and its number, from 1; the first of equals."""
    losses = [
        (trial.value or 0.0, number) for number, trial in enumerate(trials, start=1) if trial.state.name == FINISHED
    ]
    return min(losses, default=None)


def report(spec: Product, cutoff: str, trials: Sequence[optuna.trial.FrozenTrial]) -> str:
    """Return what came of a search, and its best settings as text to paste."""
    states = Counter(trial.state.name for trial in trials)
    failed = len(trials) - states[FINISHED] - states[PRUNED]
    outcomes = f"{counted(len(trials), 'trial')}, {states[PRUNED]} ended early, {failed} failed"
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


def _optuna() -> Any:
    """Return Optuna, without its messages about each trial.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise ValueError(
            "Optuna is not installed here; expected it for `driftline tune`: pip install 'driftline[tuning]'."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
