"""Search for better settings: `driftline tune`. Each trial learns from training keys alone and is judged on the last of
them, so the holdout and everything behind it stay unseen.

Trials are records, and Optuna's study is built from them each time: a killed search goes on with the next trial, and
suggests what an uninterrupted search would have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from platform_assets import clock, digests, libraries, naming
from platform_assets.handle import Product
from platform_assets.makers.checkpoint import Learning
from platform_assets.problems import RecordExists
from platform_assets.product.changes import check_search, value_of, with_values
from platform_assets.product.tuning import Range, Setting
from platform_assets.records.tunings import FAILED, FINISHED, PRUNED, TRIALS, TUNINGS, Trial, Tuning
from platform_assets.show import proposal
from platform_assets.show.tuning import best, edges, metadata, summary
from platform_assets.stages.tuning import STAGE
from platform_assets.steps import process
from platform_assets.steps.jobs import Request
from platform_assets.steps.trial import TrialFit, TrialJob
from platform_assets.storage.artifacts import canonical, sha256
from platform_assets.training import requests
from platform_assets.wording import counted

if TYPE_CHECKING:
    import optuna

STUDY_LETTERS = 12
STARTS = 5
"""Trials that are never pruned: a median of fewer says little."""
UNJUDGED = 0.2
"""First share of a trial in which it is not pruned: twice the share in which the learning rate of a network climbs."""


@dataclass(frozen=True)
class Search:
    """A search under way.

    Attributes:
        request: of every trial.
        libraries: their versions, Optuna included.
        record: names the study.
    """

    product: Product
    request: Request
    libraries: Mapping[str, str]
    record: Tuning

    def trials(self) -> list[Trial]:
        """Return the ended trials, in order."""
        return [trial for _, trial in self.product.history.trials(self.record.study)]


def run(
    product: Product,
    cutoff: str,
    count: int,
    console: Console,
    *,
    seed: int = 0,
    stop: process.StopRequest | None = None,
) -> Search:
    """Go on with a search until it has a number of trials; return it.

    The first trial has the settings of the product's file. The same product file, data, libraries and seed continue the
    same search.

    Args:
        count: of all trials, those of earlier calls included.

    Raises:
        ValueError: nothing to vary, a setting that the product refuses, or too few keys.
        MissingPartitions: a training key has no features or outcomes yet.
    """
    search = open_search(product, cutoff, seed)
    stop = process.StopRequest().listen() if stop is None else stop
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        trials = search.trials()
        whole = progress.add_task(f"{product.name} {cutoff}", total=count, completed=len(trials))
        one = progress.add_task("trial", total=None)
        while len(trials) < count:
            stop.check()
            progress.reset(one, description=f"trial {len(trials) + 1}", total=None)
            trials.append(
                _run_trial(search, trials, stop, lambda done, steps: progress.update(one, completed=done, total=steps))
            )
            progress.print(line(len(trials), trials), highlight=False, markup=False)
            progress.update(whole, completed=len(trials))
    return search


def open_search(product: Product, cutoff: str, seed: int) -> Search:
    """Return the search of a product's file, put on record if it is new; see `run`."""
    spec = product.spec
    if not spec.search:
        raise ValueError(
            f"{spec.name} has no search; expected one or more in its file, such as "
            "search=(Range(name='learning_rate', low=1e-4, high=1e-2, is_log=True),)."
        )
    check_search(spec)
    request = _request(product, cutoff)
    versions = {**libraries.installed(), "optuna": _optuna().__version__}
    code = digests.code_digest(Learning.of(spec))
    base = requests.fingerprint(spec, code, request, versions, step="tune")
    space = [setting.document() for setting in spec.search]
    record = Tuning(
        study=sha256(canonical({"base": base, "space": space, "seed": seed}))[:STUDY_LETTERS],
        cutoff=cutoff,
        at_utc=clock.now(product.settings, spec.name, is_live=True).isoformat(),
        learner=type(spec.learner).__name__,
        seed=seed,
        space=space,
        learned_keys=len(request.training_keys),
        judged_keys=request.holdout_keys,
    )
    earlier = product.history.tuning(record.study)
    if earlier is None:
        product.ledgers.of(TUNINGS).append(record)
    return Search(product, request, versions, earlier or record)


def line(number: int, trials: Sequence[Trial]) -> str:
    """Return one line about a trial, and the best so far."""
    trial, winner = trials[number - 1], best(trials[:number])
    values = ", ".join(f"{name}={_shown(value)}" for name, value in trial.values.items())
    if trial.state == FINISHED:
        outcome = f"loss {trial.loss:.5f}"
    else:
        outcome = (
            f"failed: {trial.why}"
            if trial.state == FAILED
            else f"ended early at epoch or round {trial.curve[-1]['epoch']}"
        )
    against = "" if winner is None else f"; best {winner[1].loss:.5f} (trial {winner[0]})"
    return f"trial {number}: {outcome}{against}; {values}; {trial.cpu_s:.1f} CPU s"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _request(product: Product, cutoff: str) -> Request:
    """Return what every trial learns from and is judged on: as many keys as a holdout has, just before the holdout."""
    spec = product.spec
    training_keys, _holdout = spec.split(cutoff, requests.left_out(product, cutoff))
    learned, judged = training_keys[: -spec.holdout], training_keys[-spec.holdout :]
    if len(learned) < max(1, spec.learner.validation_keys + 1):
        raise ValueError(
            f"{spec.name}: cutoff {cutoff} has {counted(len(training_keys), 'training key')}, of which the last "
            f"{spec.holdout} judge the trials; {len(learned)} are left to learn from, expected at least "
            f"{max(1, spec.learner.validation_keys + 1)}. Choose a later cutoff."
        )
    return requests.request_of(product, cutoff, learned, judged)


def _run_trial(
    search: Search, trials: Sequence[Trial], stop: process.StopRequest, shown: Callable[[int, int], None]
) -> Trial:
    """Fit the next trial; return its record."""
    spec, number = search.product.spec, len(trials) + 1
    asked = _ask(search.record, spec.search, trials) if trials else None
    values = {item.name: value_of(spec, item.name) for item in spec.search} if asked is None else asked[1]
    try:
        tried = spec if asked is None else with_values(spec, values)
    except ValueError as problem:  # each value is fine, and together they are not
        return _record_refusal(search, number, values, str(problem))
    code = digests.code_digest(Learning.of(tried))
    more = {"step": "tune", "study": search.record.study, "trial": str(number)}
    job = TrialJob(
        **asdict(search.request),
        fingerprint=requests.fingerprint(tried, code, search.request, search.libraries, **more),
        study=search.record.study,
        number=number,
        values=values,
    )
    hopeless = partial(_is_hopeless, None if asked is None else asked[0])
    fit = TrialFit(
        tried, job, search.product.settings, log=lambda _: None, stop=stop, shown=shown, is_hopeless=hopeless
    )
    fit.run()
    record = search.product.history.trial(search.record.study, number)
    assert record is not None
    return record


def _record_refusal(search: Search, number: int, values: dict[str, Any], why: str) -> Trial:
    """Record a trial whose values the product refuses together."""
    product, now = search.product, clock.now(search.product.settings, search.product.name, is_live=True)
    record = Trial(fingerprint="", at_utc=now.isoformat(), values=values, state=FAILED, why=why)
    with contextlib.suppress(RecordExists):
        product.ledgers.of(TRIALS.of(search.record.study)).create_number(number, record)
    return record


def _is_hopeless(trial: optuna.Trial | None, done: int, steps: int, loss: float) -> bool:
    if trial is None:
        return False
    trial.report(loss, done)
    return done > UNJUDGED * steps and trial.should_prune()


def _ask(record: Tuning, space: Sequence[Setting], trials: Sequence[Trial]) -> tuple[optuna.Trial, dict[str, Any]]:
    """Return Optuna's next trial and its values. Equal trials before it and an equal seed give an equal one."""
    optuna = _optuna()
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=record.seed * 1_000_003 + len(trials)),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTS),
    )
    study.add_trials([frozen for trial in trials if (frozen := _frozen(trial, space)) is not None])
    trial = study.ask({setting.name: _distribution(setting) for setting in space})
    values = {
        setting.name: value if isinstance(setting, Range) else setting.samples[value]
        for setting, value in zip(space, trial.params.values(), strict=True)
    }
    return trial, values


def _frozen(trial: Trial, space: Sequence[Setting]) -> optuna.trial.FrozenTrial | None:
    """Return a record as a trial of Optuna's; None for values outside the space, which the product's file may have."""
    optuna = _optuna()
    states = {
        FINISHED: optuna.trial.TrialState.COMPLETE,
        PRUNED: optuna.trial.TrialState.PRUNED,
        FAILED: optuna.trial.TrialState.FAIL,
    }
    values = {setting.name: _native(trial.values[setting.name]) for setting in space}
    if not all(setting.has(values[setting.name]) for setting in space):
        return None
    return optuna.trial.create_trial(
        state=states[trial.state],
        value=trial.loss,
        params={
            item.name: values[item.name] if isinstance(item, Range) else item.samples.index(values[item.name])
            for item in space
        },
        distributions={setting.name: _distribution(setting) for setting in space},
        intermediate_values={
            int(point["epoch"]): float(point["judged_loss"]) for point in trial.curve if "judged_loss" in point
        },
    )


def _native(value: Any) -> Any:
    """Return a value of a record as a product's file writes it: JSON has lists only."""
    return tuple(map(_native, value)) if isinstance(value, list) else value


def _distribution(setting: Setting) -> optuna.distributions.BaseDistribution:
    optuna = _optuna()
    if not isinstance(setting, Range):
        return optuna.distributions.CategoricalDistribution(range(len(setting.samples)))
    kind = optuna.distributions.IntDistribution if setting.is_whole else optuna.distributions.FloatDistribution
    return kind(setting.low, setting.high, log=setting.is_log)


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


@dataclass(frozen=True)
class Result:
    """What came of a search.

    Attributes:
        text: for a terminal.
        diff: of the product's file; empty when it has the best settings already, or cannot be changed by a diff.
    """

    text: str
    diff: str
    has_winner: bool


def reported(search: Search) -> Result:
    """Show the search in Dagster's UI, as a materialisation of the asset `tuning`; return it for a terminal."""
    import dagster as dg

    from platform_assets.demo import home

    product, trials = search.product, search.trials()
    event = dg.AssetMaterialization(
        asset_key=naming.asset_key(product.name, STAGE), metadata=metadata(product.spec, search.record, trials)
    )
    with dg.DagsterInstance.from_config(str(home.prepare(product.settings))) as instance:
        instance.report_runless_asset_event(event)
    lines, winner = [f"{summary(trials)}."], best(trials)
    if winner is None:
        return Result(lines[0], "", has_winner=False)
    change = proposal.of(product.spec, winner[1].values)
    lines += [f"{sentence}." for sentence in edges(product.spec, winner[1])]
    lines += [change.text()]
    return Result("\n".join(lines), change.diff, has_winner=True)
