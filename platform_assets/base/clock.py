"""Define the current time; no other module reads it.

A live product uses the wall clock. A recording has a replayed moment, stored in a small file that a replay moves
forward. Durations are measured elsewhere, with `time.perf_counter`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from platform_assets.base.settings import Settings


def now(settings: Settings, product: str, *, is_live: bool) -> datetime:
    """Return a product's current moment in UTC.

    Raises:
        LookupError: a recording's clock is not set.
    """
    if is_live:
        return datetime.now(UTC)
    file = _file(settings, product)
    try:
        return datetime.fromisoformat(file.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        raise LookupError(
            f"{product} is a recording and its clock has not been set: replay it first (`make demo`)."
        ) from None


def wall() -> datetime:
    """Return the wall clock's moment in UTC, for the age of what changes outside of a product, such as a file."""
    return datetime.now(UTC)


def move(settings: Settings, product: str, moment: datetime) -> None:
    """Set a recording's clock to `moment` (aware), never backwards.

    Raises:
        ValueError: the clock is already later.
    """
    if moment.tzinfo is None:
        raise ValueError(f"moment is {moment!r}, without a time zone; pass an aware datetime.")
    file = _file(settings, product)
    if file.exists() and now(settings, product, is_live=False) > moment:
        raise ValueError(f"the clock of {product} is already later than {moment.isoformat()}.")
    _write(file, moment.astimezone(UTC).isoformat())


def announce(settings: Settings, product: str, last_key: str) -> None:
    """Record the last key of a replay, before the replay moves the recording's clock."""
    _write(_announced(settings.state, product), last_key)


def announced(state: Path, product: str) -> str | None:
    """Return the last key of a recording's announced replay, or None.

    Args:
        state: the folder `Settings.state`.
        product: a recording.
    """
    try:
        return _announced(state, product).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _announced(state: Path, product: str) -> Path:
    # A local file, so only live products belong on a cluster, where pods share no disk.
    return state / "clock" / f"{product}.until"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.waiting")
    temporary.write_text(text, encoding="utf-8")
    # Renamed into place: a reader meanwhile gets the old moment or the new one, never half of it.
    temporary.replace(path)


def _file(settings: Settings, product: str) -> Path:
    return settings.state / "clock" / product
