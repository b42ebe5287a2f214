"""Keep a file with the sources that hold a product's ticks up, for `driftline status`."""

from collections.abc import Mapping

from platform_assets.automation.sensors import landed_files, ticks
from platform_assets.base.problems import LedgerProblem
from platform_assets.store.records.slow_sources import SLOW_SOURCES, SlowSource, SlowSources

SLOW_S = 1.0
"""A source for which one look waits longer is slow: a tick has 5 s for all products."""


def follow(tick: ticks.ProductTick, before: Mapping[str, bool], mark: landed_files.Marks) -> dict[str, bool]:
    """Return which sources are slow, and whether each did not answer at all; write the file when that has changed.

    Args:
        before: what the previous tick returned.
        mark: a look at the product, which is over.
    """
    now = {
        name: name in mark.problems
        for name, waited in sorted(mark.waited.items())
        if waited.seconds >= SLOW_S or name in mark.problems
    }
    if now != before:
        at_utc = tick.now.isoformat()
        sources = [
            SlowSource(
                source=name,
                problem=mark.problems.get(name),
                seconds=round(mark.waited[name].seconds, 1),
                calls=mark.waited[name].calls,
                at_utc=at_utc,
            )
            for name in now
        ]
        try:
            tick.product.ledgers.of(SLOW_SOURCES).overwrite(SLOW_SOURCES.ledger, SlowSources(sources=sources))
        except LedgerProblem as problem:  # a hint: a key is not kept open because it cannot be written
            tick.context.log.warning(f"{problem}")
            return dict(before)
    return now
