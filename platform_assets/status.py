"""Say how a product stands: what serves, since when on its own clock, and how good it was judged.

Belongs here: reading ledgers into plain values, and those values as text. It computes and judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from platform_assets import clock, naming
from platform_assets.compute import releases
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.ledgers import Ledgers


def of_product(settings: Settings, spec: ProductSpec) -> dict[str, Any]:
    """Return a product's state as JSON values; `release` is None when nothing was released.

    `age_hours` is what passed on the product's clock since the live model's cutoff record was written.
    """
    ledgers = Ledgers(settings.root, spec.name)
    try:
        now = clock.now(settings, spec.name, is_live=spec.is_live)
    except LookupError:
        now = None
    latest = ledgers.latest(naming.RELEASES)
    state: dict[str, Any] = {
        "product": spec.name,
        "title": spec.title,
        "is_live": spec.is_live,
        "now_utc": now.isoformat() if now else None,
        "release": None,
    }
    if latest is not None:
        number, record = latest
        digest = releases.live_digest(record)
        state["release"] = {
            "number": number,
            "digest": digest,
            **{name: record[name] for name in ("cutoff", "outcome", "why", "by", "at_utc")},
            "age_hours": _hours(record["at_utc"], now),
            "verdict": _verdict(ledgers.read(naming.VERDICTS, digest)),
        }
    return state


def as_text(state: dict[str, Any]) -> str:
    """Return a product's state for a terminal."""
    clock_words = "wall clock" if state["is_live"] else "recording"
    lines = [f"{state['product']}: {state['title']}", f"  clock     {state['now_utc'] or 'never set'} ({clock_words})"]
    release = state["release"]
    if release is None:
        return "\n".join([*lines, "  release   none yet"])
    lines += [
        f"  release   {release['number']}, {release['outcome']}: {release['why']} (by {release['by']})",
        f"  model     {release['digest']}",
        f"  cutoff    {release['cutoff']}, released {release['at_utc']}, {_age_words(release['age_hours'])}",
    ]
    verdict = release["verdict"]
    if verdict is not None:
        rows = verdict["rows"]
        outcome = "passed" if verdict["passed"] else "failed"
        lines.append(f"  verdict   {outcome} on {rows['labelled']:,} rows, {rows['first_key']} to {rows['last_key']}")
        for name, numbers in sorted(
            verdict["models"].items(), key=lambda item: (not item[0].startswith("ch"), item[0])
        ):
            lines.append(f"    {name:<18}" + ", ".join(f"{measure} {value:.4f}" for measure, value in numbers.items()))
    return "\n".join(lines)


def contestants(verdict: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the numbers of all that a verdict compared: challenger, champion, then the baselines by name."""
    order = sorted(verdict["models"], key=lambda name: ("challenger", "champion", name).index(name))
    return {name: verdict["models"][name] for name in order}


def _verdict(verdict: dict[str, Any] | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    return {"passed": verdict["passed"], "rows": verdict["rows"], "models": verdict["models"]}


def _hours(since_utc: str, now: datetime | None) -> float | None:
    return None if now is None else round((now - datetime.fromisoformat(since_utc)).total_seconds() / 3600, 2)


def _age_words(hours: float | None) -> str:
    if hours is None:
        return "age unknown"
    return f"{hours / 24:.1f} days ago" if hours >= 48 else f"{hours:.1f} hours ago"
