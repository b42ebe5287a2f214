"""Keep the asset `cost` current: launch `cost__product` when attempts were recorded that no run has reported.

A successful retrain reports its own attempts. What is left are backtests, and attempts of runs that failed or were
cancelled. The stage `cost` computes what they cost.
"""

from collections.abc import Mapping

import dagster as dg

from platform_assets import naming
from platform_assets.history import money
from platform_assets.wording import counted
from sensors import ticks

VERB = "cost"
LEDGERS = (naming.ATTEMPTS, naming.BACKTEST_ATTEMPTS)
SPENDING_VERBS = ("retrain", "backtest", VERB)


class State(ticks.State, frozen=True, kw_only=True):
    """The number of the newest record per ledger when all of them were reported last."""

    settled: dict[str, int] | None = None


def plan(newest: Mapping[str, int], reported: Mapping[str, int], *, busy: str | None) -> tuple[bool, str]:
    """Return whether a run is needed, and why or why not.

    Args:
        newest: number of the newest record, by ledger.
        reported: number of the newest record that the asset reports, by ledger.
        busy: the id of a run under way that spends or reports.
    """
    missing = sum(newest[name] - reported[name] for name in newest)
    if missing <= 0:
        return False, "all attempts are reported"
    if busy is not None:
        return False, f"waiting for run {busy} to end"
    return True, f"not reported yet: {counted(missing, 'record')} of attempts"


@ticks.Sensor(
    "costs",
    ticks.PerProduct(State),
    about="Updates the asset cost after failed runs and backtests; a successful retrain does so itself.",
    verb=VERB,
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Launch a product's cost run when it is needed."""
    newest = {name: tick.history.newest_attempt_number(name) for name in LEDGERS}
    if newest == state.settled:
        return ticks.Result(state=state, reason="all attempts are reported")
    busy = tick.under_way(*SPENDING_VERBS)
    cached = tick.history.cached()
    reported = {name: money.newest_number(cached, name) for name in LEDGERS}
    is_needed, reason = plan(newest, reported, busy=None if busy is None else busy.run_id)
    if busy is not None:
        return ticks.Result(state=state, reason=reason)
    run = dg.RunRequest(
        run_key="-".join([VERB, tick.spec.name, *(str(newest[name]) for name in LEDGERS)]), job_name=tick.job(VERB)
    )
    return ticks.Result(state=State(settled=newest), reason=reason, requests=(run,) if is_needed else ())
