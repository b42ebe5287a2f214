"""Find landed files that changed after their key was closed, and tell a person.

Belongs here: comparing the files of the last closed keys with what was taken in, bounded and seldom. Does not belong
here: taking a changed file in; `repair__product` asks for that, and a run that goes back so far does it anyway.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from platform_assets import naming
from platform_assets.intake import arrivals
from platform_assets.specs.base import ProductSpec, Source
from platform_assets.storage.artifacts import sha256
from platform_assets.storage.records import PartitionRecord
from resources.alerts import AlertsResource, episode_id
from resources.store import StoreResource
from sensors import arriving, changes, landed_files, ticks

KEYS_BACK = 31
LOOK_EVERY = 30
"""In every so many ticks of `freshness` files are looked at."""
_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Change:
    """A file that is not what was taken in, with the mark of the file that is there now."""

    source: str
    key: str
    mark: str
    what: str


def tell(
    spec: ProductSpec,
    store: StoreResource,
    alerts: AlertsResource,
    closed: str | None,
    now: datetime,
    state: ticks.State,
    *,
    is_busy: Callable[[], bool],
) -> tuple[str, ticks.State]:
    """Alert once per changed file; return what is to be said, and what the next tick must know.

    Args:
        spec: the product.
        store: where its files and records are.
        alerts: to tell a person.
        closed: the newest closed key.
        now: the product's moment.
        state: of the tick before.
        is_busy: tells whether a run is under way that may take files in.
    """
    count, told = state.get("ticks", 0), state.get("told", "")
    if closed is None or count % LOOK_EVERY:
        return told, {**state, "ticks": count + 1}
    history = store.history(spec.name)
    if is_busy() or changes.open_requests(history, history.answered())[0]:
        return told, state
    found, seen = find(spec, store, closed, state.get("seen", {}))
    for change in found:
        text = (
            f"{change.source} of {change.key} {change.what}. To take it in, launch "
            f"{naming.job('repair', spec.name)} with the key and why."
        )
        alert_id = episode_id("changed", change.source, change.key, sha256(change.mark.encode())[:_SHOWN])
        details = {"source": change.source, "key": change.key}
        alerts.tell(spec.name, alert_id, kind="changed", text=text, at=now, details=details)
    names = [name for name, (_, is_other) in seen.items() if is_other]
    told = f"changed since they were taken in: {', '.join(names)}" if names else ""
    return told, {"ticks": count + 1, "seen": seen, "told": told}


def find(
    spec: ProductSpec, store: StoreResource, closed: str, seen: Mapping[str, Any]
) -> tuple[list[Change], dict[str, Any]]:
    """Return the files of the last closed keys that changed since the look before, and all that differ by their mark.

    A file is read only when its mark is another than that of the file that was taken in, and not twice.

    Args:
        spec: the product.
        store: where its files and records are.
        closed: the newest closed key.
        seen: by `source key` the mark of a file, and whether its bytes are others than those that were taken in.
    """
    end, tables = spec.grain.index(closed), store.tables(spec.name)
    keys = [spec.grain.key_at(place) for place in range(max(0, end - KEYS_BACK + 1), end + 1)]
    mark = landed_files.marks(store.settings.root, spec)
    watch = arriving.Watch(spec, store, mark, {})
    found: list[Change] = []
    differing: dict[str, Any] = {}
    read_bytes = 0
    for source in (each for each in spec.sources if not each.is_slow):
        records = tables.records(naming.stage("raw", source.name), keys)
        for key in (each for each in keys if each in records):
            landed, record, name = mark(source, key), records[key], f"{source.name} {key}"
            if landed is None or landed == record.notes.get("mark"):
                continue
            if (before := seen.get(name)) is not None and before[0] == landed:
                differing[name] = before
                continue
            is_known = arrivals.kind(spec, source, store.settings.root) in ("marker", "manifest")
            if read_bytes > arriving.MOST_BYTES or (is_known and watch.why_not(source, key, landed) is not None):
                continue
            digest, size = _digest(spec, store, source, key)
            read_bytes += size
            is_other = digest is not None and digest != record.inputs.get("file")
            differing[name] = [landed, is_other]
            if is_other:
                found.append(Change(source=source.name, key=key, mark=landed, what=_what(record, digest)))
    return found, differing


def _digest(spec: ProductSpec, store: StoreResource, source: Source, key: str) -> tuple[str | None, int]:
    try:
        data = store.landed(spec.landing_of(source), key, source.suffix).data
    except FileNotFoundError:
        return None, 0
    return sha256(data), len(data)


def _what(record: PartitionRecord, digest: str | None) -> str:
    if record.notes.get("is_missing"):
        return "has landed whole after its key was closed without it"
    then, now = f"{record.inputs.get('file')}"[:_SHOWN], f"{digest}"[:_SHOWN]
    return f"has changed since it was taken in (sha256 {then} then, {now} now)"
