"""Find landed files that changed after their key was closed, and tell a person.

Belongs here: comparing the files of the last closed keys with what was taken in, bounded and seldom. Does not belong
here: taking a changed file in; `repair__product` asks for that, and a run that goes back so far does it anyway.
"""

from dataclasses import dataclass

from msgspec import field
from msgspec.structs import replace

from platform_assets import naming
from platform_assets.handle import Product
from platform_assets.intake import arrivals
from platform_assets.records.notes import Raw
from platform_assets.specs.base import Source
from platform_assets.storage.artifacts import sha256
from platform_assets.storage.records import PartitionRecord
from resources.alerts import episode_id
from sensors import arriving, changes, landed_files, ticks

KEYS_BACK = 31
LOOK_EVERY = 30
"""In every so many ticks of `freshness` files are looked at."""
_SHOWN = 12

Seen = dict[str, tuple[str, bool]]
"""By `source key` the mark of a file, and whether its bytes are others than those that were taken in."""


class State(ticks.State, frozen=True, kw_only=True):
    """What was found of a product's closed keys.

    Attributes:
        ticks: how many there were.
        seen: the files whose mark differs.
        told: what to say of those that changed.
    """

    ticks: int = 0
    seen: Seen = field(default_factory=dict)
    told: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A file that is not what was taken in, with the mark of the file that is there now."""

    source: str
    key: str
    mark: str
    what: str


def tell(tick: ticks.ProductTick, closed: str | None, state: State) -> State:
    """Alert once per changed file; return what the next tick must know, with what is to be said.

    Args:
        tick: the product's.
        closed: the newest closed key.
        state: of the tick before.
    """
    if closed is None or state.ticks % LOOK_EVERY:
        return replace(state, ticks=state.ticks + 1)
    # A run that is under way may take files in.
    if tick.under_way("advance", "repair") is not None or changes.open_requests(tick.history)[0]:
        return state
    found, seen = find(tick.product, closed, state.seen)
    for change in found:
        text = (
            f"{change.source} of {change.key} {change.what}. To take it in, launch "
            f"{tick.job('repair')} with the key and why."
        )
        alert_id = episode_id("changed", change.source, change.key, sha256(change.mark.encode())[:_SHOWN])
        tick.tell(alert_id, kind="changed", text=text, source=change.source, key=change.key)
    names = [name for name, (_, is_other) in seen.items() if is_other]
    told = f"changed since they were taken in: {', '.join(names)}" if names else ""
    return State(ticks=state.ticks + 1, seen=seen, told=told)


def find(product: Product, closed: str, seen: Seen) -> tuple[list[Change], Seen]:
    """Return the files of the last closed keys that changed since the look before, and all that differ by their mark.

    A file is read only when its mark is another than that of the file that was taken in, and not twice.

    Args:
        product: whose files.
        closed: the newest closed key.
        seen: what this returned before.
    """
    spec = product.spec
    tables, keys = product.tables, spec.grain.with_lookback((closed,), KEYS_BACK - 1)
    mark = landed_files.marks(product)
    watch = arriving.Watch(product, mark, {})
    found: list[Change] = []
    differing: Seen = {}
    read_bytes = 0
    for source in (each for each in spec.sources if not each.is_slow):
        records = tables.records(naming.stage("raw", source.name), keys)
        for key in (each for each in keys if each in records):
            landed, record, name = mark(source, key), records[key], f"{source.name} {key}"
            if landed is None or landed == Raw.of(record).mark:
                continue
            if (before := seen.get(name)) is not None and before[0] == landed:
                differing[name] = before
                continue
            is_known = arrivals.kind(spec, source, product.settings.root) in ("marker", "manifest")
            if read_bytes > arriving.MOST_BYTES or (is_known and watch.why_not(source, key, landed) is not None):
                continue
            digest, size = _digest(product, source, key)
            read_bytes += size
            is_other = digest is not None and digest != record.inputs.get("file")
            differing[name] = (landed, is_other)
            if is_other:
                found.append(Change(source=source.name, key=key, mark=landed, what=_what(record, digest)))
    return found, differing


def _digest(product: Product, source: Source, key: str) -> tuple[str | None, int]:
    try:
        data = product.channels[source.name].fetch(key).data
    except FileNotFoundError:
        return None, 0
    return sha256(data), len(data)


def _what(record: PartitionRecord, digest: str | None) -> str:
    if Raw.of(record).is_missing:
        return "has landed whole after its key was closed without it"
    then, now = f"{record.inputs.get('file')}"[:_SHOWN], f"{digest}"[:_SHOWN]
    return f"has changed since it was taken in (sha256 {then} then, {now} now)"
