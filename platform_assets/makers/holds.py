"""Find the keys of a window that have a fault on record, in one read and one more a faulty key.

Belongs here: reading. Does not belong here: what a record means (`compute.holds`), or writing one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from platform_assets import naming
from platform_assets.compute.holds import Hold

if TYPE_CHECKING:
    from platform_assets.storage.ledgers import Ledgers
    from platform_assets.storage.tables import TableStore

STAGE = "drift"
INTERVENTIONS_READ = 100
"""How many of a person's newest interventions are looked through."""
ASKED = "asked"
"""The input of a judgement that names the record which asked for it."""


def ledger(key: str) -> str:
    """Return the numbered ledger of a key's faults."""
    return f"{naming.FAULTS}/{key}"


def of_key(ledgers: Ledgers, key: str) -> Hold | None:
    """Return what the newest fault record of one key says, or None."""
    latest = ledgers.latest(ledger(key))
    return None if latest is None else Hold(number=latest[0], record=latest[1])


def of_keys(tables: TableStore, ledgers: Ledgers, keys: Iterable[str]) -> dict[str, Hold]:
    """Return the holds of those keys that have a fault on record, by key.

    Only keys whose judgement (`drift`) found a fault, then or now, and those that a person settled are looked up: a
    year costs one read of records, and one for each of the newest interventions.
    """
    keys = set(keys)
    judged = tables.records(STAGE, keys)
    faulty = {key for key, record in judged.items() if record.notes.get("is_faulty") or record.notes.get("was_faulty")}
    settled = {record["key"] for _, record in ledgers.newest(naming.INTERVENTIONS, INTERVENTIONS_READ)}
    found = {key: of_key(ledgers, key) for key in sorted(faulty | (settled & keys))}
    return {key: hold for key, hold in found.items() if hold is not None}


def out_of(tables: TableStore, ledgers: Ledgers, keys: Iterable[str]) -> dict[str, Hold]:
    """Return the holds that keep keys out of reference and training, by key.

    A key whose source was nulled stays out until it has been built and judged without that source.
    """
    keys = tuple(keys)
    found = of_keys(tables, ledgers, keys)
    nulled = [key for key, hold in found.items() if hold.nulled_source is not None]
    judged = tables.records(STAGE, nulled) if nulled else {}
    waiting = {key for key in nulled if judged[key].inputs.get(ASKED) != str(found[key].number)}
    return {key: hold for key, hold in found.items() if hold.is_out or key in waiting}


def nulled(tables: TableStore, ledgers: Ledgers, keys: Iterable[str]) -> dict[str, str]:
    """Return the source to be left out when features are built, by key."""
    found = of_keys(tables, ledgers, keys)
    return {key: hold.nulled_source for key, hold in found.items() if hold.nulled_source is not None}
