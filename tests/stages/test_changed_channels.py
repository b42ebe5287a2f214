"""A channel's code and fields belong to the rows that it delivered: with another query they are fetched again."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import pytest

from platform_assets.base import clock
from platform_assets.base.settings import Settings
from platform_assets.data import raw, validated
from platform_assets.data.raw_maker import Landing
from platform_assets.engine import digests
from platform_assets.engine.store_resource import StoreResource
from platform_assets.product.channels import Channel, Landed
from platform_assets.product.spec import Product
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from platform_assets.training import versions
from tests.doubles import numbered_batches as batches
from tests.doubles.built import built
from tests.stages.conftest import NOW

pytestmark = pytest.mark.slow

HEADER = "sensor,reading,colour,known_at_utc"
EVERY, FEW = "SELECT * FROM readings WHERE key = ?", "SELECT * FROM readings WHERE key = ? AND sensor < 's3'"


@dataclass(frozen=True)
class Query(Channel):
    """Reads a key's rows from a database; its mark says nothing about the query."""

    database: str
    query: str
    password: str = field(default="", repr=False)

    PLACES: ClassVar[tuple[str, ...]] = ("database",)

    def probe(self, key: str, companion: str = "") -> str | None:
        return "always" if Path(self.database).exists() else None

    def fetch(self, key: str, companion: str = "") -> Landed:
        if self.probe(key) is None:
            raise FileNotFoundError(f"{self.database} is gone.")
        with sqlite3.connect(self.database) as connection:
            rows = connection.execute(self.query, [key]).fetchall()
        connection.close()
        text = "\n".join([HEADER, *(",".join(map(str, row[1:])) for row in rows), ""])
        return Landed(uri=self.cite(key), data=text.encode(), arrived_at_utc=NOW, mark="always")

    def cite(self, key: str | None = None) -> str:
        return f"readings of {key}"

    def keys(self) -> list[str]:
        return list(batches.GRAIN.span("0001", "0003"))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "warehouse.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE readings (key, sensor, reading, colour, known_at_utc)")
        for key in batches.GRAIN.span("0001", "0003"):
            rows = [[key, *line.split(",")] for line in batches.readings(key).splitlines()[1:]]
            connection.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()
    return path


def spec_of(channel: Channel | None) -> Product:
    sources = [replace(item, channel=channel) if item.name == "readings" else item for item in batches.SPEC.sources]
    return replace(batches.SPEC, sources=tuple(sources))


@pytest.fixture
def materialise(settings: Settings, instance: dg.DagsterInstance) -> Any:
    clock.move(settings, batches.SPEC.name, NOW)

    def run(channel: Channel | None, key: str = "0002", **tags: str) -> dict[str, Any]:
        assets = built(spec_of(channel), raw, validated)
        result = dg.materialize(
            [item for item in assets if any("readings" in entry.path[-1] for entry in item.keys)],
            partition_key=key,
            instance=instance,
            resources={"driftline_store": StoreResource(variables=settings.to_environment())},
            tags=tags,
        )
        [event] = [
            event.step_materialization_data.materialization
            for event in result.get_asset_materialization_events()
            if event.step_materialization_data.materialization.asset_key.path[-1] == "raw_readings"
        ]
        return {name: entry.value for name, entry in event.metadata.items()}

    return run


def sensors_of(tables: TableStore, key: str = "0002") -> list[str]:
    return tables.read("validated_readings", [key])["sensor"].to_list()


@pytest.mark.costly
def test_a_changed_query_fetches_the_rows_again(materialise: Any, tables: TableStore, database: Path) -> None:
    materialise(Query(str(database), EVERY))
    assert sensors_of(tables) == [f"s{number}" for number in range(batches.SENSORS)]
    materialise(Query(str(database), FEW))
    assert sensors_of(tables) == ["s0", "s1", "s2"]
    assert materialise(Query(str(database), FEW))["is_memoised"], "nothing changed since"


def test_another_address_and_another_password_are_the_same_channel(
    materialise: Any, tables: TableStore, database: Path, tmp_path: Path
) -> None:
    materialise(Query(str(database), EVERY, password="one"))
    other = Query(str(database.rename(tmp_path / "moved.db")), EVERY, password="two")
    assert digests.channel_digest(other) == digests.channel_digest(Query("elsewhere", EVERY))
    assert materialise(other)["is_memoised"]


@pytest.mark.parametrize("loss", ["DELETE FROM readings WHERE key = '0002'", None])
def test_rows_that_the_source_no_longer_has_are_kept_and_named(
    materialise: Any, tables: TableStore, settings: Settings, database: Path, loss: str | None
) -> None:
    materialise(Query(str(database), EVERY))
    if loss is None:
        database.unlink()
    else:
        with sqlite3.connect(database) as connection:
            connection.execute(loss)
        connection.close()
    assert "are kept" in materialise(Query(str(database), FEW))["kept"]
    assert len(sensors_of(tables)) == batches.SENSORS
    product = ProductStore(spec_of(Query(str(database), FEW)), settings)
    record = tables.records("validated_readings", ["0002"])["0002"]
    assert record.versions["raw_readings"] != (versions.current(product.spec)["raw_readings"],)


def test_a_delivery_that_is_gone_is_read_from_its_copy_by_a_changed_reader(
    materialise: Any, tables: TableStore, settings: Settings
) -> None:
    path = batches.land(settings.root, "readings", "0002", batches.readings("0002"))
    before = materialise(None)
    path.unlink()
    assert materialise(None)["content_digest"] == before["content_digest"]
    assert len(sensors_of(tables)) == batches.SENSORS


def version_of(channel: Channel) -> str:
    spec = spec_of(channel)
    return digests.version(Landing.for_source(spec, spec.source("readings")))


def test_the_version_of_raw_follows_the_class_and_the_fields_of_its_channel() -> None:
    class Other(Query):
        def cite(self, key: str | None = None) -> str:
            return "another class"

    channels = [Query("a", EVERY), Query("a", FEW), Other("a", EVERY)]
    assert len({version_of(channel) for channel in channels}) == len(channels)
    assert version_of(Query("a", EVERY, password="b")) == version_of(Query("c", EVERY))
