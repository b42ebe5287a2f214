"""Segments become predictions exactly once, whatever they contain and wherever an ingestion stops."""

import json
import random
import re
import zlib
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import obstore
import polars as pl
import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data import answer_rows
from platform_assets.prediction_log import claiming, prediction_log
from platform_assets.prediction_log import segments as listing
from platform_assets.prediction_log.parsing import STAGE
from platform_assets.prediction_log.predictions_maker import Ingesting
from platform_assets.store import objects, segments
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import content_digest
from tests.doubles.shipped import MIDNIGHT, SPEC, encoded, line, lines, ship

KEYS = ("2020-01-05", "2020-01-06")
SECOND = timedelta(seconds=1)


@pytest.fixture
def product(root: str, tmp_path: Path) -> ProductStore:
    return ProductStore(SPEC, Settings(environment="cluster", root=root, state=tmp_path / "state"))


@pytest.fixture
def now() -> datetime:
    """The store's time, rounded: names of segments must not be far from it."""
    return datetime.now(UTC).replace(microsecond=0)


def take_in(product: ProductStore) -> prediction_log.Ingested:
    done, _ = prediction_log.ingest_segments(product, "code", KEYS)
    return done


def ids(product: ProductStore, key: str = KEYS[0]) -> list[str]:
    return product.tables.read(STAGE, [key], columns=["prediction_id"])["prediction_id"].to_list()


def named(*numbers: int, day: int = 0) -> list[str]:
    return [f"p{day}-{number:06d}" for number in numbers]


def put(product: ProductStore, path: str, data: bytes) -> None:
    objects.create(objects.open_store(product.settings.root), path, data)


def test_answers_of_several_processes_become_rows_of_their_keys(product: ProductStore, now: datetime) -> None:
    root = product.settings.root
    ship(root, now, b"", kind="hello")
    ship(root, now + SECOND, lines([3, 5]) + line(2, day=1))
    ship(root, now + 2 * SECOND, lines([4]), process="pod-8-0123abcd", stream="1700000000000000001-8-0123abcd")
    done = take_in(product)
    assert (ids(product), ids(product, KEYS[1])) == (named(3, 4, 5), named(2, day=1))
    assert (done.rows, done.skipped, done.waiting) == (4, [], [])
    record = product.tables.records(STAGE)[KEYS[0]]
    assert (record.notes["models"], record.notes["folded"]) == ({"a" * 64: 3}, 1)


def test_the_rows_are_those_of_a_local_log(product: ProductStore, now: datetime, settings: Settings) -> None:
    numbers = random.Random(3).choices(range(40), k=90)
    log = [
        line(number, latency_us=place, answered_at_utc=(MIDNIGHT + place * SECOND).isoformat())
        for place, number in enumerate(numbers)
    ]
    folder = settings.prediction_log / SPEC.name
    folder.mkdir(parents=True)
    (folder / "1-1.jsonl").write_bytes(b"".join(log))
    local = ProductStore(SPEC, settings)
    prediction_log.ingest_local(local, "code", KEYS)
    for place in range(0, 90, 9):
        ship(product.settings.root, now + place * SECOND / 10, b"".join(log[place : place + 9]), first=place * 1000)
        if place % 27 == 0:
            take_in(product)
    take_in(product)
    ours, theirs = (one.tables.records(STAGE)[KEYS[0]] for one in (product, local))
    assert ours.content_digest == theirs.content_digest
    assert ours.rows == len(set(numbers))
    assert {**ours.notes, "folded": 0} == {**theirs.notes, "folded": 0}


def test_nothing_new_writes_nothing(product: ProductStore, now: datetime) -> None:
    ship(product.settings.root, now, lines([1]))
    take_in(product)
    before = listed(product)
    assert take_in(product).memoised == set(KEYS)
    assert listed(product) == before


def listed(product: ProductStore) -> dict[str, datetime]:
    store = objects.open_store(product.settings.root)
    return {item["path"]: item["last_modified"] for batch in obstore.list(store) for item in batch}


def test_a_late_segment_within_the_overlap_is_taken(product: ProductStore, now: datetime) -> None:
    ship(product.settings.root, now, lines([1]), first=500)
    take_in(product)
    ship(product.settings.root, now - timedelta(seconds=segments.LATEST_S - 5), lines([2]))
    take_in(product)
    assert ids(product) == named(1, 2)


def test_a_name_in_the_future_hides_no_later_segment(product: ProductStore, now: datetime) -> None:
    ship(product.settings.root, now + timedelta(days=400), lines([1]))
    take_in(product)
    ship(product.settings.root, now, lines([2]), first=500)
    take_in(product)
    assert ids(product) == named(1, 2)
    assert Ledgers(product.settings.root, SPEC.name).newest_number(naming.CLAIMS) == 2
    take_in(product)
    assert Ledgers(product.settings.root, SPEC.name).newest_number(naming.CLAIMS) == 2, "nothing is claimed twice"


def test_a_doubled_and_an_overlapping_segment_add_no_row(product: ProductStore, now: datetime) -> None:
    ship(product.settings.root, now, lines([1, 2]))
    take_in(product)
    ship(product.settings.root, now + SECOND, lines([1, 2]))
    ship(product.settings.root, now + 2 * SECOND, lines([2, 3]), first=len(line(1)))
    remarks = [item.remark for item in take_in(product).remarks]
    assert ids(product) == named(1, 2, 3)
    length = len(lines([1]))
    assert remarks == [
        f"repeats all of its {2 * length:,} bytes; each answer counts once",
        f"repeats {length:,} of its {2 * length:,} bytes; each answer counts once",
    ]


def test_reordered_segments_give_the_same_rows(product: ProductStore, now: datetime) -> None:
    ship(product.settings.root, now, lines([2]), first=len(line(1)))
    take_in(product)
    path = ship(product.settings.root, now + SECOND, lines([1]))
    [remark] = take_in(product).remarks
    assert ids(product) == named(1, 2)
    assert remark.segment == path
    assert remark.remark.startswith("comes after later bytes of its stream")
    [_, (_, claim)] = Ledgers(product.settings.root, SPEC.name).records(naming.CLAIMS)
    assert claim["remarks"] == [remark.document()]


def swollen(path: str, data: bytes) -> bytes:
    header, _, _ = data[:-32].partition(b"\n")
    packed = zlib.compress(b"\n" * 5_000_000)
    content = json.dumps({**json.loads(header), "packed": len(packed)}).encode() + b"\n" + packed
    return content + sha256(content).digest()


BROKEN = {
    "truncated": (lambda path, data: data[:-40], "has .* bytes; its header states"),
    "empty": (lambda path, data: b" ", "no whole header"),
    "changed": (lambda path, data: data[:-1] + bytes([data[-1] ^ 1]), "digest"),
    "foreign": (lambda path, data: encoded(MIDNIGHT, line(9), product="other")[1], "contains a segment of other"),
    "swollen": (swollen, "unpacks to more than"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_segment_is_named_and_kept_and_the_others_are_taken(product: ProductStore, now: datetime, kind: str):
    damage, reason = BROKEN[kind]
    path, data = encoded(now, lines([7]))
    put(product, path, damage(path, data))
    ship(product.settings.root, now + SECOND, lines([1]), first=300)
    done = take_in(product)
    assert ids(product) == named(1)
    [skipped] = done.skipped
    assert skipped.segment == path
    assert re.search(reason, skipped.reason), skipped.reason
    [(_, claim)] = Ledgers(product.settings.root, SPEC.name).records(naming.CLAIMS)
    _, taken = sorted(path for path in listed(product) if path.startswith(segments.PREFIX))
    assert (claim["segments"], claim["skipped"][0]["segment"]) == ([taken], path)
    assert path in listed(product)
    assert take_in(product).skipped == [], "named once"


def test_an_object_with_another_name_is_named_once(product: ProductStore, now: datetime) -> None:
    paths = [f"{segments.folder(SPEC.name)}/{name}" for name in ("00000000/a.segment", "notes.txt", "zzz/late")]
    for path in paths:
        put(product, path, b"hello")
    ship(product.settings.root, now, lines([1]))
    assert [item.segment for item in take_in(product).skipped] == paths
    for _ in range(2):
        ship(product.settings.root, now + SECOND * _ + SECOND, b"")
        assert take_in(product).skipped == []


def test_a_newer_format_is_taken_after_an_update(product: ProductStore, now: datetime, monkeypatch: pytest.MonkeyPatch):
    path, data = encoded(now, lines([7]))
    header, _, body = data[:-32].partition(b"\n")
    content = json.dumps({**json.loads(header), "format": segments.FORMAT + 1}).encode() + b"\n" + body
    put(product, path, content + sha256(content).digest())
    ship(product.settings.root, now + SECOND, lines([1]), first=300)
    assert take_in(product).waiting == [path]
    ship(product.settings.root, now + timedelta(seconds=segments.LATEST_S * 3), lines([2]), first=600)
    take_in(product)
    assert ids(product) == named(1, 2)
    before = listed(product)
    take_in(product)
    assert listed(product) == before, "an old platform writes nothing while it waits"
    monkeypatch.setattr(segments, "FORMAT", segments.FORMAT + 1)
    done = take_in(product)
    assert (ids(product), done.waiting) == (named(1, 2, 7), [])
    assert take_in(product).rows == 0


def test_answers_to_a_decided_key_are_marked_late(product: ProductStore, now: datetime) -> None:
    ship(product.settings.root, now, lines([1]))
    take_in(product)
    written = Path(__file__).parents[1].joinpath("doubles/records.txt").read_bytes().splitlines()
    decision = json.loads(next(item for item in written if item.startswith(b"decisions ")).split(b" ", 1)[1])
    closed = {**decision, "key": KEYS[0], "at_utc": now.isoformat()}
    Ledgers(product.settings.root, SPEC.name).create(naming.DECISIONS, KEYS[0], closed)
    ship(product.settings.root, now + SECOND, lines([1, 2]), first=300)
    take_in(product)
    rows = product.tables.read(STAGE, [KEYS[0]])
    assert rows.select("prediction_id", answer_rows.LATE).rows() == [("p0-000001", False), ("p0-000002", True)]
    assert content_digest(rows.drop("key")) == product.tables.records(STAGE)[KEYS[0]].content_digest


@pytest.mark.costly
def test_many_answers_in_small_claims_equal_one_claim(
    product: ProductStore, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "BATCH_BYTES", 20_000)
    numbers = list(range(3_000))
    random.Random(1).shuffle(numbers)
    for place in range(0, 3_000, 100):
        ship(product.settings.root, now + place * SECOND / 100, lines(numbers[place : place + 100]), first=place * 1000)
    take_in(product)
    record = product.tables.records(STAGE)[KEYS[0]]
    maker = Ingesting.for_product(SPEC)
    whole = maker.parse(lines(numbers), "file", 0).rows.with_columns(pl.lit(value=False).alias(answer_rows.LATE))
    assert record.content_digest == content_digest(answer_rows.first_given(whole))
    assert Ledgers(product.settings.root, SPEC.name).newest_number(naming.CLAIMS) > 20
    assert len(ids(product)) == 3_000
    assert product.tables.damaged(STAGE, {KEYS[0]: record}) == set()


def test_more_segments_than_are_held_at_once_are_all_taken(
    product: ProductStore, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = listing.pages
    monkeypatch.setattr(listing, "MOST_LISTED", 1)
    monkeypatch.setattr(listing, "pages", lambda *arguments: ([item] for page in pages(*arguments) for item in page))
    for place in range(3):
        ship(product.settings.root, now + place * SECOND, lines([place + 1]), first=place * 1000)
    take_in(product)
    assert ids(product) == named(1, 2, 3)


def test_a_name_ahead_of_the_cursor_is_known_until_listings_begin_after_it() -> None:
    minute_ms = 60_000
    early, late = (encoded(MIDNIGHT + timedelta(minutes=at), lines([1]))[0] for at in (0, 5))
    cursor_ms = round(MIDNIGHT.timestamp() * 1000)
    ahead = listing.ahead(SPEC.name, cursor_ms, [early, late], [])
    assert ahead == [late]
    assert listing.ahead(SPEC.name, cursor_ms + 15 * minute_ms - 1, [], ahead) == [late], "it is still listed"
    assert listing.ahead(SPEC.name, cursor_ms + 15 * minute_ms + 1, [], ahead) == []
