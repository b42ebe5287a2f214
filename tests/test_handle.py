"""One handle opens everything stored for a product, below one root and with one clock."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from platform_assets.base import clock
from platform_assets.base.settings import Settings
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.requests import INTERVENTIONS, Intervention
from tests.doubles import recorded

SPEC = recorded.SPEC
MOMENT = datetime(2020, 1, 3, tzinfo=UTC)


def test_content_written_through_one_handle_is_read_through_another(settings: Settings) -> None:
    one, other = ProductStore(SPEC, settings), ProductStore(SPEC, settings)
    one.tables.record("outcomes", "2020-01-02", content_digest=one.artifacts.put(b"blob"), inputs={}, code="0")
    one.ledgers.of(INTERVENTIONS).append(Intervention(key="2020-01-02", kind="drop"))
    assert other.artifacts.get(other.tables.records("outcomes")["2020-01-02"].content_digest) == b"blob"
    assert other.history.root == other.tables.root == settings.root
    assert set(other.channels) == {source.name for source in SPEC.sources}


def test_a_recording_has_the_replayed_moment_and_a_live_product_the_wall_clock(
    settings: Settings,
) -> None:
    product = ProductStore(SPEC, settings)
    with pytest.raises(LookupError, match="its clock has not been set"):
        _ = product.now
    clock.move(settings, SPEC.name, MOMENT)
    assert product.now == MOMENT
    before = datetime.now(UTC)
    assert before <= ProductStore(replace(SPEC, is_live=True), settings).now <= datetime.now(UTC)
