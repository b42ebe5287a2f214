"""Ingestions that are killed at any request to the store, or run at once, lose and double no answer."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from platform_assets.base.settings import Settings
from platform_assets.prediction_log import prediction_log
from platform_assets.prediction_log.parsing import STAGE
from platform_assets.store.product_store import ProductStore
from tests.doubles.faulty_s3 import Fault, Faults, in_front_of
from tests.doubles.ingesting import KEYS, Ingestion
from tests.doubles.s3_server import S3Server
from tests.doubles.shipped import SPEC, line, lines, ship
from tests.volume import draws

pytestmark = pytest.mark.slow

POINTS = draws(24)
"""Kills of each test, spread over the writing requests of an ingestion: more than the 15 that are asked for."""
IDS = {key: {f"p{day}-{number:06d}" for number in range(40)} for day, key in enumerate(KEYS)}
ANSWERS = {key: sorted(ids) for key, ids in IDS.items()}


class Killing(Faults):
    """Kills a process at its n-th writing request; the server executes the request if `is_done`."""

    victim: Ingestion | None = None
    at = 0
    is_done = False
    writes = 0

    def meet(self, method: str, path: str) -> Fault | None:
        if method in ("GET", "HEAD"):
            return None
        self.writes += 1
        if self.victim is None or self.writes != self.at:
            return None
        self.victim.kill()
        return Fault(method, path, answer=0, is_done=self.is_done)


@pytest.fixture
def killing(s3_server: S3Server) -> Iterator[Killing]:
    killing = Killing()
    with in_front_of(s3_server.endpoint, killing):
        yield killing


@pytest.fixture
def product(s3_root: str, tmp_path: Path) -> ProductStore:
    return ProductStore(SPEC, Settings(environment="cluster", root=s3_root, state=tmp_path / "state"))


def start(product: ProductStore, endpoint: str) -> Ingestion:
    variables = {"AWS_ENDPOINT_URL": endpoint, "POLARS_MAX_THREADS": "1", "TOKIO_WORKER_THREADS": "1"}
    return Ingestion(product, 4 * 10 * len(line(1)), variables)


def stored(product: ProductStore) -> dict[str, list[str]]:
    """Return the ids of each key, in the order of names; a repeated one is there twice."""
    rows = product.tables.read(STAGE, KEYS)
    return {key: sorted(rows.filter(key=key)["prediction_id"]) for key in KEYS}


def clone(product: ProductStore, name: str) -> ProductStore:
    settings = product.settings.model_copy(update={"root": f"{product.settings.root}/{name}"})
    now = datetime.now(UTC)
    bodies = [lines(range(at, at + 10), day=day) for day in range(2) for at in range(0, 40, 10)]
    for place, body in enumerate([*bodies, bodies[3], bodies[6]]):
        ship(settings.root, now + place * timedelta(milliseconds=10), body, first=place * 10_000)
    return ProductStore(product.spec, settings)


@pytest.mark.costly
def test_a_kill_at_any_writing_request_loses_and_doubles_nothing(product: ProductStore, killing: Killing) -> None:
    calm = clone(product, "calm")
    child = start(calm, killing.endpoint)
    child.begin()
    assert child.end() == 0
    assert stored(calm) == ANSWERS
    digests = {key: record.content_digest for key, record in calm.tables.records(STAGE).items()}
    writes, killed = killing.writes, 0
    for point in range(POINTS):
        one = clone(product, f"point{point}")
        child = start(one, killing.endpoint)
        killing.writes, killing.victim, killing.is_done = 0, child, point % 2 == 1
        killing.at = 1 + point * writes // POINTS
        child.begin()
        killed += child.end() == -9
        killing.victim = None
        prediction_log.ingest_segments(one, "code", KEYS)
        assert stored(one) == ANSWERS, f"killed at write {killing.at} of {writes}"
        assert {key: record.content_digest for key, record in one.tables.records(STAGE).items()} == digests
    print(f"{killed} of {POINTS} ingestions were killed at one of {writes} writing requests")
    assert killed == POINTS


@pytest.mark.costly
def test_concurrent_ingestions_take_every_answer_once(product: ProductStore, killing: Killing) -> None:
    for turn in range(3):
        one = clone(product, f"turn{turn}")
        children = [start(one, killing.endpoint) for _ in range(3)]
        killing.writes, killing.victim, killing.at = 0, children[0] if turn else None, 10 * turn
        for child in children:
            child.begin()
        ship(one.settings.root, datetime.now(UTC), lines([41], day=0), first=990_000)
        ended = [child.end() for child in children]
        killing.victim = None
        assert ended[1:] == [0, 0]
        prediction_log.ingest_segments(one, "code", KEYS)
        assert stored(one) == {**ANSWERS, KEYS[0]: [*ANSWERS[KEYS[0]], "p0-000041"]}
