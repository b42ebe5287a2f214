"""Retraining: the share of weekly training's gain that policies buy, March to December, next to equal even calendars.

The whole recording is landed and taken through the data stages and `driftline backtest`, as on the platform. One
model per week is trained on every day before its cutoff except the holdout, 44 in all; the first one, of March 1st,
answers until a policy trains again, and its cost is not counted. Shares are of log loss gained over never, and of CPU
seconds of trainings (the whole step: imports, reading rows, learning, training, baselines, holdout), both relative to
training every week. Trainings are memoised below the state folder, so a second run trains nothing. `Q2_LAST` ends the
replay earlier, for a look at the row.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta

import dagster as dg
import numpy as np

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.demo import replay
from platform_assets.engine import product_files
from platform_assets.engine.store_resource import StoreResource
from platform_assets.launch.launchers import SubprocessLauncher
from platform_assets.monitoring import drift_index
from platform_assets.operations.experiments import backtest_arithmetic, backtest_policies
from platform_assets.operations.experiments.backtest import Backtest
from platform_assets.operations.experiments.backtest import run as replayed_by
from platform_assets.operations.experiments.backtest_arithmetic import Outcome, Past, Plan
from platform_assets.store.product_store import ProductStore
from platform_assets.training.histograms import histograms
from platform_assets.training.reference import Counts, reference_of
from tests.benchmarks.harness import Measure

PRODUCT = "flight_delays"
FIRST, LAST = "2013-03-01", os.environ.get("Q2_LAST", "2013-12-31")
STAGES = ("raw_", "validated_", "quarantine_", "features", "outcomes")
STREAMS = 20
BUDGET = 0.20
WEEKLY, NEVER, MONTHLY = "every 7 keys", "never", "every 28 keys"

shown: list[str] = []
"""Sentences about the numbers, filled by `run`."""


def run() -> list[Measure]:
    """Land, advance, backtest; return the measures."""
    result = replay_recording()
    outcomes = result.outcomes
    policy = outcomes[backtest_policies.OWN]
    affordable = _affordable(result.past)
    clearest, missed = _clearest_miss(result)
    shown[:] = [*result.sentences(), *_dates(result), clearest]
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
        Measure(measure="CPU s of a weekly training, mean", ours=float(np.mean(result.past.cpu_s))),
    ]


def replay_recording() -> Backtest:
    """Take the recording through the platform in a store of this row; return the backtest."""
    spec = product_files.load(PRODUCT)
    path = Settings.from_environment().state / "bench-q2"
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(path)})
    product, store = ProductStore(spec, settings), StoreResource(variables=settings.to_environment())
    keys = spec.grain.span(spec.grain.first, LAST)
    for _ in replay.land(product, keys):
        pass
    over = spec.grain.instant_after(LAST)
    assert over is not None
    replay.move_on(product, over + timedelta(days=7))
    defs = build_defs(specs=[spec], resources={"store": store})
    data = [key for key in defs.resolve_asset_graph().get_all_asset_keys() if key.path[-1].startswith(STAGES)]
    with dg.DagsterInstance.ephemeral() as instance:
        defs.resolve_job_def(naming.job("advance", spec.name)).execute_in_process(
            instance=instance,
            asset_selection=data,
            tags={"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": LAST},
        )
    return replayed_by(product, SubprocessLauncher(settings), FIRST, LAST)


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
    plans = [backtest_arithmetic.even(past, count) for count in range(past.fits)]
    plan = max((item for item in plans if past.cost_s(item) <= budget_s), key=len)
    return backtest_arithmetic.outcome(past, "even calendar", plan)


def _rows_trained(replayed: Backtest, policy: Outcome) -> Measure:
    """Return the cost in rows: the share of CPU seconds on an otherwise idle machine."""
    rows = [float(learned.rows) for learned in replayed.learned.values()]
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


def _by_month(replayed: Backtest) -> list[Measure]:
    past, policy_plan = replayed.past, replayed.plans[backtest_policies.OWN]
    plans = {
        "own": policy_plan,
        NEVER: replayed.plans[NEVER],
        MONTHLY: replayed.plans[MONTHLY],
        WEEKLY: replayed.plans[WEEKLY],
        "even calendar": backtest_arithmetic.even(past, len(policy_plan) - 1),
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


def _clearest_miss(replayed: Backtest) -> tuple[str, Measure]:
    """Return the window in which the first model, kept all year, most clearly contradicted its own expectations."""
    rules, delay = replayed.product.spec.retraining, replayed.product.spec.label_delay
    windows = {
        cutoff: backtest_policies.performance_at(replayed.past, 0, fit, rules, label_delay=delay)
        for fit, cutoff in enumerate(replayed.jobs)
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


def _alarms(replayed: Backtest) -> list[Measure]:
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


def _permuted_alarms(replayed: Backtest) -> dict[str, float]:
    """Return the alarm shares when whole days are shuffled: then no week differs from any other except by chance.

    As in the backtest, a decision compares its last seven days with the training days of the previous model, of which
    there are more every week; or always with those of the first model.
    """
    monitors, counts = replayed.product.spec.monitors, _histograms(replayed)
    keys, cutoffs = list(counts), list(replayed.jobs)
    training_sizes = [len(replayed.jobs[cutoff].training_keys) for cutoff in cutoffs]
    stream = np.random.default_rng(0)
    alarms: dict[str, list[bool]] = {"weekly": [], "first": []}
    for number in range(STREAMS):
        order = [keys[index] for index in stream.permutation(len(keys))]
        for fit, cutoff in enumerate(cutoffs[1:], start=1):
            end = keys.index(cutoff)
            window = {key: counts[key] for key in order[end - monitors.drift_window : end]}
            for name, size in (("weekly", training_sizes[fit - 1]), ("first", training_sizes[0])):
                reference = reference_of({key: counts[key] for key in order[:size]})
                index = drift_index.index(window, reference, limit=monitors.drift_limit, margin=monitors.margin)
                alarms[name].append(index.is_drift)
        print(f"permuted stream {number + 1} of {STREAMS}", file=sys.stderr, flush=True)
    return {name: float(np.mean(item)) for name, item in alarms.items()}


def _histograms(replayed: Backtest) -> dict[str, Counts]:
    """Return each day's histograms on the bins of the last fit, which was trained on nearly all days."""
    spec = replayed.product.spec
    keys, learned = spec.grain.span(spec.grain.first, LAST), list(replayed.learned.values())[-1]
    frame = replayed.product.tables.read("features", keys, columns=[item.name for item in spec.fields])
    parts = frame.partition_by("key", as_dict=True)
    return {key: histograms(parts[(key,)], learned) for key in keys}


def _dates(replayed: Backtest) -> list[str]:
    """Return sentences with the trainings of the policies that use more than the calendar."""
    policies = ("performance", "drift", backtest_policies.OWN)
    return [f"{name} trained at: {', '.join(replayed.retrained_at(name)) or 'never'}." for name in policies]
