"""Keep the trials of a search in Optuna's journal, a file of JSON lines in the searcher's state folder.

The sampler's seed follows from the search's seed and the number of trials before. A trial that a kill left running goes
on with its settings.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from platform_assets.product.spec import Product
from platform_assets.product.tuning import Range
from platform_assets.training.changes import value_of
from platform_assets.training.steps.jobs import Tried

if TYPE_CHECKING:
    import optuna

STARTS = 5
"""Trials that must have finished before one ends early: a median of fewer says little."""
FINISHED, PRUNED, RUNNING = "COMPLETE", "PRUNED", "RUNNING"
"""Names of Optuna's states."""
FAILED_BECAUSE = "why"
"""Attribute of a trial that could not be fitted; one that failed without it was killed before it had its settings, and
does not count."""


@contextmanager
def opened(path: Path, name: str) -> Iterator[optuna.Study]:
    """Open a study in its journal; no other process may meanwhile.

    Raises:
        ValueError: another one has it open, or Optuna is not installed.
    """
    optuna = library()
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
        yield optuna.create_study(storage=storage, study_name=name, load_if_exists=True)


def counted(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that have ended by themselves or are under way, in the order of their begin."""
    return [
        trial
        for trial in study.trials
        if trial.state.name in (FINISHED, PRUNED, RUNNING) or FAILED_BECAUSE in trial.user_attrs
    ]


def ended(trials: Sequence[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """Return those that are not under way."""
    return [trial for trial in trials if trial.state.name != RUNNING]


def left_running(study: optuna.Study, spec: Product) -> list[optuna.Trial]:
    """Return the trials that a kill left running; one that had not got all of its settings is given up instead."""
    optuna, result = library(), []
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        is_file = _file(spec) is None and trial.number == counted(study)[0].number
        if len(trial.params) == (0 if is_file else len(spec.search)):
            result.append(optuna.trial.Trial(study, trial._trial_id))
        else:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return result


def ask(study: optuna.Study, spec: Product, seed: int, *, is_alone: bool = True) -> optuna.Trial:
    """Begin the next trial. Equal trials before it and an equal seed give equal settings.

    The first one has those of the product's file, or no parameters where one of these lies outside of the search.

    Args:
        seed: of the search.
        is_alone: whether trials go one after the other; otherwise those under way count as bad ones, so that the next
            is not like them.
    """
    optuna, space, before = library(), spec.search, len(counted(study))
    study.sampler = optuna.samplers.TPESampler(seed=seed * 1_000_003 + before, constant_liar=not is_alone)
    if not before:
        params = _file(spec)
        if params is None:
            return study.ask()
        if not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
            study.enqueue_trial(params)
    distributions, kinds = {}, optuna.distributions
    for item in space:
        if isinstance(item, Range):
            kind = kinds.IntDistribution if item.is_whole else kinds.FloatDistribution
            distributions[item.name] = kind(item.low, item.high, log=item.is_log)
        else:
            distributions[item.name] = kinds.CategoricalDistribution(range(len(item.samples)))
    return study.ask(distributions)


def _file(spec: Product) -> dict[str, float] | None:
    """Return the parameters of the product's file; None where one of its settings lies outside of the search."""
    values = {item.name: value_of(spec, item.name) for item in spec.search}
    if not all(item.has(values[item.name]) for item in spec.search):
        return None
    return {
        item.name: values[item.name] if isinstance(item, Range) else item.samples.index(values[item.name])
        for item in spec.search
    }


def medians(trials: Sequence[optuna.trial.FrozenTrial]) -> list[tuple[int, float]]:
    """Return the medians of the finished trials' judged losses, by epoch or round; none where fewer than `STARTS`."""
    curves = [trial.intermediate_values for trial in trials if trial.state.name == FINISHED]
    if len(curves) < STARTS:
        return []
    points = sorted({point for curve in curves for point in curve})
    return [(point, median(curve[point] for curve in curves if point in curve)) for point in points]


def tell(study: optuna.Study, trial: optuna.Trial, tried: Tried) -> None:
    """Note how a trial ended."""
    states = library().trial.TrialState
    noted = study.trials[trial.number].intermediate_values  # of a search that was killed while it noted them
    for point, loss in tried.curve:
        if point not in noted:
            trial.report(loss, point)
    if tried.problem is not None:
        trial.set_user_attr(FAILED_BECAUSE, tried.problem)
        study.tell(trial, state=states.FAIL)
    elif tried.loss is None:
        study.tell(trial, state=states.PRUNED)
    else:
        study.tell(trial, tried.loss)


def library() -> Any:
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
