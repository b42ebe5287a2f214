"""Say in one clause what is wrong with a key, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping

from platform_assets.monitoring import held_faults
from platform_assets.store.records.faults import (
    Accepted,
    Dropped,
    Fault,
    FaultRecord,
    Hold,
    Nulled,
    Primary,
    Repair,
    Repaired,
)

SETTLED: Mapping[type[FaultRecord], str] = {
    Accepted: "accepted",
    Dropped: "dropped",
    Repair: "repair asked for",
    Repaired: "repaired",
}


def clause(fault: Primary | Fault) -> str:
    """Return a fault as a clause: source, column, what was delivered and what was expected."""
    column = f".{fault.column}" if fault.column else ""
    return f"{fault.source}{column} fails {fault.check}: {fault.came}; expected {fault.expected}"


def state(hold: Hold | None) -> str:
    """Return what became of a faulty key: held, left out, dropped, accepted or repaired."""
    record = None if hold is None else hold.record
    if record is None or isinstance(record, Fault):
        return "held"
    if isinstance(record, Nulled):
        return f"{record.source} left out"
    return next((text for kind, text in SETTLED.items() if isinstance(record, kind)), "held")


def standing(faults: held_faults.Faults) -> str:
    """Return why keys are held, or else given up, and which: the newest fault speaks for the others."""
    for keys, text in ((list(held_faults.held(faults)), "held"), (list(faults), "given up and left out of training")):
        if keys:
            return f"{clause(faults[keys[-1]][0])}; {text}: {', '.join(keys)}"
    return "No key is held."
