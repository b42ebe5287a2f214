"""Tell the time: the only *now*.

A live product lives on the wall clock. A recording lives at a replayed moment, kept in a small file that
whoever replays it moves forward. Durations are measured elsewhere, with `time.perf_counter`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from platform_assets.settings import Settings


def now(settings: Settings, product: str, *, is_live: bool) -> datetime:
    """Return a product's current moment in UTC.

    Raises:
        LookupError: for a recording whose clock nobody has set yet.
    """
    if is_live:
        return datetime.now(UTC)
    place = _place(settings, product)
    try:
        return datetime.fromisoformat(place.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        raise LookupError(
            f"{product} is a recording and its clock has not been set: replay it first (`make demo`)."
        ) from None


def move(settings: Settings, product: str, moment: datetime) -> None:
    """Set a recording's clock to `moment` (aware), never backwards.

    Raises:
        ValueError: when the clock already stands later.
    """
    if moment.tzinfo is None:
        raise ValueError(f"moment is {moment!r}, without a time zone; pass an aware datetime.")
    place = _place(settings, product)
    if place.exists() and now(settings, product, is_live=False) > moment:
        raise ValueError(f"the clock of {product} stands later than {moment.isoformat()} already.")
    _write(place, moment.astimezone(UTC).isoformat())


def announce(settings: Settings, product: str, last_key: str) -> None:
    """Record up to which key a replay is going to move a recording's clock, before the clock moves."""
    _write(_announced(settings.state, product), last_key)


def announced(state: Path, product: str) -> str | None:
    """Return the last key of a recording's replay; None where nobody has announced one.

    Args:
        state: the folder `Settings.state`.
        product: a recording.
    """
    try:
        return _announced(state, product).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _announced(state: Path, product: str) -> Path:
    return state / "clock" / f"{product}.until"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_name(f"{path.name}.waiting")
    waiting.write_text(text, encoding="utf-8")
    waiting.replace(path)


def _place(settings: Settings, product: str) -> Path:
    return settings.state / "clock" / product
