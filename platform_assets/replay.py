"""Play an honest upstream of a product that is a recording: land its files, ask its questions, move its clock.

Belongs here: what happens outside of the platform. It delivers files as source systems would, and asks as a caller
would who knows nothing but what had happened by then. It imports no Dagster, materialises nothing and reads nothing
that the platform computed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any

from platform_assets import clock, naming
from platform_assets.settings import Settings
from platform_assets.specs.base import History, ProductSpec, Source, Window
from platform_assets.specs.contract import request_of

if TYPE_CHECKING:
    import polars as pl

TIMEOUT_S = 30.0
_SLOW = (naming.UNPARTITIONED,)
_WHENEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""When a file arrived is no column of any schema: a caller need not know."""


@dataclass(frozen=True, kw_only=True)
class Landing:
    """One delivered file.

    Attributes:
        source, key: whose.
        bytes: its size; None when the upstream has nothing for this key.
        is_new: whether it was written now; a file that is there with the same bytes is left alone.
    """

    source: str
    key: str
    bytes: int | None
    is_new: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the service said to one question.

    Attributes:
        request: as sent.
        status: of HTTP.
        body: the answer, or the error.
        latency_s: from sending to the last byte, with the client's own time.
    """

    request: Mapping[str, Any]
    status: int
    body: Mapping[str, Any]
    latency_s: float


def history(spec: ProductSpec) -> History:
    """Return the product's recording; raise `ValueError` for a product that has none."""
    if spec.history is None:
        raise ValueError(f"{spec.name} has no history to replay; give its SPEC one, or send it real files.")
    return spec.history


def first_cutoff(spec: ProductSpec) -> str:
    """Return the cutoff of a demo: the key after the last one that it lands."""
    return spec.grain.shift(history(spec).demo_last, 1)


def labels_known(spec: ProductSpec, cutoff: str) -> tuple[str, ...]:
    """Return the keys whose labels have arrived at the cutoff's instant."""
    return spec.grain.window(cutoff, width=None, label_delay=spec.label_delay)


def land(
    spec: ProductSpec, settings: Settings, keys: Sequence[str], *, labelled: Collection[str] | None = None
) -> Iterator[Landing]:
    """Deliver the files of some keys, and every slow source; yield each as it lies in its place.

    A file is written under another name and renamed (an object store puts it at once), so a file that exists is
    whole.

    Args:
        spec: a product with a history.
        settings: whose root has the landing places.
        keys: which keys, in order.
        labelled: of which keys the labels are delivered as well; all by default.
    """
    from platform_assets.storage.artifacts import open_store

    store = open_store(settings.root)
    for source, key in _due(spec, keys, keys if labelled is None else labelled):
        data = history(spec).deliver(source.name, key)
        path = naming.landing_place("", spec.name, source.name, key, source.suffix).lstrip("/")
        is_new = data is not None and _put(store, path, data)
        yield Landing(source=source.name, key=key, bytes=None if data is None else len(data), is_new=is_new)


def count_due(spec: ProductSpec, keys: Sequence[str], labelled: Collection[str]) -> int:
    """Return how many deliveries `land` will yield."""
    return len(_due(spec, keys, labelled))


def requests(spec: ProductSpec, key: str) -> list[dict[str, Any]]:
    """Return the requests for the entities of one key, in the order in which they are asked.

    One pass of the product's own point-in-time `features` over the key's day: each row reads what was known when it
    is asked and nothing later, so it equals what a caller would have built at that moment
    (`tests/test_replay.py` proves it, moment by moment).

    Args:
        spec: a product with a history.
        key: the key whose entities are asked about.
    """
    rows = spec.features(happened(spec, key), Window(grain=spec.grain, keys=(key,)))
    return [request_of(spec, row) for row in rows.sort("asked_at", "entity").iter_rows(named=True)]


def happened(spec: ProductSpec, key: str) -> dict[str, pl.DataFrame]:
    """Return the good rows of every source that `features` reads for a key, cast from the files as delivered."""
    import polars as pl

    keys = spec.grain.with_lookback((key,), spec.lookback)
    tables = {}
    for source in spec.feature_sources:
        schema = source.schema()
        files = {
            key: history(spec).deliver(source.name, key)
            for key in ((naming.UNPARTITIONED,) if source.is_slow else keys)
        }
        parts = [_good(spec, source, schema, key, data) for key, data in files.items() if data is not None]
        if not parts:
            raise ValueError(f"{spec.name} delivers nothing from {source.name} for {keys[0]} to {keys[-1]}.")
        tables[source.name] = pl.concat(parts)
    return tables


def ask(
    spec: ProductSpec, settings: Settings, questions: Sequence[Mapping[str, Any]], address: str
) -> Iterator[Answer]:
    """Ask one question after the other, each at its moment on the product's clock, and yield the answers.

    The clock is never moved backwards: a question that is older than the clock is asked where it stands.

    Args:
        spec: the product.
        settings: whose clock is moved.
        questions: from `requests`.
        address: of the service, such as `http://127.0.0.1:3001`.
    """
    import httpx

    with httpx.Client(base_url=address, timeout=TIMEOUT_S) as client:
        for question in questions:
            move_on(spec, settings, datetime.fromisoformat(question["asked_at"]))
            start_s = perf_counter()
            response = client.post("/predict", json=question)
            latency_s = perf_counter() - start_s
            yield Answer(request=question, status=response.status_code, body=response.json(), latency_s=latency_s)


def move_on(spec: ProductSpec, settings: Settings, moment: datetime) -> datetime:
    """Move a recording's clock to `moment` unless it stands later already; return where it stands."""
    try:
        stands = clock.now(settings, spec.name, is_live=False)
    except LookupError:
        stands = None
    if stands is not None and stands >= moment:
        return stands
    clock.move(settings, spec.name, moment)
    return moment


def _due(spec: ProductSpec, keys: Sequence[str], labelled: Collection[str]) -> list[tuple[Source, str]]:
    """Return what is delivered, key by key: slow sources first."""
    slow = [(source, naming.UNPARTITIONED) for source in spec.sources if source.is_slow]
    keyed = [source for source in spec.sources if not source.is_slow]
    return slow + [(s, key) for key in keys for s in keyed if not s.is_label or key in labelled]


def _put(store: Any, path: str, data: bytes) -> bool:
    """Write a file whole unless it is there already; return whether it was written."""
    import obstore

    try:
        is_there = bytes(obstore.get(store, path).bytes()) == data
    except FileNotFoundError:
        is_there = False
    if not is_there:
        obstore.put(store, path, data)
    return not is_there


def _good(spec: ProductSpec, source: Source, schema: Any, key: str, data: bytes) -> pl.DataFrame:
    import polars as pl

    from platform_assets.compute import landed, validate

    rows = landed.rows(data, columns=list(schema.columns), arrived_at_utc=_WHENEVER, read=source.read)
    split = validate.split(
        rows,
        schema,
        schema_version=source.schema_version,
        unique=source.unique,
        key=key,
        key_of=validate.key_column(source.partition_by, spec.grain.key_of) if source.partition_by else None,  # type: ignore[attr-defined]  # a spec with partition_by has a timed grain
    )
    return split.good.with_columns(pl.lit(key).alias("key"))
