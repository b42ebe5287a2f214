"""Retraining: the share of weekly training's gain that policies buy, March to December, next to equal even calendars.

The whole recording is landed and taken through the data stages and the job of the backtest, as on the platform. One
model per week is trained on every day before its cutoff except the holdout, 44 in all; the first one, of March 1st,
answers until a policy trains again, and its cost is not counted. Shares are of log loss gained over never, and of CPU
seconds of fits (reading rows, learning, training), both relative to training every week. Everything is memoised below
the state folder, so a second run trains nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import dagster as dg
import numpy as np

from platform_assets import naming, replay, specs
from platform_assets.compute import backtest, backtest_outcomes, backtest_policies, drift, sketch
from platform_assets.compute.backtest import Past, Plan
from platform_assets.compute.backtest_outcomes import Outcome
from platform_assets.compute.learn import Learned
from platform_assets.factory import build_defs
from platform_assets.handle import Product
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from platform_assets.steps import scores
from platform_assets.steps.jobs import BacktestJob
from platform_assets.training import fits as backtest_fits
from resources.launchers import SubprocessLauncher
from resources.store import StoreResource
from tests.benchmarks.harness import Measure

PRODUCT = "flight_delays"
FIRST, LAST = "2013-03-01", "2013-12-31"
STAGES = ("raw_", "validated_", "quarantine_", "features", "outcomes")
STREAMS = 20
BUDGET = 0.20
WEEKLY, NEVER, MONTHLY = "every 7 keys", "never", "every 28 keys"

shown: list[str] = []
"""Sentences about the numbers, filled by `run`."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The fits of the recording and the plan of every policy."""

    spec: ProductSpec
    store: StoreResource
    requests: Mapping[str, BacktestJob]
    fits: Mapping[str, scores.FitScores]
    past: Past
    index_of: backtest_policies.Drift
    plans: Mapping[str, Plan]


def run() -> list[Measure]:
    """Land, advance, backtest; return the measures."""
    result = replay_recording()
    outcomes = {name: backtest_outcomes.outcome(result.past, name, plan) for name, plan in result.plans.items()}
    policy = outcomes[backtest_policies.OWN]
    others = [value for value in outcomes.values() if value is not policy]
    affordable = _affordable(result.past)
    clearest, missed = _clearest_miss(result)
    shown[:] = [*backtest_outcomes.sentences(policy, others), *_dates(result), clearest]
    return [
        Measure(
            measure="own policy: share of weekly's gain in log loss",
            ours=policy.gain_share,
            peers=_peers(policy),
            target=">= 0.85",
        ),
        Measure(measure="own policy: share of weekly's CPU seconds", ours=policy.cost_share, target="<= 0.20"),
        _rows_trained(result, policy),
        Measure(
            measure=f"even calendar of {affordable.retrainings}, the most within {BUDGET:.2f} of weekly's cost: gain",
            ours=affordable.gain_share,
            peers={"share of CPU seconds": affordable.cost_share},
        ),
        *_by_policy(outcomes),
        *_differences(outcomes),
        *_by_month(result),
        missed,
        *_alarms(result),
        Measure(measure="CPU s of a weekly fit, mean", ours=float(np.mean(result.past.cpu_s))),
    ]


def replay_recording() -> Replayed:
    """Take the recording through the platform in a store of this row; return the results of the backtest."""
    spec = specs.load(PRODUCT)
    path = Settings.from_environment().state / "bench-q2"
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(path)})
    store = StoreResource(variables=settings.to_environment())
    keys = spec.grain.span(spec.grain.first, LAST)
    for _ in replay.land(Product(spec, settings), keys):
        pass
    over = spec.grain.instant_after(LAST)
    assert over is not None
    replay.move_on(Product(spec, settings), over + timedelta(days=7))
    defs = build_defs(specs=[spec], resources={"store": store, "launcher": SubprocessLauncher(settings)})
    data = [key for key in defs.resolve_asset_graph().get_all_asset_keys() if key.path[-1].startswith(STAGES)]
    with dg.DagsterInstance.ephemeral() as instance:
        defs.resolve_job_def(naming.job("advance", spec.name)).execute_in_process(
            instance=instance,
            asset_selection=data,
            tags={"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": LAST},
        )
        config = {"first_cutoff": FIRST, "last_key": LAST}
        defs.resolve_job_def(naming.job("backtest", spec.name)).execute_in_process(
            instance=instance, run_config={"ops": {f"{spec.name}__backtest": {"config": config}}}
        )
    return _read(spec, store)


def _read(spec: ProductSpec, store: StoreResource) -> Replayed:
    """Read the job's results, from the same addresses."""
    ledgers = scores.ledgers_of(store.settings.root, spec.name)
    requests = backtest_fits.requests(Product(spec, store.settings), FIRST, LAST)
    fits = {}
    for cutoff, request in requests.items():
        scored = {"features": request.scored_features, "outcomes": request.scored_outcomes}
        result = scores.find(store.artifacts, ledgers, request.fingerprint, **scored)
        assert result is not None, f"the backtest has no fit of {cutoff}"
        fits[cutoff] = result
    past = backtest.from_scores(
        spec.task,
        {cutoff: scores.read(store.artifacts, result.scores) for cutoff, result in fits.items()},
        {cutoff: result.cpu_s for cutoff, result in fits.items()},
    )
    index_of = backtest_fits.drift_reader(Product(spec, store.settings), requests, fits)
    plans = backtest_policies.plans(past, spec, index_of)
    return Replayed(spec=spec, store=store, requests=requests, fits=fits, past=past, index_of=index_of, plans=plans)


def _peers(outcome: Outcome) -> dict[str, float]:
    """Return the shares of gain of other plans with as many retrainings."""
    peers = {
        "even calendar": outcome.even_gain_share,
        "random dates, mean of 20": outcome.random_gain_share,
        "least": outcome.random_low,
        "greatest": outcome.random_high,
        "hindsight": outcome.best_gain_share,
    }
    return {name: value for name, value in peers.items() if value is not None}


def _affordable(past: Past) -> Outcome:
    """Return the even calendar with the most retrainings within the target's budget, which needs no policy."""
    budget_s = BUDGET * past.cost_s(tuple(range(past.fits)))
    plans = [backtest.even(past, count) for count in range(past.fits)]
    plan = max((item for item in plans if past.cost_s(item) <= budget_s), key=len)
    return backtest_outcomes.outcome(past, "even calendar", plan)


def _rows_trained(replayed: Replayed, policy: Outcome) -> Measure:
    """Return the cost in rows: the share of CPU seconds on an otherwise idle machine."""
    artifacts = replayed.store.artifacts
    fits = [artifacts.get_json(item.fit) for item in replayed.fits.values()]
    rows = [float(artifacts.get_json(item["learned"])["rows"]) for item in fits]
    return Measure(
        measure="own policy: share of weekly's rows trained on",
        ours=sum(rows[fit] for fit in policy.plan[1:]) / sum(rows[1:]),
    )


def _by_policy(outcomes: Mapping[str, Outcome]) -> list[Measure]:
    measures = []
    for name, result in outcomes.items():
        label = f"{name}, {result.retrainings} retrainings"
        if name not in (NEVER, WEEKLY, backtest_policies.OWN):
            measures += [
                Measure(measure=f"{label}: share of gain", ours=result.gain_share, peers=_peers(result)),
                Measure(
                    measure=f"{label}: share of CPU seconds",
                    ours=result.cost_share,
                    peers={"even calendar": result.even_cost_share},
                ),
            ]
    policy = outcomes[backtest_policies.OWN]
    others = {name: result for name, result in outcomes.items() if result is not policy}
    for statistic in ("log_loss", "headline", "retrainings"):
        peers = {name: float(getattr(result, statistic)) for name, result in others.items()}
        measures.append(
            Measure(measure=f"own policy: {statistic}, ten months", ours=getattr(policy, statistic), peers=peers)
        )
    return measures


def _differences(outcomes: Mapping[str, Outcome]) -> list[Measure]:
    return [
        Measure(
            measure=f"{name}: log loss minus the even calendar's of {result.retrainings}, 95 % clustered by day",
            ours=result.minus_even,
            peers={"low": result.minus_even_low, "high": result.minus_even_high},
        )
        for name, result in outcomes.items()
        if name not in (NEVER, WEEKLY)
    ]


def by_period(past: Past, plan: Plan, period_of: Callable[[str], str]) -> dict[str, float]:
    """Return the mean log loss of a plan by period, in order of the keys; a period without rows is left out."""
    sums: dict[str, list[float]] = {}
    for fit, first, end in past.turns(plan):
        for index in range(first, end):
            result = sums.setdefault(period_of(past.keys[index]), [0.0, 0.0])
            result[0] += float(past.losses[fit, index])
            result[1] += float(past.rows[index])
    return {period: total / rows for period, (total, rows) in sums.items() if rows}


def _by_month(replayed: Replayed) -> list[Measure]:
    past, policy_plan = replayed.past, replayed.plans[backtest_policies.OWN]
    plans = {
        "own": policy_plan,
        NEVER: replayed.plans[NEVER],
        MONTHLY: replayed.plans[MONTHLY],
        WEEKLY: replayed.plans[WEEKLY],
        "even calendar": backtest.even(past, len(policy_plan) - 1),
    }
    months = {name: by_period(past, plan, lambda key: key[:7]) for name, plan in plans.items()}
    return [
        Measure(
            measure=f"own policy: log loss of {month}",
            ours=months["own"][month],
            peers={name: by_month[month] for name, by_month in months.items() if name != "own"},
        )
        for month in months["own"]
    ]


def _clearest_miss(replayed: Replayed) -> tuple[str, Measure]:
    """Return the window in which the first model, kept all year, most clearly contradicted its own expectations."""
    rules, delay = replayed.spec.retraining, replayed.spec.label_delay
    windows = {
        cutoff: backtest_policies.performance_at(replayed.past, 0, fit, rules, label_delay=delay)
        for fit, cutoff in enumerate(replayed.requests)
        if fit
    }
    tests = [
        (test.p_adjusted, cutoff, name, test.effect, test.p_value)
        for cutoff, window in windows.items()
        for name, test in (window.tests if window is not None else {}).items()
        if test.p_adjusted is not None
    ]
    p_adjusted, cutoff, name, effect, p_value = min(tests)
    text = f"The first model, kept all year, misses its promises most clearly before {cutoff}: {name} {effect:+.2f}"
    return f"{text}, adjusted p = {p_adjusted:.4f}; {1 - rules.confidence:.2g} would fail.", Measure(
        measure="first model, kept all year: least adjusted p-value of its promises",
        ours=p_adjusted,
        peers={"the same test by itself": p_value, "effect": effect, "decisions": float(len(windows))},
    )


def _alarms(replayed: Replayed) -> list[Measure]:
    """Return the share of weeks in which the drift index alarms: on permuted days, and on the days in order."""
    decisions = range(1, replayed.past.fits)
    weekly = [replayed.index_of(fit - 1, fit).is_drift for fit in decisions]
    never = [replayed.index_of(0, fit).is_drift for fit in decisions]
    permuted = _permuted_alarms(replayed)
    return [
        Measure(
            measure=f"drift index: share of weeks with an alarm on {STREAMS} permuted streams",
            ours=permuted["weekly"],
            peers={"against the first model": permuted["first"]},
            target="<= 0.02",
        ),
        Measure(
            measure="drift index: share of weeks with an alarm on the days as they came",
            ours=float(np.mean(weekly)),
            peers={"against the first model": float(np.mean(never))},
        ),
    ]


def _permuted_alarms(replayed: Replayed) -> dict[str, float]:
    """Return the alarm shares when whole days are shuffled: then no week differs from any other except by chance.

    As in the backtest, a decision compares its last seven days with the training days of the previous model, of which
    there are more every week; or always with those of the first model.
    """
    monitors, counts = replayed.spec.monitors, _histograms(replayed)
    keys, cutoffs = list(counts), list(replayed.requests)
    training_sizes = [len(replayed.requests[cutoff].training_keys) for cutoff in cutoffs]
    stream = np.random.default_rng(0)
    alarms: dict[str, list[bool]] = {"weekly": [], "first": []}
    for number in range(STREAMS):
        order = [keys[index] for index in stream.permutation(len(keys))]
        for fit, cutoff in enumerate(cutoffs[1:], start=1):
            end = keys.index(cutoff)
            window = {key: counts[key] for key in order[end - monitors.drift_window : end]}
            for name, size in (("weekly", training_sizes[fit - 1]), ("first", training_sizes[0])):
                reference = drift.reference_of({key: counts[key] for key in order[:size]})
                index = drift.index(window, reference, limit=monitors.drift_limit, margin=monitors.margin)
                alarms[name].append(index.is_drift)
        print(f"permuted stream {number + 1} of {STREAMS}", file=sys.stderr, flush=True)
    return {name: float(np.mean(item)) for name, item in alarms.items()}


def _histograms(replayed: Replayed) -> dict[str, drift.Counts]:
    """Return each day's histograms on the bins of the last fit, which was trained on nearly all days."""
    keys: Sequence[str] = replayed.spec.grain.span(replayed.spec.grain.first, LAST)
    fit = replayed.store.artifacts.get_json(list(replayed.fits.values())[-1].fit)
    learned = Learned.from_json(replayed.store.artifacts.get_json(fit["learned"]))
    columns = [item.name for item in replayed.spec.fields]
    frame = replayed.store.tables(replayed.spec.name).read("features", keys, columns=columns)
    parts = frame.partition_by("key", as_dict=True)
    return {key: sketch.histograms(parts[(key,)], learned) for key in keys}


def _dates(replayed: Replayed) -> list[str]:
    """Return sentences with the trainings of the policies that use more than the calendar."""
    cutoffs = list(replayed.requests)
    sentences = []
    for name in ("performance", "drift", backtest_policies.OWN):
        dates = ", ".join(cutoffs[fit] for fit in replayed.plans[name][1:]) or "never"
        sentences.append(f"{name} trained at: {dates}.")
    return sentences
