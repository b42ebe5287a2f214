"""Sum up what a key of a data stage holds, in one sentence; its metadata are the notes of its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from platform_assets.base.wording import counted
from platform_assets.data.columns import in_short
from platform_assets.engine.outside import Shown, plain
from platform_assets.store.records import notes

Sentence = tuple[str, None]
NO_LABELS = "no labels have landed for this key yet"


def raw(shown: Shown) -> Sentence:
    """Show how many rows landed, or that the deadline passed without a file."""
    if shown.record is None:
        return _nothing(shown), None
    noted = notes.Raw.of(shown.record)
    if noted.is_missing:
        return f"no file arrived{f': {noted.why}' if noted.why else '; closed as a delivery of 0 rows'}", None
    if noted.unreadable:
        return f"the file cannot be taken in: {noted.unreadable} Closed as a delivery of 0 rows", None
    rows = counted(shown.record.rows, "label" if shown.source is not None and shown.source.is_label else "row")
    left_out = f"; left out, not declared: {in_short(noted.undeclared)}" if noted.undeclared else ""
    return rows + (f" landed in {size(noted.bytes)}" if noted.bytes is not None else " landed") + left_out, None


def validated(shown: Shown) -> Sentence:
    """Show how many rows are valid, and how many went to quarantine."""
    if shown.record is None:
        return _nothing(shown), None
    noted = notes.Validated.of(shown.record)
    if not noted.rows_in:
        return "0 rows: nothing was delivered", None
    share = noted.rows_quarantined / noted.rows_in
    aside = f"{noted.rows_quarantined:,} in quarantine ({share:.1%})" if noted.rows_quarantined else "none quarantined"
    return f"{counted(shown.record.rows, 'valid row')}; {aside}", None


def quarantine(shown: Shown) -> Sentence:
    """Show how many rows were refused."""
    if shown.record is None:
        return _nothing(shown), None
    return (f"{counted(shown.record.rows, 'row')} in quarantine" if shown.record.rows else "no row in quarantine"), None


def features(shown: Shown) -> Sentence:
    """Show how many rows were built, and how many put aside for values that no field declares."""
    if shown.record is None:
        return _nothing(shown), None
    noted, rows = notes.Features.of(shown.record), f"{counted(shown.record.rows, 'row')} of features"
    if noted.awaits:
        return f"no features yet: they wait for {deliveries(noted.awaits)}, which cannot be read", None
    if noted.gaps:
        return f"{rows}; built without {deliveries(noted.gaps)}, which cannot be read", None
    if not noted.rows_put_aside:
        return rows, None
    reason = max(noted.put_aside_by_reason, key=lambda name: noted.put_aside_by_reason[name], default="")
    return f"{rows}; {noted.rows_put_aside:,} put aside ({reason})", None


def outcomes(shown: Shown) -> Sentence:
    """Show how many labels are known."""
    return (NO_LABELS if shown.record is None else counted(shown.record.rows, "label")), None


def predictions(shown: Shown) -> Sentence:
    """Show how many answers were logged, and how many of them came too late to count."""
    if shown.record is None:
        return "no answers", None
    late = notes.Predictions.of(shown.record).late
    answers = counted(shown.record.rows, "answer") if shown.record.rows else "no answers"
    return answers + (f"; {late:,} after the key was closed, not counted in any measure" if late else ""), None


def _nothing(shown: Shown) -> str:
    return NO_LABELS if shown.source is not None and shown.source.is_label else plain(shown)[0]


def deliveries(keys: Mapping[str, Sequence[str]]) -> str:
    """Return deliveries for a sentence, such as `weather of 2013-03-04`.

    Args:
        keys: by source.
    """
    return " and ".join(f"{source} of {', '.join(names)}" for source, names in keys.items())


def size(count: int) -> str:
    """Return a number of bytes for people: `18 kB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
