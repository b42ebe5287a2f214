"""A product takes its rows from an asset of the host, whatever wrote it: each materialisation once."""

# No postponed annotations here: Dagster compares the annotation of `context` as an object.

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import sqlalchemy
from deltalake import write_deltalake

from driftline import HostAsset
from platform_assets import check
from platform_assets.automation.factory import build_defs
from platform_assets.automation.resources import replaced
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.data import arrivals, raw
from platform_assets.data.materialisations import newest
from platform_assets.engine.store_resource import StoreResource
from platform_assets.product.host_assets import rows_of
from platform_assets.product.spec import Product
from platform_assets.sensors import landings, materialisations
from platform_assets.store import host_rows, landing
from platform_assets.store.history.reader import History
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import TableStore
from tests.doubles import documents, empty_jobs, instances, postgres_server
from tests.doubles.built import built
from tests.doubles.shop_orders import KEYS, rows, spec

pytestmark = pytest.mark.slow

BY_DAY = dg.DailyPartitionsDefinition(start_date="2025-12-30", end_date="2026-02-01")
RAW = dg.AssetKey(["shop_orders", "raw_orders"])
Write = Callable[[pl.DataFrame, str], None]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with instances.ephemeral() as ephemeral:
        yield ephemeral


def to_parquet(frame: pl.DataFrame, uri: str) -> None:
    Path(uri).parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(uri)


def to_delta(frame: pl.DataFrame, uri: str) -> None:
    write_deltalake(uri, frame, mode="overwrite")


def to_sql(frame: pl.DataFrame, uri: str) -> None:
    """Write the table `orders` of a database; SQLite has moments as text."""
    if uri.startswith("sqlite"):
        frame = frame.with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    engine = sqlalchemy.create_engine(host_rows.filled(uri, "orders").replace("postgresql:", "postgresql+psycopg2:"))
    kinds = {"at": "timestamptz" if "postgresql" in uri else "text"}
    columns = ", ".join(f"{name} {kinds.get(name, 'real' if name == 'amount' else 'text')}" for name in frame.columns)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("drop table if exists orders"))
        connection.execute(sqlalchemy.text(f"create table orders ({columns})"))
        if not frame.is_empty():
            connection.execute(sqlalchemy.text("insert into orders values (:id, :at, :amount)"), frame.to_dicts())
    engine.dispose()


def to_duckdb(frame: pl.DataFrame, uri: str) -> None:
    import duckdb

    with duckdb.connect(uri.removeprefix("duckdb:///")) as connection:
        connection.execute('create or replace table orders (id varchar, "at" timestamptz, amount double)')
        if not frame.is_empty():
            connection.executemany("insert into orders values (?, ?, ?)", frame.rows())


@dataclass
class Shop:
    """A host with an asset `orders`, and our product in the same deployment.

    Attributes:
        content: what the asset writes next, by partition (empty without one).
        metadata: of its next materialisation, besides its number of rows.
        version: of its next materialisation.
    """

    settings: Settings
    instance: dg.DagsterInstance
    spec: Product
    write: Write = to_parquet
    uri: str = ""
    partitions: dg.PartitionsDefinition[str] | None = None
    content: dict[str, pl.DataFrame] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    declared: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None
    code_version: str | None = None
    cursors: dict[str, str | None] = field(default_factory=dict)

    @property
    def asset(self) -> dg.AssetsDefinition:
        shop = self

        @dg.asset(partitions_def=self.partitions, metadata=dict(self.declared), code_version=self.code_version)
        def orders(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            part = context.partition_key if context.has_partition_key else ""
            shop.write(shop.content[part], shop.uri.replace("{partition}", part))
            metadata = {name: str(value).replace("{partition}", part) for name, value in shop.metadata.items()}
            version = None if shop.version is None else dg.DataVersion(shop.version)
            return dg.MaterializeResult(metadata=metadata, data_version=version)

        return orders

    @property
    def channel(self) -> host_rows.AssetRows:
        channel = landing.channels(self.spec, self.settings.root)["orders"]
        assert isinstance(channel, host_rows.AssetRows)
        return channel

    @property
    def resources(self) -> dict[str, Any]:
        return {"store": StoreResource(variables=self.settings.to_environment())}

    @property
    def defs(self) -> dg.Definitions:
        ours = build_defs(specs=[self.spec], resources=self.resources)
        return dg.Definitions.merge(ours, dg.Definitions(assets=[self.asset]))

    def make(self, *, part: str = "", frame: pl.DataFrame) -> None:
        self.content[part] = frame
        assert dg.materialize([self.asset], instance=self.instance, partition_key=part or None).success

    def advance(self, first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        stages = ("raw_orders", "validated_orders", "quarantine_orders", "features")
        job = self.defs.resolve_job_def("advance__shop_orders")
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(["shop_orders", stage]) for stage in stages],
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first},
            raise_on_error=False,
        )

    def refusal(self, key: str) -> str:
        data = self.advance(key).failure_data_for_node("shop_orders__raw_orders")
        assert data is not None and data.user_failure_data is not None
        return str(data.user_failure_data.description)

    def tick(self, sensor: Any, **given: Any) -> dg.SensorResult:
        built = sensor.build([self.spec], empty_jobs.of("advance", [self.spec]), replaced(self.resources), prefix="")
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursors.get(built.name), **given)
        result = built(context)
        assert isinstance(result, dg.SensorResult)
        self.cursors[built.name] = result.cursor
        return result

    def note(self) -> str:
        """Evaluate the sensor `materialisations`; return its reason."""
        result = self.tick(materialisations.watch)
        assert result.skip_reason is not None and not result.run_requests
        return str(result.skip_reason.skip_message).removeprefix("shop_orders: ")

    def wanted(self) -> tuple[str, str] | str:
        """Evaluate the sensor `landings`; return the range of the run that it requests, or why it requests none."""
        result = self.tick(landings.watch)
        if not result.run_requests:
            assert result.skip_reason is not None
            return str(result.skip_reason.skip_message)
        tags = result.run_requests[0].tags
        return tags["dagster/asset_partition_range_start"], tags["dagster/asset_partition_range_end"]

    def close(self, *keys: str) -> None:
        for key in keys:
            document = documents.decision(key, "wait", product=self.spec.name, cutoff=self.spec.grain.shift(key, 1))
            Ledgers(self.settings.root, self.spec.name).create(naming.DECISIONS, key, document)

    def amounts(self, stage: str = "features") -> dict[str, list[float]]:
        """Return the amounts of each key of a stage."""
        tables = TableStore(self.settings.root, self.spec.name)
        records = tables.records(stage)
        return {key: tables.read(stage, [key])["amount"].sort().to_list() for key in records}

    def marks(self) -> dict[str, object]:
        records = TableStore(self.settings.root, self.spec.name).records("raw_orders")
        return {key: record.notes.get("mark") for key, record in records.items()}

    def requests(self) -> list[Any]:
        return [record for _, record in History(self.settings.root, self.spec.name).requests(0)]


@pytest.fixture
def shop(settings: Settings, instance: dg.DagsterInstance, tmp_path: Path) -> Shop:
    clock.move(settings, "shop_orders", datetime(2026, 1, 4, tzinfo=UTC))
    uri = str(tmp_path / "theirs" / "{partition}.parquet")
    return Shop(settings, instance, spec(), to_parquet, uri, BY_DAY, metadata={"dagster/uri": uri})


def as_table(shop: Shop, kind: str, folder: Path) -> Shop:
    """Let the shop have one table for all days."""
    uris = {
        "parquet": str(folder / "orders.parquet"),
        "delta": str(folder / "orders"),
        "sqlite": f"sqlite:///{folder}/orders.db",
        "duckdb": f"duckdb:///{folder}/orders.duckdb",
        "postgresql": os.environ.get("SHOP_URI", ""),
    }
    writers: dict[str, Write] = {"parquet": to_parquet, "delta": to_delta, "duckdb": to_duckdb}
    uri = uris[kind]
    metadata = {"dagster/uri": uri, **({"dagster/table_name": "orders"} if "://" in uri else {})}
    return replace(
        shop,
        spec=spec(partition_by="at"),
        write=writers.get(kind, to_sql),
        uri=uri,
        partitions=None,
        metadata=metadata,
    )


@pytest.fixture(scope="module")
def postgres() -> Iterator[postgres_server.PostgresServer]:
    with postgres_server.running() as server:
        yield server


def alike(*keys: str) -> dict[str, list[float]]:
    return {key: [1.0, 12.0, 23.0] for key in keys}


KINDS = [
    "parquet",
    "delta",
    "sqlite",
    "duckdb",
    pytest.param(
        "postgresql",
        marks=pytest.mark.skipif(postgres_server.binaries() is None, reason=postgres_server.MISSING),
    ),
]


@pytest.fixture(params=KINDS)
def table(request: pytest.FixtureRequest, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop with one table in each format; the password of PostgreSQL is in the environment alone."""
    if request.param == "postgresql":
        server: postgres_server.PostgresServer = request.getfixturevalue("postgres")
        user, database = postgres_server.USER, postgres_server.DATABASE
        monkeypatch.setenv("SHOP_PASSWORD", server.password)
        monkeypatch.setenv(
            "SHOP_URI", f"postgresql://{user}:{{SHOP_PASSWORD}}@{server.address}:{server.port}/{database}"
        )
    return as_table(shop, request.param, tmp_path)


def test_the_lineage_leads_from_the_hosts_asset_to_the_product(shop: Shop) -> None:
    graph = shop.defs.resolve_asset_graph()
    assert graph.get(RAW).parent_keys == {dg.AssetKey("orders")}
    assert RAW in graph.get(dg.AssetKey("orders")).child_keys


@pytest.mark.costly
def test_only_the_keys_whose_rows_changed_are_taken_in_again(table: Shop) -> None:
    table.make(frame=rows(*KEYS))
    assert "noted orders" in table.note()
    assert table.advance(KEYS[0], KEYS[-1]).success
    assert table.amounts() == alike(*KEYS)
    before = table.marks()
    table.close(*KEYS)
    table.make(frame=rows(*KEYS))
    table.note()
    assert table.requests() == [], "the same rows"
    table.make(frame=pl.concat([rows(*KEYS[:1]), rows(*KEYS[1:2], amount=2), rows(*KEYS[2:])]))
    assert "noted orders" in table.note()
    assert [request.first for request in table.requests()] == [KEYS[1]]
    assert table.wanted() == (KEYS[1], KEYS[2])
    assert table.advance(KEYS[1], KEYS[2]).success
    assert table.amounts()[KEYS[1]] == [2.0, 24.0, 46.0]
    assert {key for key, mark in table.marks().items() if mark != before[key]} == {KEYS[1]}


def test_a_delta_table_is_read_at_the_version_that_was_seen(shop: Shop, tmp_path: Path) -> None:
    shop = as_table(shop, "delta", tmp_path)
    shop.make(frame=rows(*KEYS))
    shop.note()
    to_delta(rows(*KEYS, amount=7), shop.uri)
    assert pl.read_parquet(shop.channel.fetch(KEYS[0]).data)["amount"].to_list() == [1.0, 12.0, 23.0]


@pytest.mark.costly
def test_the_same_data_version_takes_nothing_in_and_another_one_makes_the_key_eligible(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "SAMPLED", 2**256)  # one file in 64 is read although its mark is the same
    shop = replace(shop, version="v1")
    assert "nothing was materialised as asset orders" in shop.note()
    assert "orders of 2026-01-01 has not landed" in shop.wanted()
    shop.make(part=KEYS[0], frame=rows(KEYS[0]))
    assert shop.note() == f"noted orders {KEYS[0]} (v1)"
    assert shop.wanted() == (KEYS[0], KEYS[0])
    assert shop.advance(KEYS[0]).success
    shop.close(KEYS[0])
    shop.make(part=KEYS[0], frame=rows(KEYS[0], amount=5))
    assert shop.note() == "nothing new"
    assert shop.advance(KEYS[0]).success
    assert shop.amounts() == {KEYS[0]: [1.0, 12.0, 23.0]}
    assert f"orders of {KEYS[1]} has not landed" in shop.wanted()
    shop = replace(shop, version="v2")
    shop.make(part=KEYS[0], frame=rows(KEYS[0], amount=5))
    assert shop.note() == f"noted orders {KEYS[0]} (v2)"
    assert shop.wanted() == (KEYS[0], KEYS[0])
    assert shop.advance(KEYS[0]).success
    assert (shop.marks(), shop.amounts()) == ({KEYS[0]: "v2"}, {KEYS[0]: [5.0, 60.0, 115.0]})


@pytest.mark.costly
def test_a_data_version_that_dagster_made_from_the_code_is_not_the_mark(shop: Shop) -> None:
    shop = replace(shop, code_version="1")
    for amount in (1, 2):
        shop.make(part=KEYS[0], frame=rows(KEYS[0], amount=amount))
        assert shop.advance(KEYS[0]).success
    assert shop.amounts() == {KEYS[0]: [2.0, 24.0, 46.0]}


def test_partitions_before_the_products_first_key_are_left_out(shop: Shop) -> None:
    shop.make(part="2025-12-31", frame=rows("2025-12-31"))
    assert shop.note() == "nothing new"


def test_the_definition_says_the_table_where_materialisations_do_not(shop: Shop, tmp_path: Path) -> None:
    shop = as_table(shop, "duckdb", tmp_path)
    host = HostAsset(path=("orders",), uri=shop.uri)
    shop = replace(
        shop,
        metadata={},
        declared={"dagster/table_name": "orders.main.orders"},
        spec=spec(asset=host, partition_by="at"),
    )
    shop.make(frame=rows(*KEYS))
    assert shop.advance(KEYS[0]).success
    assert shop.amounts() == {KEYS[0]: [1.0, 12.0, 23.0]}


def test_the_sensor_asks_the_definition_too(shop: Shop, tmp_path: Path) -> None:
    shop = as_table(shop, "duckdb", tmp_path)
    shop = replace(shop, metadata={"dagster/uri": shop.uri}, declared={"dagster/table_name": "orders"})
    shop.make(frame=rows(*KEYS))
    result = shop.tick(materialisations.watch, repository_def=shop.defs.get_repository_def())
    assert "noted orders" in str(result.skip_reason)


@pytest.mark.costly
def test_fields_of_the_source_say_it_where_nothing_else_does(shop: Shop, tmp_path: Path) -> None:
    host = HostAsset(path=("orders",), uri=shop.uri)
    shop = replace(shop, metadata={}, spec=spec(asset=host))
    shop.make(part=KEYS[0], frame=rows(KEYS[0]))
    assert shop.advance(KEYS[0]).success
    database = as_table(shop, "sqlite", tmp_path)
    host = HostAsset(path=("orders",), uri=database.uri, table="orders")
    database = replace(database, metadata={}, spec=spec(asset=host, partition_by="at"))
    database.make(frame=rows(*KEYS))
    assert database.advance(KEYS[1]).success
    assert shop.amounts() == alike(*KEYS[:2])


def test_an_asset_that_only_an_io_manager_could_read_is_refused_by_name(shop: Shop) -> None:
    shop = replace(shop, metadata={})
    shop.make(part=KEYS[0], frame=rows(KEYS[0]))
    assert shop.refusal(KEYS[0]).startswith(
        "asset orders does not say where its rows are, so that only its IO manager could read them; give"
    )
    assert shop.note().startswith("asset orders does not say where its rows are")
    shop = replace(shop, metadata={"dagster/uri": shop.uri})
    shop.make(part=KEYS[0], frame=rows(KEYS[0]))
    assert shop.note().startswith(f"noted orders {KEYS[0]}"), "a problem does not last longer than its cause"


def test_a_problem_of_one_partition_is_looked_at_again_and_stops_no_other(shop: Shop) -> None:
    for key in KEYS[:2]:
        shop.make(part=key, frame=rows(key))
    missing = Path(shop.uri.replace("{partition}", KEYS[0]))
    missing.rename(missing.with_suffix(".away"))
    assert shop.note() == (
        f"noted orders {KEYS[1]} ({shop.channel.probe(KEYS[1])}); asset orders: {missing} cannot be read: "
        "there are neither Parquet files nor a Delta table"
    )
    missing.with_suffix(".away").rename(missing)
    assert shop.note().startswith(f"noted orders {KEYS[0]} (files")
    assert shop.note() == "nothing new"


@pytest.mark.costly
def test_a_function_names_the_key_of_a_partition(shop: Shop) -> None:
    parts = dg.StaticPartitionsDefinition(["day_1", "day_2", "unused"])
    names = {"day_1": KEYS[0], "day_2": KEYS[1]}
    shop = replace(shop, partitions=parts, spec=spec(asset=HostAsset(path=("orders",), key_of=names.get)))
    for part, key in names.items():
        shop.make(part=part, frame=rows(key))
    shop.make(part="unused", frame=rows(KEYS[2]))
    assert shop.advance(KEYS[0], KEYS[1]).success
    assert shop.amounts() == alike(*KEYS[:2])


def test_another_partition_scheme_without_a_mapping_is_refused(shop: Shop) -> None:
    shop = replace(shop, partitions=dg.StaticPartitionsDefinition(["2026-W01"]))
    shop.make(part="2026-W01", frame=rows(*KEYS))
    reason = "asset orders has the partition '2026-W01', and the keys of shop_orders are daily keys from 2026-01-01"
    assert shop.refusal(KEYS[0]).startswith(reason)
    assert shop.note().startswith(reason)


def test_a_table_without_partitions_needs_the_column_of_a_rows_moment(shop: Shop, tmp_path: Path) -> None:
    shop = replace(as_table(shop, "delta", tmp_path), spec=spec())
    shop.make(frame=rows(*KEYS))
    reason = "asset orders has no partitions, and source 'orders' of shop_orders does not say which of its rows are"
    assert shop.note().startswith(reason)
    assert shop.refusal(KEYS[0]).startswith(reason)


def test_two_partitions_cannot_be_one_key(shop: Shop) -> None:
    parts = dg.StaticPartitionsDefinition(["morning", "evening"])
    host = HostAsset(path=("orders",), key_of=lambda part: KEYS[0])
    shop = replace(shop, partitions=parts, spec=spec(asset=host))
    for part in ("morning", "evening"):
        shop.make(part=part, frame=rows(KEYS[0]))
    assert "the partitions 'morning' and 'evening' of asset orders both give the key 2026-01-01" in shop.note()


def test_partitions_that_share_a_table_need_the_column_of_a_rows_moment(shop: Shop, tmp_path: Path) -> None:
    shop = replace(as_table(shop, "delta", tmp_path), spec=spec(), partitions=BY_DAY)
    for key in KEYS[:2]:
        shop.make(part=key, frame=rows(key))
    assert "the partitions of asset orders are rows of one table at" in shop.note()
    database = replace(as_table(shop, "sqlite", tmp_path), spec=spec(), partitions=BY_DAY)
    database.make(part=KEYS[2], frame=rows(KEYS[2]))
    assert "state partition_by" in database.note()


@pytest.mark.costly
def test_a_table_whose_partitions_are_written_one_by_one_is_filtered_too(shop: Shop, tmp_path: Path) -> None:
    shop = replace(as_table(shop, "delta", tmp_path), partitions=BY_DAY, version="v1")
    for place, key in enumerate(KEYS):
        shop.make(part=key, frame=rows(*KEYS[: place + 1]))
    assert shop.advance(KEYS[0], KEYS[-1]).success
    assert shop.amounts() == alike(*KEYS)


def test_partitions_with_places_of_their_own_are_not_one_table(shop: Shop) -> None:
    shop = replace(shop, spec=spec(partition_by="at"))
    shop.make(part=KEYS[0], frame=rows(KEYS[0]))
    shop.note()
    shop.make(part=KEYS[1], frame=rows(KEYS[1]))
    assert "each partition of asset orders has a place of its own" in shop.note()


@pytest.mark.costly
@pytest.mark.parametrize("kind", ["parquet", "sqlite", "duckdb"])
def test_rows_that_were_overwritten_are_refused_and_the_next_are_taken(shop: Shop, tmp_path: Path, kind: str) -> None:
    shop = as_table(shop, kind, tmp_path)
    shop.make(frame=rows(*KEYS))
    shop.note()
    shop.write(rows(*KEYS, amount=3), shop.uri)  # by something that reports nothing
    assert "were overwritten after it was materialised" in shop.refusal(KEYS[0])
    assert shop.amounts("raw_orders") == {}, "nothing was taken in"
    shop.make(frame=rows(*KEYS, amount=3))
    assert shop.advance(KEYS[0]).success
    assert shop.amounts() == {KEYS[0]: [3.0, 36.0, 69.0]}


@pytest.mark.costly
def test_an_asset_that_is_materialised_while_it_is_read_is_read_again(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    shop.make(part=KEYS[0], frame=rows(KEYS[0]))
    read = host_rows.read

    def overtaken(record: Any, asset: str) -> pl.DataFrame:
        frame = read(record, asset)
        monkeypatch.setattr(host_rows, "read", read)
        shop.make(part=KEYS[0], frame=rows(KEYS[0], amount=4))
        shop.note()
        return frame

    monkeypatch.setattr(host_rows, "read", overtaken)
    assert "was materialised again while 2026-01-01 was read" in shop.refusal(KEYS[0])
    assert shop.amounts("raw_orders") == {}
    assert shop.advance(KEYS[0]).success
    assert shop.amounts() == {KEYS[0]: [4.0, 48.0, 92.0]}


@pytest.mark.parametrize("kind", ["delta", "sqlite"])
def test_a_slow_source_is_the_whole_table(shop: Shop, tmp_path: Path, kind: str) -> None:
    shop = replace(as_table(shop, kind, tmp_path), spec=spec(is_slow=True, known_at=None))
    asset = next(item for item in built(shop.spec, raw) if item.key == RAW)

    def take() -> tuple[bool, int, object]:
        resources = {naming.STORE: shop.resources["store"]}
        result = dg.materialize([asset], instance=shop.instance, resources=resources, raise_on_error=False)
        record = TableStore(shop.settings.root, shop.spec.name).records("raw_orders")[naming.UNPARTITIONED]
        return result.success, record.rows, record.content_digest

    shop.make(frame=rows(*KEYS))
    assert take()[:2] == (True, 9)
    shop.make(frame=rows(*KEYS))
    assert take()[:2] == (True, 9)
    shop.write(rows(KEYS[0]), shop.uri)  # by something that reports nothing
    assert take()[1] == 9
    shop.make(frame=rows(KEYS[0]))
    assert take()[:2] == (True, 3)


def test_a_renamed_asset_is_named_in_one_sentence(shop: Shop) -> None:
    shop = replace(shop, spec=spec(asset="dbt/orders"))
    shop.make(part=KEYS[0], frame=rows(KEYS[0]))
    assert shop.note().startswith(
        "nothing was materialised as asset dbt/orders; materialise it, or fix asset of source"
    )
    assert shop.refusal(KEYS[0]).startswith(
        "asset dbt/orders has no materialisation with rows of 2026-01-01; if it has another name now, fix asset of"
    )


@pytest.mark.costly
def test_a_host_that_is_gone_after_it_was_read_costs_nothing(shop: Shop) -> None:
    shop.make(part=KEYS[0], frame=rows(KEYS[0]))
    assert shop.advance(KEYS[0]).success
    shutil.rmtree(Path(shop.uri).parent)
    again = shop.advance(KEYS[0])
    assert again.success, [event.message for event in again.all_events if event.is_failure]
    assert shop.amounts() == {KEYS[0]: [1.0, 12.0, 23.0]}


def lines_of(shop: Shop, look: Any) -> dict[str, str]:
    return {line.check: line.message for line in check.of_product(shop.spec, shop.settings, look)}


@pytest.mark.parametrize("is_whole", [False, True])
def test_the_check_looks_at_what_was_materialised_before_a_run_took_it_in(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_whole: bool
) -> None:
    if is_whole:
        uri = str(tmp_path / "orders.parquet")
        by_column = replace(shop.spec.source("orders"), partition_by="at")
        others = tuple(source for source in shop.spec.sources if source.name != "orders")
        shop.spec = replace(shop.spec, sources=(by_column, *others), is_live=True, history=None)
        shop.uri, shop.partitions, shop.metadata = uri, None, {"dagster/uri": uri}
        shop.make(frame=pl.concat(rows(key) for key in KEYS))
    else:
        shop.spec = replace(shop.spec, is_live=True, history=None)
        for key in KEYS:
            shop.make(part=key, frame=rows(key))
    monkeypatch.setattr(dg.DagsterInstance, "from_config", lambda _: nullcontext(shop.instance))
    look = partial(newest, tmp_path)
    assert lines_of(shop, look)["landing"].startswith(
        "no recording; checked on 3 landed keys, 2026-01-01 to 2026-01-03"
    )
    assert "no run has taken in anything" in lines_of(shop, None)["recording"]
    assert not Path(shop.settings.root, "ledgers").exists(), "the check notes nothing"


@pytest.mark.costly
def test_the_check_follows_what_was_overwritten_and_materialised_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop.spec = replace(shop.spec, is_live=True, history=None)
    for key in KEYS:
        shop.make(part=key, frame=rows(key))
    assert shop.advance(KEYS[0], KEYS[-1]).success
    shop.make(part=KEYS[0], frame=rows(KEYS[0]).with_columns(amount=pl.lit(7.0)))
    monkeypatch.setattr(dg.DagsterInstance, "from_config", lambda _: nullcontext(shop.instance))
    found = lines_of(shop, partial(newest, tmp_path))
    assert not [text for text in found.values() if "overwritten" in text], found
    alone = lines_of(shop, None)
    assert [text for text in alone.values() if text.startswith("asset orders: its rows at ")], alone


def test_moments_without_a_zone_are_taken_as_utc() -> None:
    data = BytesIO()
    pl.DataFrame({"at": [datetime(2026, 1, 1, 5)]}).write_parquet(data)  # noqa: DTZ001 - what DuckDB's TIMESTAMP gives
    assert rows_of(data.getvalue())["at"].to_list() == [datetime(2026, 1, 1, 5, tzinfo=UTC)]
