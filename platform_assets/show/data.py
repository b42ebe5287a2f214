"""Sum up what a key of a data stage holds, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from platform_assets.compute.columns import in_short
from platform_assets.records import notes
from platform_assets.storage.tables import PartitionRecord
from platform_assets.wording import counted

NO_LABELS = "no labels have landed for this key yet"


def raw(record: PartitionRecord, *, is_label: bool) -> str:
    """Return how many rows landed, or that the deadline passed without a file."""
    noted = notes.Raw.of(record)
    if noted.is_missing:
        return f"no file arrived{f': {noted.why}' if noted.why else '; closed as a delivery of 0 rows'}"
    if noted.unreadable:
        return f"the file cannot be taken in: {noted.unreadable} Closed as a delivery of 0 rows"
    rows = counted(record.rows, "label" if is_label else "row")
    left_out = f"; left out, not declared: {in_short(noted.undeclared)}" if noted.undeclared else ""
    return rows + (f" landed in {size(noted.bytes)}" if noted.bytes is not None else " landed") + left_out


def validated(record: PartitionRecord) -> str:
    """Return how many rows are valid, and how many went to quarantine."""
    noted = notes.Validated.of(record)
    if not noted.rows_in:
        return "0 rows: nothing was delivered"
    share = noted.rows_quarantined / noted.rows_in
    aside = f"{noted.rows_quarantined:,} in quarantine ({share:.1%})" if noted.rows_quarantined else "none quarantined"
    return f"{counted(record.rows, 'valid row')}; {aside}"


def quarantine(record: PartitionRecord) -> str:
    """Return how many rows were refused."""
    return f"{counted(record.rows, 'row')} in quarantine" if record.rows else "no row in quarantine"


def features(record: PartitionRecord) -> str:
    """Return how many rows were built, and how many put aside for values that no field declares."""
    noted = notes.Features.of(record)
    if noted.awaits:
        return f"no features yet: they wait for {deliveries(noted.awaits)}, which cannot be read"
    if noted.gaps:
        gap = f"; built without {deliveries(noted.gaps)}, which cannot be read"
        return counted(record.rows, "row") + " of features" + gap
    if not noted.rows_put_aside:
        return f"{counted(record.rows, 'row')} of features"
    reason = max(noted.put_aside_by_reason, key=lambda name: noted.put_aside_by_reason[name], default="")
    return f"{counted(record.rows, 'row')} of features; {noted.rows_put_aside:,} put aside ({reason})"


def deliveries(keys: Mapping[str, Sequence[str]]) -> str:
    """Return deliveries for a sentence, such as `weather of 2013-03-04`.

    Args:
        keys: by source.
    """
    return " and ".join(f"{source} of {', '.join(names)}" for source, names in keys.items())


def outcomes(record: PartitionRecord) -> str:
    """Return how many labels are known."""
    return counted(record.rows, "label")


def predictions(record: PartitionRecord) -> str:
    """Return how many answers were logged, and how many of them came too late to count."""
    late = notes.Predictions.of(record).late
    answers = counted(record.rows, "answer") if record.rows else "no answers"
    return answers + (f"; {late:,} after the key was closed, not counted in any measure" if late else "")


def size(count: int) -> str:
    """Return a number of bytes for people: `18 kB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
