"""Deliveries are found, read and named by the channel of their source."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from obstore.store import ObjectStore

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data import arrivals
from platform_assets.product.channels import Channel, Landed
from platform_assets.store import landing, objects
from platform_assets.store.landing import LandedFiles
from tests.doubles import recorded


class _Query(Channel):
    def probe(self, key: str, companion: str = "") -> str | None:
        return "7" if key == "0001" else None

    def fetch(self, key: str, companion: str = "") -> Landed:
        return Landed(uri=self.cite(key), data=b"a\n", arrived_at_utc=datetime(2020, 1, 1, tzinfo=UTC), mark="7")

    def cite(self, key: str | None = None) -> str:
        return f"warehouse.facts, {key}" if key else "warehouse.facts"

    def keys(self) -> list[str]:
        return ["0001"]


def test_a_landed_file_has_its_location_and_arrival_time(settings: Settings) -> None:
    files = LandedFiles(root=settings.root, folder="tiny/facts", suffix=".csv")
    path = Path(naming.landing_location(settings.root, "tiny/facts", "0001", ".csv"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a\n")
    delivery = files.fetch("0001")
    assert (delivery.uri, delivery.data) == (str(path), b"a\n")
    assert abs(delivery.arrived_at_utc.timestamp() - path.stat().st_mtime) < 1


def test_a_file_that_has_not_landed_is_named(settings: Settings) -> None:
    files = LandedFiles(root=settings.root, folder="tiny/facts", suffix=".csv")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*/landing/tiny/facts/0001.csv: it has not landed"):
        files.fetch("0001")


def test_a_custom_channel_is_complete_immediately_and_cannot_be_replayed(settings: Settings) -> None:
    source = replace(recorded.SPEC.source("readings"), channel=_Query())
    spec = replace(
        recorded.SPEC, sources=(source, *(other for other in recorded.SPEC.sources if other.name != "readings"))
    )
    channel = landing.channels(spec, settings.root)[source.name]
    assert channel.for_tick().probe("0001") == "7"
    assert arrivals.arrival_kind(spec, source, settings.root) == "rename"
    with pytest.raises(NotImplementedError, match=r"warehouse\.facts, 0001 cannot be replayed"):
        channel.deliver("0001", b"a")


def test_a_custom_channel_has_neither_landing_nor_arrives() -> None:
    with pytest.raises(ValueError, match="source 'readings' has a channel and landing, which only landed files have"):
        replace(recorded.SPEC.source("readings"), channel=_Query(), landing="other")
    with pytest.raises(ValueError, match="source 'readings' has a channel and arrives"):
        replace(recorded.SPEC.source("readings"), channel=_Query(), arrives="settled")


def test_the_channels_of_a_product_share_one_client(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = objects.open_store

    def open_store(root: str) -> ObjectStore:
        opened.append(root)
        return real(root)

    monkeypatch.setattr(objects, "open_store", open_store)
    channels = landing.channels(recorded.SPEC, settings.root)
    assert len(channels) > 1
    assert [channel.probe("0001") for channel in channels.values()] == [None] * len(channels)
    assert opened == [settings.root]
