"""Keep the asset `cost` current: launch `cost__product` when attempts were recorded that no run has told of.

Belongs here: noticing. Does not belong here: what anything costs (stage `cost`). A retrain that goes well tells of its
attempts itself; what it cannot tell of are attempts of runs that failed or were cancelled, and backtests.
"""

from collections.abc import Mapping

import dagster as dg

from platform_assets import naming
from platform_assets.history import money
from sensors import ticks

VERB = "cost"
LEDGERS = (naming.ATTEMPTS, naming.BACKTEST_ATTEMPTS)
SPENDING_VERBS = ("retrain", "backtest", VERB)


class State(ticks.State, frozen=True, kw_only=True):
    """The number of the newest record by ledger, when all were told of."""

    settled: dict[str, int] | None = None


def plan(newest: Mapping[str, int], told: Mapping[str, int], *, busy: str | None) -> tuple[bool, str]:
    """Say whether a run is wanted, and why or why not.

    Args:
        newest: number of the newest record by ledger.
        told: number of the newest that the asset tells of.
        busy: the id of a run under way that spends or tells.
    """
    untold = sum(newest[name] - told[name] for name in newest)
    if untold <= 0:
        return False, "every attempt is told of"
    if busy is not None:
        return False, f"waits for the end of run {busy}"
    return True, f"{untold} records of attempts are told of by no run"


@ticks.Sensor(
    "costs",
    ticks.PerProduct(State),
    about="Makes the asset cost anew after failed runs and backtests; a retrain that goes well does itself.",
    verb=VERB,
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Seen[State]:
    """Launch a product's cost run when it is wanted."""
    newest = {name: tick.history.newest_attempt_number(name) for name in LEDGERS}
    if newest == state.settled:
        return ticks.Seen(state=state, reason="every attempt is told of")
    busy = tick.under_way(*SPENDING_VERBS)
    kept = tick.history.kept()
    told = {name: money.told(kept, name) for name in LEDGERS}
    is_wanted, reason = plan(newest, told, busy=None if busy is None else busy.run_id)
    if busy is not None:
        return ticks.Seen(state=state, reason=reason)
    run = dg.RunRequest(
        run_key="-".join([VERB, tick.spec.name, *(str(newest[name]) for name in LEDGERS)]), job_name=tick.job(VERB)
    )
    return ticks.Seen(state=State(settled=newest), reason=reason, requests=(run,) if is_wanted else ())
