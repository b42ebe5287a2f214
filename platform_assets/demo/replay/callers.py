"""Ask the service about the entities of a key, like a caller who knows only what had happened by then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING, TypedDict

from platform_assets.base import naming
from platform_assets.base.wording import span
from platform_assets.data.request_rows import RequestDocument, request_of
from platform_assets.demo.processes import wait_until
from platform_assets.demo.replay.deliveries import move_on
from platform_assets.demo.replay.recording import Reader
from platform_assets.engine.digests import reads
from platform_assets.product.spec import FeatureTables, Product, Window
from platform_assets.store.product_store import ProductStore

if TYPE_CHECKING:
    import httpx
    import polars as pl

TIMEOUT_S = 30.0
UNAVAILABLE = 503


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


def requests(spec: Product, key: str, reader: Reader | None = None) -> list[RequestDocument]:
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
    # As in a stage: here too a product's code may read no file that its digest does not cover.
    with reads.guarded(spec.module):
        rows = spec.features(tables, Window(grain=spec.grain, keys=(key,)))
    return [request_of(spec, row) for row in rows.sort("asked_at", "entity").iter_rows(named=True)]


def known_tables(spec: Product, key: str, reader: Reader | None = None) -> dict[str, pl.DataFrame]:
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
    product: ProductStore,
    questions: Sequence[RequestDocument],
    address: str,
    *,
    check: Callable[[], None],
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
            # Once per moment: moving the clock writes a file.
            if question["asked_at"] != asked_at:
                asked_at = question["asked_at"]
                move_on(product, datetime.fromisoformat(asked_at))
            start_s = perf_counter()
            response = _posted(client, question, check)
            latency_s = perf_counter() - start_s
            yield Answer(request=question, status=response.status_code, body=response.json(), latency_s=latency_s)


def _posted(client: httpx.Client, question: RequestDocument, check: Callable[[], None]) -> httpx.Response:
    """Return the service's answer; repeat the request while there is none: its idempotency key makes that harmless."""
    import httpx

    def answer() -> httpx.Response | None:
        try:
            response = client.post("/predict", json=question)
        except httpx.TransportError:  # a worker may have died
            return None
        return None if response.status_code == UNAVAILABLE else response

    return wait_until(answer, f"an answer about {question['entity']}", check)
