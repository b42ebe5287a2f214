"""Rows of other people's assets are read as those wrote them, or refused in a sentence that names the asset."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy
from deltalake import write_deltalake
from msgspec.structs import replace

from platform_assets.store import host_rows
from platform_assets.store.host_rows import AssetProblem, AssetRows, TableRows
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.sources import MATERIALISED, Materialised
from tests.doubles.faulty_s3 import in_front_of
from tests.doubles.s3_server import S3Server
from tests.doubles.shop_orders import GRAIN, KEYS, rows, spec

ASSET = spec().source("orders").asset
AT = "2026-01-04T00:00:00+00:00"


def seen(uri: str, table: str | None = None) -> Materialised:
    return Materialised(mark="m", uri=uri, table=table, event=1, at_utc=AT)


def channel(by: str = "at") -> TableRows:
    assert ASSET is not None
    return TableRows(root="nowhere", product="shop_orders", source="orders", asset=ASSET, by=by, grain=GRAIN)


def test_a_folder_as_spark_writes_it_is_read_without_its_other_files(tmp_path: Path) -> None:
    for key in KEYS:
        folder = tmp_path / "orders" / f"day={key}"
        folder.mkdir(parents=True)
        rows(key).write_parquet(folder / "part-0.parquet")
    for name in ("_SUCCESS", "day=2026-01-01/.part-0.parquet.crc", "_temporary.parquet"):
        (tmp_path / "orders" / name).write_bytes(b"not Parquet")
    uri = str(tmp_path / "orders")
    read = host_rows.read(seen(uri), "orders")
    assert (read.height, sorted(read["day"].cast(pl.String).unique())) == (9, [*KEYS])
    assert host_rows.version_of(uri, "orders")[1].startswith("files ")
    assert host_rows.read(seen(f"{uri}/day={KEYS[0]}/part-0.parquet"), "orders").equals(rows(KEYS[0]))


@pytest.mark.slow
def test_files_and_delta_tables_on_s3_are_read_too(s3_root: str) -> None:
    write_deltalake(f"{s3_root}/delta", rows(KEYS[0]))
    assert host_rows.version_of(f"{s3_root}/delta", "orders") == (0, "version 0")
    assert host_rows.read(replace(seen(f"{s3_root}/delta"), version=0), "orders").equals(rows(KEYS[0]))
    for key in KEYS:
        rows(key).write_parquet(f"{s3_root}/files/day={key}/part-0.parquet")
    uri = f"{s3_root}/files"
    version, mark = host_rows.version_of(uri, "orders")
    assert version is None
    assert host_rows.read(replace(seen(uri), files=mark), "orders").height == 9
    assert host_rows.read(seen(f"{uri}/day={KEYS[0]}/part-0.parquet"), "orders").height == 3
    rows(KEYS[0], amount=2).write_parquet(f"{uri}/day={KEYS[0]}/part-0.parquet")
    with pytest.raises(AssetProblem, match="were overwritten after it was materialised"):
        host_rows.read(replace(seen(uri), files=mark), "orders")


@pytest.mark.slow
def test_a_tick_asks_a_bucket_once_for_keys_without_a_record(
    s3_root: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ASSET is not None
    for key in KEYS[1:]:
        ledger = Ledgers(s3_root, "shop_orders").of(MATERIALISED.of(host_rows.ledger("orders", key)))
        ledger.append(replace(seen("x"), mark=key))
    with in_front_of(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        rows_of = AssetRows(root=s3_root, product="shop_orders", source="orders", asset=ASSET).for_tick()
        absent = GRAIN.span("2026-01-04", "2026-02-10")
        marks = {key: rows_of.probe(key) for key in (*KEYS, *absent)}
        assert marks == dict.fromkeys([KEYS[0], *absent]) | {key: key for key in KEYS[1:]}
        assert len(proxy.requests) == 1 + 2 * 4, (
            "a listing, and the newest record of two keys; each other key would cost two more"
        )


def test_marks_of_keys_depend_on_their_rows_and_on_no_order(tmp_path: Path) -> None:
    uri = str(tmp_path / "orders.parquet")
    frame = rows(*KEYS)
    frame.write_parquet(uri)
    marks = channel().seen(seen(uri))
    assert list(marks) == [*KEYS]
    frame.reverse().write_parquet(uri)
    assert channel().seen(seen(uri)) == marks
    frame.with_columns(amount=pl.when(pl.col("id") == f"{KEYS[1]}-1").then(0.5).otherwise("amount")).write_parquet(uri)
    assert {key for key, mark in channel().seen(seen(uri)).items() if mark != marks[key]} == {KEYS[1]}


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "text", "day"])
def test_moments_without_a_zone_are_those_of_utc(tmp_path: Path, zone: str | None) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    kinds = {
        None: pl.Series("at", [moment.replace(tzinfo=None)]),
        "Europe/Berlin": pl.Series("at", [moment]).dt.convert_time_zone("Europe/Berlin"),
        "text": pl.Series("at", ["2026-01-02 00:00:00"]),
        "day": pl.Series("at", [moment.date()]),
    }
    uri = str(tmp_path / "orders.parquet")
    pl.DataFrame([kinds[zone]]).write_parquet(uri)
    assert list(channel().seen(seen(uri))) == ["2026-01-02"]


def test_rows_outside_of_the_products_keys_belong_to_none(tmp_path: Path) -> None:
    uri = str(tmp_path / "orders.parquet")
    frame = pl.concat(
        [rows("2025-12-31", KEYS[0], "2026-04-01"), pl.DataFrame({"id": ["x"]}).lazy().collect()], how="diagonal"
    )
    frame.write_parquet(uri)
    assert list(channel().seen(seen(uri))) == [KEYS[0]]


def test_what_cannot_be_read_is_named_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_PASSWORD", raising=False)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    pl.DataFrame({"at": [1]}).write_parquet(tmp_path / "numbers.parquet")
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/shop.db")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table others (id text)"))
    engine.dispose()
    (tmp_path / "shop.duckdb").write_bytes(b"not a database")
    expected = {
        (f"{tmp_path}/none", None): "cannot be read: there is no folder",
        (f"{tmp_path}/cut.parquet", None): f"{tmp_path}/cut.parquet cannot be read: ",
        (f"sqlite:///{tmp_path}/shop.db", None): "does not say in which table",
        (f"sqlite:///{tmp_path}/shop.db", "orders"): "table orders cannot be read: no such table: orders",
        (f"duckdb:///{tmp_path}/shop.duckdb", "orders"): "table orders cannot be read: ",
        ("postgresql://shop:{NO_SUCH_PASSWORD}@db/shop", "orders"): "the variable NO_SUCH_PASSWORD, which is not set",
        ("oracle://shop@db/shop", "orders"): "expected a database of duckdb, sqlite, postgresql",
    }
    for (uri, table), reason in expected.items():
        with pytest.raises(AssetProblem, match="asset orders") as raised:
            host_rows.read(seen(uri, table), "orders")
        assert reason in str(raised.value), uri
    with pytest.raises(AssetProblem, match="column 'at' is Int64; expected moments"):
        channel().seen(seen(f"{tmp_path}/numbers.parquet"))
    with pytest.raises(
        AssetProblem, match="has no column 'on', by which orders of shop_orders assigns rows to keys; it has at"
    ):
        channel("on").seen(seen(f"{tmp_path}/numbers.parquet"))


@pytest.mark.parametrize(
    ("uri", "is_database"),
    [
        ("/data/orders", False),
        ("s3://shop/orders", False),
        ("file:///data", False),
        ("duckdb:////data/x.db", True),
        ("postgresql+psycopg2://db/shop", True),
    ],
)
def test_an_address_is_that_of_a_database_or_of_files(uri: str, is_database: bool) -> None:
    assert host_rows.is_database(uri) is is_database
