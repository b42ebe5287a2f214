"""Find landed files that changed after their key was closed, among those of the last closed keys.

The changed file is not taken in here: `repair__product` does that, and so does any run that reaches back far enough.
"""

from dataclasses import dataclass

from platform_assets.base import naming
from platform_assets.data import arrivals, arriving, landed_marks, source_calls
from platform_assets.engine import digests
from platform_assets.product.spec import Source
from platform_assets.store.artifacts import sha256
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.notes import Raw

KEYS_BACK = 31
DIGITS = 12
GONE = "gone"
"""Mark of a file that was deleted."""

Marks = dict[str, tuple[str, bool]]
"""By `source key`: the mark of a file, and whether its bytes differ from those that were taken in."""


@dataclass(frozen=True)
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


def find(
    product: ProductStore, closed: str, previous: Marks, mark: landed_marks.Marks
) -> tuple[list[Change], Marks, bool]:
    """Return the newly changed files of the last closed keys, the marks of all files that differ, and whether all were
    compared; the next call goes on with the others.

    A file is read only when its mark differs from that of the file that was taken in, and only once per mark.

    Args:
        closed: the newest closed key.
        previous: the marks that the previous call returned.
    """
    spec = product.spec
    tables, keys = product.tables, spec.grain.with_lookback((closed,), KEYS_BACK - 1)
    watch = arriving.Watch(product, mark, {}, mark.fetch)
    differences, marks, read_bytes = list[Change](), Marks(), 0
    identities = {item.name: item.channel and digests.channel_digest(item.channel) for item in spec.sources}

    def compare(source: Source) -> None:
        nonlocal read_bytes
        records = tables.records(naming.stage("raw", source.name), keys)
        for key in (key for key in keys if key in records):
            landed, noted, name = mark(source, key), Raw.of(records[key]), f"{source.name} {key}"
            if landed is None and source.is_landed and noted.mark is not None:
                marks[name] = (GONE, False)
                if previous.get(name) != marks[name]:
                    reason = "it was deleted after it was taken in; a copy is kept"
                    differences.append(Change(source.name, key, GONE, reason, is_gone=True))
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
            then, now = records[key].inputs.get("file"), sha256(data)
            marks[name] = (landed, now != then)
            if now != then:
                description = f"changed after it was taken in (sha256 was {f'{then}'[:DIGITS]}, now {now[:DIGITS]})"
                if noted.is_missing:
                    description = "landed complete after its key had been closed without it"
                is_first = noted.unreadable is not None
                differences.append(Change(source.name, key, landed, description, is_first=is_first))

    for source in (source for source in spec.sources if not source.is_slow):
        try:
            compare(source)
        except source_calls.SourceProblem:  # `mark.problems` names the source
            marks = {name: value for name, value in previous.items() if name.startswith(f"{source.name} ")} | marks
        except source_calls.OutOfTime:
            return differences, previous | marks, False
    return differences, marks, True
