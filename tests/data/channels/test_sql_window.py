"""A query is cut into keys: mark and rows from one snapshot, in a stated order, and no password anywhere."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from driftline import DailyGrain, SqlWindow
from platform_assets.automation.factory import build_defs
from platform_assets.base import clock
from platform_assets.base.settings import Settings
from platform_assets.data import validation
from platform_assets.data.channels import databases
from platform_assets.data.landed import UnreadableFile
from platform_assets.data.raw_maker import Landing
from platform_assets.engine import digests
from platform_assets.engine.store_resource import StoreResource
from platform_assets.product.channel_sites import ChannelProblem, Site
from platform_assets.product.sources import Source
from tests.doubles import instances, postgres_server
from tests.doubles.shop_orders import KEYS, SPEC, orders_schema

pytestmark = pytest.mark.slow

GRAIN = DailyGrain(start="2026-01-01", end="2026-03-31")
QUERY = "select id, at, amount from orders"


@pytest.fixture(scope="module")
def server() -> Iterator[postgres_server.PostgresServer]:
    with postgres_server.running() as running:
        yield running


class Database:
    """A table `orders` in a real database."""

    def __init__(self, url: str, connect: Callable[[], Any], moment: str) -> None:
        self.url, self._connect = url, connect
        self.run("drop table if exists orders")
        self.run(f"create table orders (id text, at {moment}, amount real)")

    def run(self, *statements: str) -> None:
        connection = self._connect()
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        connection.commit()
        connection.close()

    def add(self, name: str, day: int, amount: float = 1.0) -> None:
        self.run(f"insert into orders values ('{name}', '2026-01-{day:02d} 10:00:00', {amount})")

    def channel(self, **given: Any) -> SqlWindow:
        return sited(self.declared(**given))

    def declared(self, **given: Any) -> SqlWindow:
        query = given.pop("query", QUERY)
        password = {} if self.url.startswith("sqlite") else {"password_env": "SHOP_PASSWORD"}
        return SqlWindow(self.url, query, **{"by": "at", "order_by": ("at", "id"), **password, **given})


def sited(window: SqlWindow, *, is_tick: bool = False) -> SqlWindow:
    at = window.at(Site(grain=GRAIN, source="orders", folder=Path("/"), is_tick=is_tick))
    assert isinstance(at, SqlWindow)
    return at


NEEDS = pytest.mark.skipif(postgres_server.binaries() is None, reason=postgres_server.MISSING)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=NEEDS)])
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    if request.param == "sqlite":
        file = tmp_path / "shop.db"
        return Database(f"sqlite:///{file}", lambda: sqlite3.connect(file), "text")
    return postgres(request, monkeypatch)


@pytest.fixture
def postgresql(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Database:
    return postgres(request, monkeypatch)


def postgres(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Database:
    import psycopg2

    server: postgres_server.PostgresServer = request.getfixturevalue("server")
    monkeypatch.setenv("SHOP_PASSWORD", server.password)
    user, name = postgres_server.USER, postgres_server.DATABASE
    url = f"postgresql://{user}@{server.address}:{server.port}/{name}"
    return Database(url, lambda: psycopg2.connect(url, password=server.password), "timestamptz")


def read(channel: SqlWindow, key: str) -> pl.DataFrame:
    return pl.read_parquet(BytesIO(channel.fetch(key).data))


def test_a_key_is_its_rows_in_the_stated_order(database: Database) -> None:
    for name, day in (("b", 1), ("a", 1), ("c", 3)):
        database.add(name, day)
    channel = database.channel()
    assert channel.keys() == [*KEYS]
    assert read(channel, KEYS[0])["id"].to_list() == ["a", "b"]
    assert [read(channel, key).height for key in KEYS] == [2, 0, 1]
    assert channel.fetch(KEYS[0]).mark == channel.probe(KEYS[0])
    with pytest.raises(FileNotFoundError, match="has no row of 2026-01-04 or a later key"):
        channel.fetch("2026-01-04")


@pytest.mark.parametrize(
    "statement",
    [
        "update orders set amount = 2 where id = 'b'",
        "delete from orders where id = 'b'",
        "insert into orders values ('e', '2026-01-02 12:00:00', 1)",
        "update orders set at = '2026-01-02 10:00:00.5' where id = 'b'",
    ],
)
def test_a_change_moves_the_mark_of_its_key_alone(database: Database, statement: str) -> None:
    for name, day in (("a", 1), ("b", 2), ("c", 2), ("d", 3)):
        database.add(name, day)
    before = database.channel().marks(KEYS)
    database.run(statement)
    after = database.channel().marks(KEYS)
    assert [key for key in KEYS if before[key] != after[key]] == [KEYS[1]]


def test_rows_of_equal_order_are_refused(database: Database) -> None:
    database.add("a", 1)
    database.add("b", 1)
    with pytest.raises(ChannelProblem, match=r"2 rows of .* of 2026-01-01 are equal in order_by=\('at',\), so their"):
        database.channel(order_by=("at",)).fetch(KEYS[0])
    with pytest.raises(ValueError, match="order_by is empty, and digests depend on the order of rows"):
        database.declared(order_by=())


def test_more_rows_than_memory_are_refused_before_they_are_read(database: Database) -> None:
    database.run(*(f"insert into orders values ('{'x' * 900}{n}', '2026-01-01 10:00:00', 1)" for n in range(200)))
    with pytest.raises(
        ChannelProblem, match=r"has 200 rows of 2026-01-01, which take some 1 MB of memory; most_memory"
    ):
        database.channel(most_memory_mb=1).fetch(KEYS[0])


def test_a_key_is_taken_a_lag_after_its_end(database: Database) -> None:
    database.add("a", 1)
    assert database.channel(lag=timedelta(days=20_000)).probe(KEYS[0]) is None


def test_a_column_of_the_query_that_is_gone_is_named(database: Database) -> None:
    database.add("a", 1)
    with pytest.raises(ChannelProblem, match=r"cannot be read: .*at"):
        database.channel(query="select id, amount from orders").fetch(KEYS[0])
    with pytest.raises(ChannelProblem, match=r"has no column 'id', by which its rows are sorted; it has at, amount"):
        database.channel(query="select at, amount from orders").fetch(KEYS[0])


def test_a_query_whose_schema_changed_is_named_or_quarantined(database: Database) -> None:
    """A declared column that is gone makes the key unreadable; a cell of another type quarantines its row."""
    database.add("a", 1)
    orders = Source(
        name="orders", description="Orders.", schema=orders_schema, known_at="at", channel=database.declared()
    )
    maker = Landing.for_source(SPEC, orders)
    data = database.channel(query="select id, at, id as note from orders").fetch(KEYS[0])
    with pytest.raises(UnreadableFile, match="Missing: amount; not expected: note"):
        maker.rows(data.data, data.arrived_at_utc, KEYS[0])
    data = database.channel(query="select id, at, 'ten' as amount from orders").fetch(KEYS[0])
    frames, _ = maker.make({KEYS[0]: data}, {})
    split = validation.split(frames[KEYS[0]], orders_schema(), schema_version=1, key=KEYS[0])
    assert split.good.is_empty()
    assert split.quarantined["reason"].to_list() == ["amount is 'ten', which is not a finite number"]


@NEEDS
def test_no_record_log_or_file_has_the_password(
    postgresql: Database, server: postgres_server.PostgresServer, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    postgresql.add("a", 1)
    orders = replace(SPEC.sources[0], asset=None, read=None, channel=postgresql.declared())
    spec = replace(SPEC, sources=(orders, SPEC.sources[1]))
    clock.move(settings, spec.name, datetime(2026, 1, 4, tzinfo=UTC))
    job = build_defs(specs=[spec], resources={"store": StoreResource(variables=settings.to_environment())})
    tags = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[0]}
    with instances.forgetful() as instance:
        result = job.resolve_job_def("advance__shop_orders").execute_in_process(
            instance=instance, tags=tags, asset_selection=[dg.AssetKey(["shop_orders", "raw_orders"])]
        )
        assert result.success
        events = " ".join(str(event) for event in result.all_events)
    files = [path.read_bytes() for path in settings.state.rglob("*") if path.is_file()]
    files += [path.read_bytes() for path in Path(settings.root).rglob("*") if path.is_file()]
    came = capfd.readouterr()
    assert len(files) > 3
    assert server.address in events
    assert server.password not in events + came.out + came.err
    assert not any(server.password.encode() in data for data in files)


def test_a_tick_asks_seldom(database: Database) -> None:
    database.add("a", 1)
    tick = sited(database.declared(), is_tick=True)
    before = tick.marks(KEYS)
    database.run("update orders set amount = 2")
    assert tick.marks(KEYS) == before
    assert database.channel().marks(KEYS) != before


def test_mark_and_rows_are_of_one_snapshot(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer commits after the mark was made and before the rows are read."""
    if database.url.startswith("sqlite"):
        database.run("pragma journal_mode=wal")  # or the writer waits for the reader
    database.add("a", 1)
    mark = database.channel().probe(KEYS[0])
    real = databases.Snapshot.rows

    def rows(self: databases.Snapshot, *span: datetime) -> pl.DataFrame:
        database.add("b", 1)
        return real(self, *span)

    monkeypatch.setattr(databases.Snapshot, "rows", rows)
    delivery = database.channel().fetch(KEYS[0])
    assert delivery.mark == mark
    assert pl.read_parquet(BytesIO(delivery.data))["id"].to_list() == ["a"]
    assert database.channel().probe(KEYS[0]) != mark


@NEEDS
def test_the_clock_of_the_database_is_hours_off(postgresql: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    postgresql.add("a", 1)
    now = datetime.now(UTC)
    monkeypatch.setattr(clock, "wall", lambda: now + timedelta(hours=3))
    with pytest.raises(ChannelProblem, match=r"the clock of postgresql://.* says .*, which is 3\.0 hours from this"):
        postgresql.channel().fetch(KEYS[0])
    assert postgresql.channel(lag=timedelta(hours=4)).fetch(KEYS[0]).mark


@NEEDS
def test_the_session_of_a_user_moves_no_mark(postgresql: Database) -> None:
    postgresql.add("a", 1)
    before = postgresql.channel().probe(KEYS[0])
    postgresql.run(
        "alter role driftline set timezone to 'Asia/Tokyo'", "alter role driftline set datestyle to 'German'"
    )
    try:
        assert postgresql.channel().probe(KEYS[0]) == before
    finally:
        postgresql.run("alter role driftline reset all")


@NEEDS
def test_a_missing_or_wrong_password_is_named_and_never_shown(postgresql: Database, monkeypatch: pytest.MonkeyPatch):
    postgresql.add("a", 1)
    delivery = postgresql.channel().fetch(KEYS[0])
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2-wrong")
    with pytest.raises(ChannelProblem, match="password authentication failed") as problem:
        postgresql.channel().fetch(KEYS[0])
    monkeypatch.delenv("SHOP_PASSWORD")
    with pytest.raises(ChannelProblem, match="in the environment's variable SHOP_PASSWORD, which is not set"):
        postgresql.channel().fetch(KEYS[0])
    assert "hunter2" not in f"{problem.value!r} {delivery.uri} {postgresql.channel().cite()}"


@pytest.mark.parametrize("url", ["postgresql://shop:hunter2@db/shop", "postgresql://shop@db/shop?password=hunter2"])
def test_a_password_in_the_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"url contains a password, .* password_env='SHOP_PASSWORD'") as problem:
        SqlWindow(url, QUERY, by="at", order_by=("id",))
    assert "hunter2" not in str(problem.value)
    with pytest.raises(ValueError, match="password_env is not the name of a variable") as problem:
        SqlWindow("postgresql://shop@db/shop", QUERY, by="at", order_by=("id",), password_env="hunter2!")
    assert "hunter2" not in str(problem.value)


def test_a_host_and_a_password_move_no_version_and_a_query_does() -> None:
    window = SqlWindow("postgresql://shop@db/shop", QUERY, by="at", order_by=("id",), password_env="OLD")
    elsewhere = replace(window, url="postgresql://other@replica:5433/shop", password_env="NEW", lag=timedelta(hours=1))
    assert digests.channel_digest(window) == digests.channel_digest(elsewhere)
    assert digests.channel_digest(window) != digests.channel_digest(replace(window, query=f"{QUERY} where true"))


def test_moments_of_sqlite_in_two_formats_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    database = Database(f"sqlite:///{file}", lambda: sqlite3.connect(file), "text")
    database.add("a", 1)
    database.run("insert into orders values ('b', '13/01/2026', 1)")
    with pytest.raises(ChannelProblem, match="has '13/01/2026' in 'at'; expected text such as 2024-03-01 05:00:00"):
        database.channel().marks(KEYS)


def test_a_query_of_two_hundred_columns_has_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    database = Database(f"sqlite:///{file}", lambda: sqlite3.connect(file), "text")
    database.add("a", 1)
    wide = ", ".join(f"{n} as c{n}" for n in range(200))
    window = database.channel(query=f"select *, {wide} from orders")
    assert (window.fetch(KEYS[0]).mark, read(window, KEYS[0]).width) == (window.probe(KEYS[0]), 203)


def test_a_reader_takes_moments_as_the_database_writes_them(database: Database) -> None:
    database.add("a", 1)
    orders = Source(
        name="orders", description="Orders.", schema=orders_schema, known_at="at", channel=database.declared()
    )
    assert orders.read is not None
    rows = orders.read(database.channel().fetch(KEYS[0]).data)
    assert rows.schema["at"] == pl.Datetime("us", "UTC")
    assert rows["at"].to_list() == [datetime(2026, 1, 1, 10, tzinfo=UTC)]
