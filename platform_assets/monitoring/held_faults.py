"""Read the faults of the newest keys that are held or were given up."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from platform_assets.base.keys import Grain
from platform_assets.monitoring.alert_kinds import episode_id
from platform_assets.store.history.reader import History
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.faults import Fault, Hold

JUDGED = "drift"
RECORDS_READ = 20
"""How far back in a key's fault ledger its fault is looked for."""

Faults = Mapping[str, tuple[Fault, Hold]]
"""The newest fault and the hold of each key, oldest key first."""


def read(product: ProductStore) -> Faults:
    """Return the faults that still exclude a key, or a source of it, among as many keys as a key is compared with.

    Costs one read of partition records, and a few small reads per key that ever had a fault.
    """
    grain = product.spec.grain
    newest = max(product.tables.records(JUDGED), key=grain.index, default=None)
    if newest is None:
        return {}
    keys = grain.with_lookback((newest,), product.spec.monitors.record_keys)
    holds = {key: hold for key, hold in product.history.holds(keys).items() if hold.is_excluded or hold.nulled_source}
    faults: dict[str, tuple[Fault, Hold]] = {}
    for key in sorted(holds, key=grain.index):
        records = product.history.newest_faults(key, RECORDS_READ)
        if fault := next((record for _, record in records if isinstance(record, Fault)), None):
            faults[key] = fault, holds[key]
    return faults


def held(faults: Faults) -> dict[str, Fault]:
    """Return those of keys that wait for a person."""
    return {key: fault for key, (fault, hold) in faults.items() if hold.is_held}


def going_on(history: History, grain: Grain, episodes: Mapping[str, str], last: str) -> Collection[str]:
    """Return the ids of the alerts about faults whose keys are held still.

    Args:
        episodes: by the id of its alert, the first key of each episode; at least one.
        last: the last key to look at.
    """
    first = min(episodes.values(), key=grain.index)
    records = [hold.record for hold in history.holds(grain.span(first, last)).values() if hold.is_held]
    # A key that was delivered again and is not judged yet may be of any of them.
    faults = [record for record in records if isinstance(record, Fault)]
    if len(faults) < len(records):
        return episodes.keys()
    parts = [("fault", fault.episode, fault.source, fault.check) for fault in faults]
    return {episode_id(*part[:count]) for part in parts for count in (2, 4)}  # a decision may know the episode only
