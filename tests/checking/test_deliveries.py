"""A product without a recording is checked on its landed files, and checks that cannot run are skipped."""

import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import polars as pl
import pytest

from platform_assets import check as checking
from platform_assets.base import clock, naming
from platform_assets.base.keys import DailyGrain, Grain, HourlyGrain
from platform_assets.base.settings import Settings
from platform_assets.product.channels import Channel, Landed
from platform_assets.product.spec import Product, Window
from tests.doubles import numbered_batches as batches
from tests.doubles.products import hourly_temperature

pytestmark = pytest.mark.slow

RECORDED = hourly_temperature.SPEC
LIVE = replace(
    RECORDED, history=None, is_live=True, grain=HourlyGrain(start=hourly_temperature.GRAIN.start), min_keys=30
)
LABEL_CHECKS = {"label", "entities", "model"}


def states(spec: Product) -> dict[str, str]:
    return {line.check: line.state for line in checking.of_product(spec)}


def message_of(spec: Product, check: str) -> str:
    return next(line.message for line in checking.of_product(spec) if line.check == check)


def land(settings: Settings, first: str, last: str, *, labels_until: str | None) -> None:
    assert RECORDED.history is not None
    for source in RECORDED.sources:
        for key in RECORDED.grain.span(first, last):
            if not source.is_label or (labels_until is not None and key <= labels_until):
                put(settings, LIVE, source.name, key, RECORDED.history.deliver(source.name, key) or b"")


def put(settings: Settings, spec: Product, source: str, key: str, data: bytes) -> Path:
    path = Path(naming.landing_location(settings.root, spec.landing_of(spec.source(source)), key, ".csv"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.costly
def test_a_live_product_passes_every_check_on_its_landed_files(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    land(settings, "2013-01-01T06", "2013-01-04T05", labels_until="2013-01-04T03")
    monkeypatch.setattr(clock, "now", lambda *_, **__: LIVE.grain.instant("2013-01-05T05"))
    results = states(LIVE)
    assert set(results.values()) == {"ok"}
    assert {"keys", "features", "all keys", "lookback", "point in time", "requests", "slices", *LABEL_CHECKS} <= set(
        results
    )
    assert message_of(LIVE, "landing") == "no recording; checked on 72 landed keys, 2013-01-01T06 to 2013-01-04T05"
    assert message_of(LIVE, "keys") == "70 labelled keys have landed (30 needed; the last 24 are the holdout)"


def test_landed_files_that_ended_long_ago_are_named_with_what_to_do(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(settings, "2013-01-01T06", "2013-01-04T05", labels_until="2013-01-04T03")
    monkeypatch.setattr(clock, "now", lambda *_, **__: LIVE.grain.instant("2013-02-01T07"))
    assert message_of(LIVE, "clock") == (
        "the newest landed key, 2013-01-04T05, ended 28 days ago (today is 2013-02-01), so in `make dev` the sensors "
        "close 673 keys without files, each a fault: if it is a recording, release its model by hand "
        '("Land files, train" in docs/add_a_product.md), or give it a grain with an end, is_live=False and a history '
        '("A recording" in docs/cookbook.md) in platform_assets/products/hourly_temperature.py'
    )


@pytest.mark.parametrize("is_landed", [False, True])
@pytest.mark.parametrize(
    "grain", [RECORDED.grain, DailyGrain(start="2013-01-01", end="2013-01-15", time_zone="Asia/Tokyo")]
)
def test_a_live_product_whose_grain_has_ended_is_told_to_change_is_live_or_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, grain: Grain, is_landed: bool
) -> None:
    spec = replace(RECORDED, history=None, is_live=True, grain=grain, min_keys=30)
    if is_landed:
        put(settings, spec, "observations", grain.first, b"anything")
    now = datetime(2013, 2, 1, tzinfo=UTC)
    monkeypatch.setattr(clock, "now", lambda *_, **__: now)
    (line,) = (line for line in checking.of_product(spec) if line.check == "clock")
    assert line.state == "note"
    assert line.message == (
        f"the last key of the grain, {grain.last}, ended {(now - grain.instant_after(grain.last)).days} days ago "
        "(today is 2013-02-01), and is_live=True, so no key follows and nothing new is taken in: give the grain a "
        "later `end` or none; or, for a recording, set is_live=False and give it a history "
        '("A recording" in docs/cookbook.md), in platform_assets/products/hourly_temperature.py'
    )


def test_a_live_product_whose_grain_has_not_ended_is_not_told_so(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clock, "now", lambda *_, **__: RECORDED.grain.instant_after(RECORDED.grain.last))
    spec = replace(RECORDED, history=None, is_live=True, min_keys=30)
    assert "clock" in states(spec)
    monkeypatch.setattr(clock, "now", lambda *_, **__: RECORDED.grain.instant(RECORDED.grain.last))
    assert "clock" not in states(spec)


@dataclass(frozen=True, kw_only=True)
class Warehouse(Channel):
    """Holds the recording's files of one source under `deliver`, without a folder."""

    source: str
    first: str
    last: str

    def probe(self, key: str, companion: str = "") -> str | None:
        return "1" if key in self.keys() else None

    def fetch(self, key: str, companion: str = "") -> Landed:
        if key not in self.keys():
            raise FileNotFoundError(f"{self.cite(key)} has no rows")
        assert RECORDED.history is not None
        data = RECORDED.history.deliver(self.source, key) or b""
        return Landed(uri=self.cite(key), data=data, arrived_at_utc=datetime(2013, 1, 5, tzinfo=UTC), mark="1")

    def cite(self, key: str | None = None) -> str:
        return f"warehouse.{self.source}" + (f", {key}" if key else "")

    def keys(self) -> list[str]:
        return list(RECORDED.grain.span(self.first, self.last)) if self.first else []


class Unreachable(Warehouse):
    """Fails as a driver does whose error is no OSError."""

    def keys(self) -> list[str]:
        raise sqlite3.OperationalError("no such table: facts")


class Database(Warehouse):
    """Asks a file of SQLite for its keys, which no digest covers."""

    file: ClassVar[Path]

    def keys(self) -> list[str]:
        with closing(sqlite3.connect(self.file)) as connection:
            return [key for (key,) in connection.execute("SELECT key FROM facts ORDER BY key")]


def fed(channel: type[Warehouse], *, last: str = "2013-01-04T05", names: Collection[str] = ()) -> Product:
    """Return the live product with a channel for each source, or for the named ones."""
    first = "2013-01-01T06" if last else ""
    sources = tuple(
        replace(source, channel=channel(source=source.name, first=first, last=last))
        if source.name in (names or {"observations", "readings"})
        else source
        for source in LIVE.sources
    )
    return replace(LIVE, sources=sources)


@pytest.mark.costly
def test_a_channel_is_read_before_anything_was_stored(settings: Settings) -> None:
    spec = fed(Warehouse)
    assert not Path(settings.root).exists()
    assert message_of(spec, "landing") == "no recording; checked on 72 landed keys, 2013-01-01T06 to 2013-01-04T05"
    results = states(spec)
    assert set(results.values()) - {"note"} == {"ok"}
    assert {"features", "point in time", *LABEL_CHECKS} <= set(results)
    assert not Path(settings.root).exists()


@pytest.mark.costly
def test_a_channel_is_read_where_another_source_lands_files_and_none_has(settings: Settings) -> None:
    results = states(fed(Warehouse, names={"observations"}))
    assert (results["source observations"], results["features"]) == ("ok", "ok")
    assert results["source readings"] == "skipped"


@pytest.mark.costly
def test_a_channel_may_read_files(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "file", tmp_path / "facts.db", raising=False)
    with closing(sqlite3.connect(Database.file)) as connection:
        connection.execute("CREATE TABLE facts (key)")
        keys = RECORDED.grain.span("2013-01-01T06", "2013-01-04T05")
        connection.executemany("INSERT INTO facts VALUES (?)", [(key,) for key in keys])
        connection.commit()
    results = states(fed(Database))
    assert (results["source readings"], results["features"]) == ("ok", "ok")


def test_a_channel_without_deliveries_is_named(settings: Settings) -> None:
    line = list(checking.of_product(fed(Warehouse, last="")))[-1]
    assert (line.check, line.state) == ("recording", "skipped")
    assert line.message == (
        "there is no recording, and nothing is delivered in warehouse.observations, warehouse.readings; only the "
        "declarations were checked"
    )


def test_a_channel_that_fails_is_a_problem_that_names_its_source(settings: Settings) -> None:
    line = list(checking.of_product(fed(Unreachable, names={"readings"})))[-1]
    assert (line.check, line.state) == ("channels", "problem")
    assert line.message.startswith(
        "the channel of readings of hourly_temperature fails with OperationalError: no such table: facts. Fix it in"
    )


def test_a_channel_whose_delivery_cannot_be_fetched_is_a_problem_that_names_its_source(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object) -> Landed:
        raise ConnectionRefusedError("the warehouse is closed")

    monkeypatch.setattr(Warehouse, "fetch", fetch)
    spec = fed(Warehouse)
    assert states(spec)["source observations"] == "problem"
    assert "the channel of observations of hourly_temperature fails with ConnectionRefusedError" in message_of(
        spec, "source observations"
    )


@pytest.mark.costly
def test_a_mistake_in_a_live_product_is_detected_in_its_landing_folder(settings: Settings) -> None:
    land(settings, "2013-01-01T06", "2013-01-04T05", labels_until="2013-01-04T03")
    assert "raise lookback (it is 5) to 24" in message_of(replace(LIVE, lookback=5), "lookback")
    refusing = put(settings, LIVE, "observations", "2013-01-04T03", b"station,temp\nJFK,1\n")
    problem = message_of(LIVE, "source observations")
    assert problem.startswith(
        "the file of observations, key 2013-01-04T03, from the delivery (platform_assets/products/"
    )
    assert ") cannot be read: the file has the columns" in problem
    assert problem.count("Fix the delivery") == 1
    refusing.write_bytes(b"")
    assert states(LIVE)["source observations"] == "problem"


def test_files_without_rows_are_named_as_such(settings: Settings) -> None:
    assert RECORDED.history is not None
    data = RECORDED.history.deliver("observations", "2013-01-01T06") or b""
    put(settings, LIVE, "observations", "2013-01-01T06", data.splitlines(keepends=True)[0])
    assert "have no rows; expected some" in message_of(LIVE, "source observations")


def test_a_first_key_whose_features_need_earlier_ones_is_not_a_mistake(settings: Settings) -> None:
    def features(tables: Mapping[str, pl.DataFrame], window: Window) -> pl.DataFrame:
        return LIVE.features(tables, window).clear()

    land(settings, "2013-01-01T06", "2013-01-01T06", labels_until="2013-01-01T06")
    assert states(replace(LIVE, features=features))["features"] == "skipped"


@pytest.mark.costly
def test_without_labels_only_checks_that_need_them_are_skipped(settings: Settings) -> None:
    land(settings, "2013-01-01T06", "2013-01-03T23", labels_until=None)
    results = states(LIVE)
    skipped = {check for check, state in results.items() if state == "skipped"}
    assert skipped == {"keys", "source readings", *LABEL_CHECKS}
    assert set(results.values()) == {"ok", "note", "skipped"}
    assert "no file of these keys is in landing/hourly_temperature/readings" in message_of(LIVE, "source readings")


def test_labels_of_keys_without_features_do_not_count(settings: Settings) -> None:
    batches.land_all(settings.root, "0001", "0006", labels_until="0001")
    (Path(settings.root) / "landing" / "numbered_batches" / "readings" / "0001.csv").unlink()
    results = states(batches.SPEC)
    assert {check for check, state in results.items() if state == "skipped"} == {
        "keys",
        "source verdicts",
        *LABEL_CHECKS,
    }
    assert "problem" not in results.values()


@pytest.mark.costly
def test_too_few_landed_keys_are_not_a_mistake(settings: Settings) -> None:
    land(settings, "2013-01-01T06", "2013-01-01T09", labels_until="2013-01-01T07")
    results = states(LIVE)
    assert (results["keys"], results["lookback"], results["features"]) == ("skipped", "skipped", "ok")
    assert message_of(LIVE, "keys") == "labels of 2 keys have landed; min_keys is 30"
    assert "problem" not in results.values()


def test_a_source_that_has_not_landed_skips_the_features(settings: Settings) -> None:
    """The slow source of the batches is missing, and everything that reads rows depends on it."""
    batches.land_all(settings.root, "0001", "0010")
    (Path(settings.root) / "landing" / "numbered_batches" / "catalogue" / "all.csv").unlink()
    results = states(batches.SPEC)
    assert results["source readings"] == results["source verdicts"] == "ok"
    assert {check for check, state in results.items() if state == "skipped"} == {
        "source catalogue",
        "features",
        *LABEL_CHECKS - {"label"},
    }


@pytest.mark.parametrize("is_there", [False, True])
def test_without_landed_files_checks_are_skipped_and_nothing_is_created(settings: Settings, is_there: bool) -> None:
    if is_there:
        Path(settings.root).mkdir()
    lines = list(checking.of_product(batches.SPEC))
    assert (lines[-1].check, lines[-1].state) == ("recording", "skipped")
    assert lines[-1].message.startswith("there is no recording, and no file has landed")
    assert lines[-1].message.endswith("; only the declarations were checked")
    assert Path(settings.root).exists() == is_there


@pytest.mark.costly
def test_incomplete_and_other_files_are_ignored(settings: Settings) -> None:
    batches.land_all(settings.root, "0001", "0010")
    for name in ("0011.waiting", "notes.csv", "0099.csv"):
        (Path(settings.root) / "landing" / "numbered_batches" / "readings" / name).write_text("x")
    assert "checked on 10 landed keys, 0001 to 0010" in message_of(batches.SPEC, "landing")
    assert "problem" not in states(batches.SPEC).values()


@pytest.mark.costly
def test_landed_files_are_read_on_s3_too(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from platform_assets.store.objects import open_store

    monkeypatch.setenv("DRIFTLINE_ROOT", s3_root)
    store = open_store(s3_root)
    put = {"catalogue/all": batches.catalogue()}
    for key in batches.GRAIN.span("0001", "0008"):
        put |= {f"readings/{key}": batches.readings(key), f"verdicts/{key}": batches.verdicts(key)}
    for name, text in put.items():
        store.put(f"landing/numbered_batches/{name}.csv", text.encode())
    assert "checked on 8 landed keys, 0001 to 0008" in message_of(batches.SPEC, "landing")
    assert set(states(batches.SPEC).values()) == {"ok"}
