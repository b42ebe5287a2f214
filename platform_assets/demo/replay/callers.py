"""Ask the service about the entities of a key, like a caller who knows only what had happened by then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, TypedDict

from platform_assets.base import naming
from platform_assets.base.wording import span
from platform_assets.data.request_rows import RequestDocument, request_of
from platform_assets.demo.replay.deliveries import history, move_on
from platform_assets.engine.digests import reads
from platform_assets.product.spec import FeatureTables, ProductSpec, Source, Window
from platform_assets.store.handle import Product

if TYPE_CHECKING:
    import httpx
    import polars as pl

TIMEOUT_S = 30.0
PATIENCE_S = 60.0
"""For how long an unanswered request is repeated: a worker may have died; its idempotency key makes that harmless."""
PAUSE_S = 0.2
UNAVAILABLE = 503
_WHENEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""Stand-in for the arrival of a file, which is not a column of any schema: a caller need not know it."""


class Body(TypedDict, total=False):
    """The fields of an answer or an error that are read here; `serving.answer.answers` reads an answer's numbers."""

    entity: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The service's answer to one request.

    Attributes:
        request: as sent.
        status: of HTTP.
        body: the answer, or the error.
        latency_s: from the first sending to the last byte, including the client's own time.
    """

    request: RequestDocument
    status: int
    body: Body
    latency_s: float


class Reader:
    """Reads delivered files into good rows, each file once, and caches those that later keys look back on."""

    def __init__(self, spec: ProductSpec) -> None:
        """Prepare; nothing is read yet."""
        self._spec = spec
        self._rows: dict[tuple[str, str], pl.DataFrame | None] = {}

    def rows(self, source: Source, key: str) -> pl.DataFrame | None:
        """Return the good rows of a file, cast to the source's types, with a column `key`; None if there is no file."""
        file = (source.name, key)
        if file not in self._rows:
            data = history(self._spec).deliver(source.name, key)
            with reads.guarded(self._spec.module):
                self._rows[file] = None if data is None else _good(self._spec, source, key, data)
        return self._rows[file]

    def latest(self, source: Source, key: str) -> datetime | None:
        """Return when a file's last good row was known, or its last broken one if none is good; None for neither."""
        rows = self.rows(source, key)
        if rows is None or source.known_at is None:
            return None
        if rows.height:
            newest = rows[source.known_at].max()
        else:
            data = history(self._spec).deliver(source.name, key)
            assert data is not None  # it has rows, if only broken ones
            newest = _moments(_landed(self._spec, source, key, data)[source.known_at]).max()
        return newest if isinstance(newest, datetime) else None

    def forget(self, before: str) -> None:
        """Drop the rows of keys before this one."""
        grain = self._spec.grain
        first = grain.index(before)
        self._rows = {
            (source, key): rows
            for (source, key), rows in self._rows.items()
            if key == naming.UNPARTITIONED or grain.index(key) >= first
        }


def requests(spec: ProductSpec, key: str, reader: Reader | None = None) -> list[RequestDocument]:
    """Return the requests for the entities of one key, in the order in which they are sent.

    Makes one pass of the product's own point-in-time `features` over the key: each row reads what was known at
    its moment and nothing later, so it equals what a caller would have built at that moment (`tests/test_replay.py`
    proves it, moment by moment).

    Args:
        spec: a product with a history.
        key: the key of the entities.
        reader: of the product's files; a new one by default.
    """
    tables = known_tables(spec, key, reader)
    with reads.guarded(spec.module):
        rows = spec.features(tables, Window(grain=spec.grain, keys=(key,)))
    return [request_of(spec, row) for row in rows.sort("asked_at", "entity").iter_rows(named=True)]


def known_tables(spec: ProductSpec, key: str, reader: Reader | None = None) -> dict[str, pl.DataFrame]:
    """Return the good rows of every source that `features` reads for a key, cast from the files as delivered."""
    import polars as pl

    reader = Reader(spec) if reader is None else reader
    keys = spec.grain.with_lookback((key,), spec.lookback)
    tables = {}
    for source in spec.feature_sources:
        file_keys = (naming.UNPARTITIONED,) if source.is_slow else keys
        files = [reader.rows(source, file_key) for file_key in file_keys]
        parts = [rows for rows in files if rows is not None]
        if not parts:
            raise ValueError(f"{spec.name} delivers nothing from {source.name} for {span(keys)}.")
        tables[source.name] = pl.concat(parts)
    return FeatureTables(spec.name, spec.label_source.name, tables)


def ask(
    product: Product, questions: Sequence[RequestDocument], address: str, *, check: Callable[[], None] | None = None
) -> Iterator[Answer]:
    """Send one request after the other, each at its moment on the product's clock, and yield the answers.

    The clock is never moved backwards: a request older than the clock is sent without moving it.

    Args:
        product: the product whose clock is moved.
        questions: from `requests`.
        address: of the service, such as `http://127.0.0.1:3001`.
        check: raises when repeating a request has become useless.
    """
    import httpx

    asked_at = ""
    with httpx.Client(base_url=address, timeout=TIMEOUT_S) as client:
        for question in questions:
            if question["asked_at"] != asked_at:
                asked_at = question["asked_at"]
                move_on(product, datetime.fromisoformat(asked_at))
            start_s = perf_counter()
            response = _posted(client, question, check)
            latency_s = perf_counter() - start_s
            yield Answer(request=question, status=response.status_code, body=response.json(), latency_s=latency_s)


def _posted(client: httpx.Client, question: RequestDocument, check: Callable[[], None] | None) -> httpx.Response:
    """Return the service's answer; repeat the request for a while if there is none."""
    import httpx

    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            response = client.post("/predict", json=question)
        except httpx.TransportError:
            if time.monotonic() > deadline_s:
                raise
        else:
            if response.status_code != UNAVAILABLE or time.monotonic() > deadline_s:
                return response
        if check is not None:
            check()
        time.sleep(PAUSE_S)


def _good(spec: ProductSpec, source: Source, key: str, data: bytes) -> pl.DataFrame:
    import polars as pl

    from platform_assets.data import validation

    split = validation.split(
        _landed(spec, source, key, data),
        source.columns(),
        schema_version=source.schema_version,
        unique=source.unique,
        key=key,
        key_of=validation.key_column(source.partition_by, spec.grain.key_of) if source.partition_by else None,  # type: ignore[attr-defined]  # a spec with partition_by has a timed grain
    )
    return split.good.with_columns(pl.lit(key).alias("key"))


def _landed(spec: ProductSpec, source: Source, key: str, data: bytes) -> pl.DataFrame:
    from platform_assets.data import landed

    return landed.rows(
        data,
        columns=list(source.columns().columns),
        arrived_at_utc=_WHENEVER,
        read=source.read,
        multiline=source.multiline,
        absent=source.may_lack(spec.grain, key),
    )


def _moments(cells: pl.Series) -> pl.Series:
    """Return cells as moments, null where they are not moments."""
    import polars as pl

    from platform_assets.data.validation import MOMENT_FORMAT

    if cells.dtype != pl.String:
        return cells
    return cells.str.to_datetime(MOMENT_FORMAT, time_unit="us", time_zone="UTC", strict=False)
