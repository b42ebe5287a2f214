"""Old segments are deleted when a finished claim names them as taken, and no others."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.prediction_log import prediction_log
from platform_assets.prediction_log.parsing import STAGE
from platform_assets.prediction_log.pruning import prune
from platform_assets.store import objects, segments, upkeep
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.parts import Parts
from platform_assets.store.product_store import ProductStore
from platform_assets.store.upkeep import Removed
from tests.doubles.shipped import SPEC, encoded, lines, ship

KEY = "2020-01-05"
DAY = timedelta(days=1)


@pytest.fixture
def product(root: str, tmp_path: Path) -> ProductStore:
    return ProductStore(SPEC, Settings(environment="cluster", root=root, state=tmp_path / "state"))


def take_in(product: ProductStore) -> None:
    prediction_log.ingest_segments(product, "code", [KEY])


def remaining_segments(product: ProductStore) -> set[str]:
    store = objects.open_store(product.settings.root)
    return {item["path"] for batch in obstore.list(store, segments.folder(SPEC.name)) for item in batch}


def test_what_a_claim_names_as_taken_goes_after_the_retention(product: ProductStore) -> None:
    now = datetime.now(UTC)
    root = product.settings.root
    old = {ship(root, now - 40 * DAY, lines([1])), ship(root, now - 39 * DAY, b"")}
    path, data = encoded(now - 38 * DAY, lines([9]))
    objects.create(objects.open_store(root), path, data[:-40])
    take_in(product)
    new = {ship(root, now - DAY, lines([2])), ship(root, now, lines([3]))}
    take_in(product)
    unclaimed = ship(root, now - 45 * DAY, lines([4]))
    take_in(product)
    assert remaining_segments(product) == {*old, *new, path, unclaimed}
    counts = prune(product, now=now, dry_run=True)
    assert (counts.files, remaining_segments(product)) == (2, {*old, *new, path, unclaimed})
    assert prune(product, now=now, dry_run=False) == counts
    assert remaining_segments(product) == {*new, path, unclaimed}, (
        "what is unusable, or was never taken, stays for a person"
    )
    assert prune(product, now=now, dry_run=False) == Removed()
    take_in(product)
    assert product.tables.read(STAGE, [KEY])["prediction_id"].to_list() == [f"p0-{n:06d}" for n in (1, 2, 3)]
    assert product.tables.damaged(STAGE, product.tables.records(STAGE)) == set()


def test_the_segments_of_an_unfinished_claim_stay(product: ProductStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    ship(product.settings.root, now - 40 * DAY, lines([1]))
    with monkeypatch.context() as broken:
        broken.setattr(Parts, "replace", lambda *_: (_ for _ in ()).throw(OSError("the store is away")))
        with pytest.raises(OSError, match="away"):
            take_in(product)
    assert Ledgers(product.settings.root, SPEC.name).newest_number(naming.CLAIMS) == 1
    assert prune(product, now=now, dry_run=False) == Removed()
    take_in(product)
    assert prune(product, now=now, dry_run=False) == Removed(), "folded, and no later claim says so"
    ship(product.settings.root, now, lines([2]))
    take_in(product)
    assert prune(product, now=now, dry_run=False).files == 1


def test_parts_go_with_their_segments_and_answers_stay(product: ProductStore) -> None:
    now = datetime.now(UTC)
    for days, number in ((40, 1), (39, 2), (0, 3)):
        ship(product.settings.root, now - days * DAY, lines([number]))
        take_in(product)
    parts = Parts(product.settings.root, SPEC.name, STAGE)
    assert len(parts.files(KEY, after=0, until=9)) == 3
    prune(product, now=now, dry_run=False)
    assert len(parts.files(KEY, after=0, until=9)) == 1
    removed = upkeep.tidy(product.settings.root, SPEC.name, dry_run=False, retention_hours=0)
    assert removed["folded parts"].files == 2
    ship(product.settings.root, now, lines([4]), first=900)
    take_in(product)
    assert len(product.tables.read(STAGE, [KEY])) == 4


def test_the_last_day_is_never_deleted(product: ProductStore) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        prune(product, now=datetime.now(UTC), dry_run=True, retention_days=0)
