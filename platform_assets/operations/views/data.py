"""Sum up what a key of a data stage holds, in one sentence; its metadata are the notes of its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from platform_assets.base.wording import counted
from platform_assets.data.columns import in_short
from platform_assets.engine.outside import Shown, plain
from platform_assets.store.records import notes
from platform_assets.store.tables import PartitionRecord

Sentence = tuple[str, None]
NO_LABELS = "no labels have landed for this key yet"


def raw(shown: Shown) -> Sentence:
    """Show how many rows landed, or that the deadline passed without a file."""
    is_label = shown.source is not None and shown.source.is_label
    return (_nothing(shown) if shown.record is None else _raw(shown.record, is_label=is_label)), None


def validated(shown: Shown) -> Sentence:
    """Show how many rows are valid, and how many went to quarantine."""
    return (_nothing(shown) if shown.record is None else _validated(shown.record)), None


def quarantine(shown: Shown) -> Sentence:
    """Show how many rows were refused."""
    if shown.record is None:
        return _nothing(shown), None
    return (f"{counted(shown.record.rows, 'row')} in quarantine" if shown.record.rows else "no row in quarantine"), None


def features(shown: Shown) -> Sentence:
    """Show how many rows were built, and how many put aside for values that no field declares."""
    return (_nothing(shown) if shown.record is None else _features(shown.record)), None


def outcomes(shown: Shown) -> Sentence:
    """Show how many labels are known."""
    return (NO_LABELS if shown.record is None else counted(shown.record.rows, "label")), None


def predictions(shown: Shown) -> Sentence:
    """Show how many answers were logged, and how many of them came too late to count."""
    return ("no answers" if shown.record is None else _predictions(shown.record)), None


def _nothing(shown: Shown) -> str:
    return NO_LABELS if shown.source is not None and shown.source.is_label else plain(shown)[0]


def _raw(record: PartitionRecord, *, is_label: bool) -> str:
    noted = notes.Raw.of(record)
    if noted.is_missing:
        return f"no file arrived{f': {noted.why}' if noted.why else '; closed as a delivery of 0 rows'}"
    if noted.unreadable:
        return f"the file cannot be taken in: {noted.unreadable} Closed as a delivery of 0 rows"
    rows = counted(record.rows, "label" if is_label else "row")
    left_out = f"; left out, not declared: {in_short(noted.undeclared)}" if noted.undeclared else ""
    return rows + (f" landed in {size(noted.bytes)}" if noted.bytes is not None else " landed") + left_out


def _validated(record: PartitionRecord) -> str:
    noted = notes.Validated.of(record)
    if not noted.rows_in:
        return "0 rows: nothing was delivered"
    share = noted.rows_quarantined / noted.rows_in
    aside = f"{noted.rows_quarantined:,} in quarantine ({share:.1%})" if noted.rows_quarantined else "none quarantined"
    return f"{counted(record.rows, 'valid row')}; {aside}"


def _features(record: PartitionRecord) -> str:
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


def _predictions(record: PartitionRecord) -> str:
    late = notes.Predictions.of(record).late
    answers = counted(record.rows, "answer") if record.rows else "no answers"
    return answers + (f"; {late:,} after the key was closed, not counted in any measure" if late else "")


def size(count: int) -> str:
    """Return a number of bytes for people: `18 kB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
