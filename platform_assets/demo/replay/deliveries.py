"""Land the files of a recording as its source systems would, complete and in order, and move its clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from platform_assets.base import clock, naming
from platform_assets.demo.replay.recording import Reader, history
from platform_assets.product.spec import Product, Source
from platform_assets.store.product_store import ProductStore


@dataclass(frozen=True, kw_only=True)
class Landing:
    """One delivered file.

    Attributes:
        source, key: of the file.
        bytes: its size; None if the upstream has no file for this key.
        is_new: whether it was written now; a file with the same bytes is left alone.
    """

    source: str
    key: str
    bytes: int | None
    is_new: bool


def first_cutoff(spec: Product) -> str:
    """Return the cutoff of a demo: the key after the last one that it lands."""
    return spec.grain.shift(history(spec).demo_last, 1)


def labelled_keys(spec: Product, cutoff: str) -> tuple[str, ...]:
    """Return the keys whose labels have arrived by the cutoff's instant."""
    return spec.grain.window(cutoff, width=None, label_delay=spec.label_delay)


def land(product: ProductStore, keys: Sequence[str], *, labelled: Collection[str] | None = None) -> Iterator[Landing]:
    """Deliver the files of some keys, and every slow source; yield each once it is in its place.

    A file is written under another name and renamed (an object store replaces it at once), so an existing file is
    complete.

    Args:
        product: one with a history.
        keys: which keys, in order.
        labelled: the keys whose labels are delivered as well; all by default.
    """
    spec, known = product.spec, keys if labelled is None else labelled
    slow = [(source, naming.UNPARTITIONED) for source in spec.sources if source.is_slow]
    keyed = [source for source in spec.sources if not source.is_slow]
    due = [(source, key) for key in keys for source in keyed if not source.is_label or key in known]
    yield from _put_all(product, [*slow, *due])


def land_early(product: ProductStore, key: str, reader: Reader) -> list[Landing]:
    """Deliver what was known before the key began: sources whose rows were all known at its instant."""
    early = [(source, key) for source in _early(product.spec, key, reader)]
    return list(_put_all(product, early))


def land_late(product: ProductStore, key: str, reader: Reader) -> list[Landing]:
    """Deliver the rest at the end of a key: labels that have become known, then the key's other sources.

    A key can be closed once its last source has landed, so labels come first: then the run that closes it reads them.
    """
    spec = product.spec
    early = {source.name for source in _early(spec, key, reader)}
    index = spec.grain.index(key) - spec.label_delay
    labels = [] if index < 0 else [(spec.label_source, spec.grain.key_at(index))]
    keyed = (source for source in spec.feature_sources if not source.is_slow)
    return list(_put_all(product, [*labels, *((source, key) for source in keyed if source.name not in early)]))


def end_of(spec: Product, key: str, reader: Reader) -> datetime:
    """Return the moment when a key is over: the end of its period, or for a batch when its last row was known."""
    over = spec.grain.instant_after(key)
    return _arrival_of(spec, key, reader) if over is None else over


def move_on(product: ProductStore, moment: datetime) -> datetime:
    """Move a recording's clock to `moment` unless it is later already; return the clock's moment."""
    try:
        now = clock.now(product.settings, product.name, is_live=False)
    except LookupError:
        now = None  # it has never been set
    if now is not None and now >= moment:
        return now
    clock.move(product.settings, product.name, moment)
    return moment


def _early(spec: Product, key: str, reader: Reader) -> list[Source]:
    instant = spec.grain.instant(key, lambda before: _arrival_of(spec, before, reader))
    sources = []
    for source in spec.feature_sources:
        rows = None if source.is_slow else reader.rows(source, key)
        if rows is not None and source.known_at is not None and rows.height:
            known_at = rows[source.known_at]
            if not known_at.null_count() and known_at.max() <= instant:  # type: ignore[operator]  # moments, none is null
                sources.append(source)
    return sources


def _arrival_of(spec: Product, key: str, reader: Reader) -> datetime:
    """Return when the last good row of a key was known; if it has none, the last broken one."""
    moments = [reader.latest(source, key) for source in spec.sources_of_a_batch if source.known_at is not None]
    present = [moment for moment in moments if moment is not None]
    if not present:
        raise ValueError(f"{spec.name} delivers no row of {key} that states when it was known, so {key} has no end.")
    return max(present)


def _put_all(product: ProductStore, due: Iterable[tuple[Source, str]]) -> Iterator[Landing]:
    channels = product.channels
    for source, key in due:
        data = history(product.spec).deliver(source.name, key)
        is_new = data is not None and channels[source.name].deliver(key, data)
        yield Landing(source=source.name, key=key, bytes=None if data is None else len(data), is_new=is_new)
