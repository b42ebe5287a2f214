"""Retraining: the share of weekly training's gain that policies buy, March to December, next to equal even calendars.

The whole recording is landed and taken through the data stages and `driftline backtest`, as on the platform. One
model per week is trained on every day before its cutoff except the holdout, 44 in all; the first one, of March 1st,
answers until a policy trains again, and its cost is not counted. Shares are of log loss gained over never, and of CPU
seconds of trainings (the whole step: imports, reading rows, learning, training, baselines, holdout), both relative to
training every week. Trainings are memoised below the state folder, so a second run trains nothing. `Q2_LAST` ends the
replay earlier, for a look at the row.

The thresholds of the hard checks and `max_age` of six weeks were set with a look at these months, which flatters both.
"""

import os
import sys
from collections.abc import Mapping
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
from platform_assets.operations.experiments.backtest_arithmetic import Outcome
from platform_assets.store.product_store import ProductStore
from platform_assets.training.histograms import histograms
from platform_assets.training.reference import Counts, reference_of
from proof.benchmarks.harness import Measure

PRODUCT = "flight_delays"
FIRST, LAST = "2013-03-01", os.environ.get("Q2_LAST", "2013-12-31")
STAGES = ("raw_", "validated_", "quarantine_", "features", "outcomes")
STREAMS = 20
BUDGET = 0.20
WEEKLY, NEVER, MONTHLY = "every 7 keys", "never", "every 28 keys"

shown: list[str] = []
"""Sentences about the numbers, filled by `run`."""


def run() -> list[Measure]:
    result = replay_recording()
    outcomes = result.outcomes
    policy = outcomes[backtest_policies.OWN]
    past = result.past
    # The even calendar with the most retrainings within the target's budget, which needs no policy.
    budget_s = BUDGET * past.cost_s(tuple(range(past.fits)))
    plans = [backtest_arithmetic.even(past, count) for count in range(past.fits)]
    plan = max((item for item in plans if past.cost_s(item) <= budget_s), key=len)
    affordable = backtest_arithmetic.outcome(past, "even calendar", plan)
    policies = ("performance", "drift", backtest_policies.OWN)
    dates = [f"{name} trained at: {', '.join(result.retrained_at(name)) or 'never'}." for name in policies]
    shown[:] = [*result.sentences(), *dates]
    # The cost in rows: the share of CPU seconds on an otherwise idle machine.
    rows = [float(learned.rows) for learned in result.learned.values()]
    # The share of weeks in which the drift index alarms: on permuted days, and on the days in order.
    decisions = range(1, past.fits)
    weekly = [result.index_of(fit - 1, fit).is_drift for fit in decisions]
    never = [result.index_of(0, fit).is_drift for fit in decisions]
    permuted = _permuted_alarms(result)
    return [
        Measure(
            "own policy: share of weekly's gain in log loss", policy.gain_share, peers=_peers(policy), target=">= 0.85"
        ),
        Measure("own policy: share of weekly's CPU seconds", policy.cost_share, target="<= 0.20"),
        Measure(
            "own policy: share of weekly's rows trained on", sum(rows[fit] for fit in policy.plan[1:]) / sum(rows[1:])
        ),
        Measure(
            f"even calendar of {affordable.retrainings}, the most within {BUDGET:.2f} of weekly's cost: gain",
            affordable.gain_share,
            peers={"share of CPU seconds": affordable.cost_share},
        ),
        *_by_policy(outcomes),
        *(
            Measure(
                f"{name}: log loss minus the even calendar's of {outcome.retrainings}, 95 % clustered by day",
                outcome.minus_even,
                peers={"low": outcome.minus_even_low, "high": outcome.minus_even_high},
            )
            for name, outcome in outcomes.items()
            if name not in (NEVER, WEEKLY)
        ),
        Measure(
            f"drift index: share of weeks with an alarm on {STREAMS} permuted streams",
            permuted["weekly"],
            peers={"against the first model": permuted["first"]},
            target="<= 0.02",
        ),
        Measure(
            "drift index: share of weeks with an alarm on the days as they came",
            float(np.mean(weekly)),
            peers={"against the first model": float(np.mean(never))},
        ),
        Measure("CPU s of a weekly training, mean", float(np.mean(past.cpu_s))),
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


def _by_policy(outcomes: Mapping[str, Outcome]) -> list[Measure]:
    measures = []
    for name, result in outcomes.items():
        label = f"{name}, {result.retrainings} retrainings"
        if name not in (NEVER, WEEKLY, backtest_policies.OWN):
            measures += [
                Measure(f"{label}: share of gain", result.gain_share, peers=_peers(result)),
                Measure(
                    f"{label}: share of CPU seconds", result.cost_share, peers={"even calendar": result.even_cost_share}
                ),
            ]
    policy = outcomes[backtest_policies.OWN]
    others = {name: result for name, result in outcomes.items() if result is not policy}
    for statistic in ("log_loss", "headline", "retrainings"):
        peers = {name: float(getattr(result, statistic)) for name, result in others.items()}
        measures.append(Measure(f"own policy: {statistic}, ten months", getattr(policy, statistic), peers=peers))
    return measures


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
