"""A key waits for the processes that were alive in it, as their segments tell, and no longer than the patience."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.operations import status
from platform_assets.prediction_log import barrier, prediction_log
from platform_assets.store import objects
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.prediction_log import KEY_ENDS, KeyEnd
from tests.doubles import documents
from tests.doubles.shipped import SPEC, encoded, lines, ship

KEY = "2020-01-05"
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
PATIENCE = SPEC.service.answers_patience
ONE, TWO = "pod-1-0123abcd", "pod-2-0123abcd"


@pytest.fixture
def product(root: str, tmp_path: Path) -> ProductStore:
    return ProductStore(SPEC, Settings(environment="cluster", root=root, state=tmp_path / "state"))


@pytest.fixture
def ended(product: ProductStore) -> datetime:
    """The announced end of the key: a minute ago."""
    return end_key(product, KEY, datetime.now(UTC) - MINUTE)


def end_key(product: ProductStore, key: str, at: datetime) -> datetime:
    product.ledgers.of(KEY_ENDS).create(key, KeyEnd(at_utc=at.isoformat()))
    return at


def release(product: ProductStore) -> None:
    Ledgers(product.settings.root, SPEC.name).append(naming.RELEASES, documents.release())


def take_in(product: ProductStore) -> dict[str, object]:
    """Ingest, and return the document of the key's attendance; empty without a record."""
    prediction_log.ingest_segments(product, "code", [KEY])
    attendance = product.history.attendance(KEY)
    return {} if attendance is None else attendance.document()


def waits(product: ProductStore) -> str:
    return barrier.reason_to_wait(product, KEY)


def test_a_key_waits_until_every_process_has_sent_beyond_its_end(product: ProductStore, ended: datetime) -> None:
    for process in (ONE, TWO):
        ship(product.settings.root, ended - 2 * MINUTE, b"", process=process, kind="hello")
    assert waits(product).endswith(f"for answers of {ONE}, {TWO}")
    assert waits(product).startswith(f"{KEY} waits until {(ended + PATIENCE).isoformat()}")
    ship(product.settings.root, ended + SECOND, lines([1]), process=ONE)
    ship(product.settings.root, ended + SECOND, b"", process=TWO, covers_until=ended - SECOND)
    assert waits(product).endswith(f"for answers of {TWO}")
    assert take_in(product) == {}, "what processes sent is recorded when nothing is waited for"
    ship(product.settings.root, ended + 2 * SECOND, b"", process=TWO, kind="goodbye", covers_until=ended - SECOND)
    assert waits(product) == ""
    assert take_in(product) == {"case": "answers", "ended_at_utc": ended.isoformat(), "processes": 2}


def test_when_the_patience_is_over_the_record_names_who_was_not_complete(product: ProductStore) -> None:
    ended = end_key(product, KEY, datetime.now(UTC) - PATIENCE - SECOND)
    ship(product.settings.root, ended - MINUTE, lines([1]), process=ONE)
    assert waits(product) == ""
    assert take_in(product)["unheard"] == [ONE]
    ship(product.settings.root, datetime.now(UTC), lines([2]), process=ONE, first=900)
    assert take_in(product)["unheard"] == [ONE], "the record is that of the first measurement"


def test_heartbeats_without_answers_are_not_answers(product: ProductStore, ended: datetime) -> None:
    release(product)
    ship(product.settings.root, ended + SECOND, b"", process=ONE, kind="heartbeat")
    ship(product.settings.root, ended - SECOND, b"", process=ONE, kind="hello")
    assert waits(product) == ""
    assert take_in(product)["case"] == "no_answers"


def test_a_live_release_without_heartbeats_is_waited_for_within_the_patience(product: ProductStore) -> None:
    release(product)
    end_key(product, KEY, datetime.now(UTC) - MINUTE)
    assert waits(product).endswith("for answers of any process of the service")
    assert take_in(product) == {}


def test_a_key_without_heartbeats_is_silent_after_the_patience(product: ProductStore) -> None:
    release(product)
    end_key(product, KEY, datetime.now(UTC) - PATIENCE)
    assert take_in(product)["case"] == "silent"


def test_without_a_release_nothing_is_waited_for(product: ProductStore, ended: datetime) -> None:
    assert waits(product) == ""
    assert take_in(product)["case"] == "unreleased"


def test_a_recording_waits_for_its_caller_once_something_is_released(product: ProductStore) -> None:
    assert waits(product) == ""
    release(product)
    assert waits(product) == f"its caller has not announced the end of {KEY}"
    barrier.announce_end(product, KEY)
    barrier.announce_end(product, KEY)
    assert "any process of the service" in waits(product)


def test_a_dead_process_of_an_earlier_key_is_not_waited_for(product: ProductStore) -> None:
    before = end_key(product, "2020-01-04", datetime.now(UTC) - 20 * MINUTE)
    ended = end_key(product, KEY, datetime.now(UTC) - MINUTE)
    ship(product.settings.root, before - 5 * MINUTE, b"", process=TWO)
    ship(product.settings.root, ended + SECOND, b"", process=ONE)
    ship(product.settings.root, before + SECOND, b"", process=ONE)
    assert waits(product) == ""


def test_an_unreadable_heartbeat_is_not_heard_and_the_next_one_is(product: ProductStore, ended: datetime) -> None:
    ship(product.settings.root, ended - SECOND, b"", process=ONE)
    path, data = encoded(ended + SECOND, b"", process=ONE)
    objects.create(objects.open_store(product.settings.root), path, data[:30])
    assert waits(product).endswith(f"for answers of {ONE}")
    ship(product.settings.root, ended + 2 * SECOND, b"", process=ONE)
    assert waits(product) == ""


def test_moments_are_those_of_the_stores_clock_and_wrong_clocks_are_named(product: ProductStore, ended: datetime):
    offset = timedelta(minutes=10)
    members = {"process": ONE, "clock_offset_s": offset.total_seconds()}
    ship(product.settings.root, ended - SECOND, b"", covers_until=ended - offset - SECOND, **members)
    assert waits(product).endswith(f"for answers of {ONE}")
    ship(product.settings.root, ended + SECOND, b"", covers_until=ended - offset + SECOND, **members)
    assert waits(product) == ""
    assert take_in(product)["wrong_clocks"] == {ONE: 600.0}


def test_status_names_silent_processes_and_wrong_clocks(product: ProductStore, ended: datetime) -> None:
    for at in (ended - SECOND, ended + SECOND):
        ship(product.settings.root, at, b"", process=ONE, clock_offset_s=-45.4, covers_until=at + MINUTE)
    take_in(product)
    ledgers = Ledgers(product.settings.root, SPEC.name)
    ledgers.create(naming.DECISIONS, KEY, documents.decision(KEY, "wait", product=SPEC.name, cutoff="2020-01-06"))
    product.tables.record("decision", KEY, content_digest="a" * 64, inputs={}, code="code")
    text = status.as_text(status.of_product(product))
    assert f"heartbeats and no answers of 1 process in {KEY}; the clock of {ONE} is 45 s ahead" in text
