"""Find landed files that changed after their key was closed, and raise an alert for each until it is taken in.

Only the last closed keys are compared, and only in some ticks. The changed file is not read in here: `repair__product`
does that, and so does any run that reaches back far enough. A file in place of one that could not be read is requested
without a person, because nothing was taken in yet.
"""

from dataclasses import dataclass

from msgspec import field
from msgspec.structs import replace

from platform_assets.automation.alerting import episode_id
from platform_assets.automation.sensors import arriving, changes, landed_files, landing_events, source_calls, ticks
from platform_assets.base import naming
from platform_assets.data import arrivals
from platform_assets.engine import digests
from platform_assets.product.spec import Source
from platform_assets.store.artifacts import sha256
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.notes import Raw

KEYS_BACK = 31
LOOK_EVERY = 30
"""Files are compared in every 30th tick of `freshness`."""
_DIGITS = 12
GONE = "gone"
"""Mark of a file that was deleted."""

Marks = dict[str, tuple[str, bool]]
"""By `source key`: the mark of a file, and whether its bytes differ from those that were taken in."""


class State(ticks.State, frozen=True, kw_only=True):
    """What was learned about the files of a product's closed keys.

    Attributes:
        ticks: how many there were.
        marks: the files whose mark differs.
        message: names those that changed.
    """

    ticks: int = 0
    marks: Marks = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A file that differs from what was taken in, with the mark of the file that is there now.

    Attributes:
        is_first: whether the file before it could not be read.
        is_gone: whether it was deleted; its copy is kept.
    """

    source: str
    key: str
    mark: str
    description: str
    is_first: bool = False
    is_gone: bool = False


def alert_changes(tick: ticks.ProductTick, closed: str | None, state: State) -> State:
    """Raise an alert per changed file until it is taken in; return the state for the next tick, with its message.

    Args:
        closed: the newest closed key.
        state: of the previous tick.
    """
    if closed is None or state.ticks % LOOK_EVERY:
        return replace(state, ticks=state.ticks + 1)
    # A run under way may take files in.
    if tick.under_way("advance", "repair") is not None or changes.open_requests(tick.history)[0]:
        return state
    mark = landed_files.Marks(tick.product, tick.until_s, "freshness")
    differences, marks, is_complete = find(tick.product, closed, state.marks, mark)
    for change in differences:
        source = tick.spec.source(change.source)
        landing_events.observe(tick.instance, tick.spec, source, change.key, change.description)
        if change.is_gone:
            continue
        if change.is_first:
            reason = f"{change.source} of {change.key} was delivered again; the file before could not be read"
            changes.request(tick.product.ledgers, change.key, reason, tick.now)
            continue
        text = (
            f"{change.source} of {change.key} {change.description}. To take it in, launch "
            f"{tick.job('repair')} with the key and a reason."
        )
        alert_id = _alert_id(change.source, change.key, change.mark)
        tick.raise_alert(alert_id, kind="changed", text=text, source=change.source, key=change.key)
    for name, (before, is_other) in state.marks.items():
        if is_other and marks.get(name, ("",))[0] != before:  # taken in, changed again, or too old to look at
            source_name, _, key = name.partition(" ")
            tick.end_alert(_alert_id(source_name, key, before))
    names = [name for name, (_, is_other) in marks.items() if is_other]
    message = f"changed since they were taken in: {', '.join(names)}" if names else ""
    message = "; ".join([*filter(None, (message,)), *mark.clauses(message)])
    return State(ticks=state.ticks + is_complete, marks=marks, message=message)


def _alert_id(source: str, key: str, mark: str) -> str:
    return episode_id("changed", source, key, sha256(mark.encode())[:_DIGITS])


def find(
    product: ProductStore, closed: str, previous: Marks, mark: landed_files.Marks
) -> tuple[list[Change], Marks, bool]:
    """Return the newly changed files of the last closed keys, the marks of all files that differ, and whether all were
    compared; the next call goes on with the others.

    A file is read only when its mark differs from that of the file that was taken in, and only once per mark.

    Args:
        closed: the newest closed key.
        previous: the marks that the previous call returned.
        mark: looks for landed files.
    """
    spec = product.spec
    tables, keys = product.tables, spec.grain.with_lookback((closed,), KEYS_BACK - 1)
    watch = arriving.Watch(product, mark, {}, mark.fetch)
    differences: list[Change] = []
    marks: Marks = {}
    read_bytes = 0
    identities = {item.name: item.channel and digests.channel_digest(item.channel) for item in spec.sources}

    def compare(source: Source) -> None:
        nonlocal read_bytes
        records = tables.records(naming.stage("raw", source.name), keys)
        for key in (key for key in keys if key in records):
            landed, record, name = mark(source, key), records[key], f"{source.name} {key}"
            noted = Raw.of(record)
            if landed is None and source.is_landed and noted.mark is not None:
                marks[name] = (GONE, False)
                if previous.get(name) != marks[name]:
                    reason = "it was deleted after it was taken in; a copy is kept"
                    change = Change(source=source.name, key=key, mark=GONE, description=reason, is_gone=True)
                    differences.append(change)
                continue
            if landed is None or landed == noted.mark or noted.channel != identities[source.name]:
                continue
            if (before := previous.get(name)) is not None and before[0] == landed:
                marks[name] = before
                continue
            is_checkable = arrivals.arrival_kind(spec, source, product.settings.root) in ("marker", "manifest")
            if read_bytes > arriving.MOST_BYTES or (is_checkable and watch.check(source, key, landed) is not None):
                continue
            try:
                data = mark.fetch(source, key, "")[0].data
            except FileNotFoundError:
                marks[name] = (landed, False)
                continue
            read_bytes += len(data)
            then, now = record.inputs.get("file"), sha256(data)
            marks[name] = (landed, now != then)
            if now != then:
                description = f"changed after it was taken in (sha256 was {f'{then}'[:_DIGITS]}, now {now[:_DIGITS]})"
                if noted.is_missing:
                    description = "landed complete after its key had been closed without it"
                is_first = noted.unreadable is not None
                change = Change(source=source.name, key=key, mark=landed, description=description, is_first=is_first)
                differences.append(change)

    for source in (source for source in spec.sources if not source.is_slow):
        try:
            compare(source)
        except source_calls.SourceProblem:  # `mark.problems` names the source
            marks = {name: value for name, value in previous.items() if name.startswith(f"{source.name} ")} | marks
        except source_calls.OutOfTime:
            return differences, previous | marks, False
    return differences, marks, True
