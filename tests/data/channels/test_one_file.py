"""One file of all days is cut into keys: marks by content, one pass per change, nothing half-taken."""

import os
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from driftline import BatchGrain, DailyGrain, HourlyGrain, OneFile
from platform_assets.base import clock
from platform_assets.base.settings import Settings
from platform_assets.data.channels import parts, passes
from platform_assets.product.channel_sites import ChannelProblem, Site, project_of
from platform_assets.product.channels import Channel
from platform_assets.product.sources import Source
from platform_assets.products import flight_delays
from platform_assets.store import landing
from tests.doubles.shop_orders import KEYS, SPEC, orders_schema

GRAIN = DailyGrain(start="2026-01-01", end="2026-03-31")
HEADER = "id,at,amount\n"
LONG_AGO = 1_700_000_000


def source(path: str = "orders.csv", deadline: timedelta = timedelta(hours=24), **given: Any) -> Source:
    channel = OneFile(path, by="at", **given)
    return Source(
        name="orders",
        description="Orders.",
        schema=orders_schema,
        known_at="at",
        channel=channel,
        deadline=deadline,
    )


def sited(
    folder: Path, path: str = "orders.csv", *, is_tick: bool = False, grain: Any = GRAIN, **given: Any
) -> Channel:
    orders = source(path, **given)
    site = Site(grain=grain, source="orders", folder=folder, scratch=folder / "scratch", is_tick=is_tick)
    return orders.channel.at(site)  # type: ignore[union-attr]


def write(folder: Path, text: str, name: str = "orders.csv", at_s: float = LONG_AGO) -> Path:
    """Write a file that nobody has touched for a long time."""
    path = folder / name
    path.write_bytes(text.encode())
    os.utime(path, (at_s, at_s))
    return path


def row(name: str, day: int, amount: float = 1.0) -> str:
    return f"{name},2026-01-{day:02d}T10:00:00Z,{amount}\n"


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    real = parts.index

    def index(recipe: parts.Recipe) -> parts.Index:
        made.append(recipe.path)
        return real(recipe)

    monkeypatch.setattr(parts, "index", index)
    return made


def test_a_parquet_file_is_cut_as_a_csv_file_is(tmp_path: Path) -> None:
    at = [datetime(2026, 1, day, 10, tzinfo=UTC) for day in (1, 2, 1, 4)]
    rows = pl.DataFrame({"id": ["a", "b", "c", "d"], "at": at, "amount": [1.0, 2.0, 3.0, 4.0]})
    rows.write_parquet(tmp_path / "orders.parquet")
    channel, read = sited(tmp_path, "orders.parquet"), source("orders.parquet").read
    assert read is not None
    keys = channel.keys()
    assert [read(channel.fetch(key).data)["id"].to_list() for key in keys] == [["a", "c"], ["b"], [], ["d"]]


def test_an_unchanged_file_is_not_read_again_by_any_process(tmp_path: Path, passed: list[str]) -> None:
    write(tmp_path, HEADER + row("a", 1))
    first = sited(tmp_path).marks(["2026-01-01"])
    passes._KNOWN.clear()  # as in another process
    assert sited(tmp_path).marks(["2026-01-01"]) == first
    assert sited(tmp_path, is_tick=True).marks(["2026-01-01"]) == first
    assert len(passed) == 1


def test_a_file_that_grows_changes_the_marks_of_keys_with_new_rows_alone(tmp_path: Path, passed: list[str]) -> None:
    write(tmp_path, HEADER + row("a", 1) + row("b", 2))
    before = sited(tmp_path).marks(KEYS)
    write(tmp_path, HEADER + row("a", 1) + row("b", 2) + row("c", 2) + row("d", 3), at_s=LONG_AGO + 1)
    after = sited(tmp_path).marks(KEYS)
    assert (before[KEYS[0]], before[KEYS[2]]) == (after[KEYS[0]], None)
    assert before[KEYS[1]] != after[KEYS[1]]
    assert after[KEYS[2]] is not None
    assert len(passed) == 2


def test_a_lost_or_torn_cache_costs_a_pass(tmp_path: Path, passed: list[str]) -> None:
    write(tmp_path, HEADER + row("a", 1))
    first = sited(tmp_path).marks(KEYS)
    (kept,) = [path for path in (tmp_path / "scratch/one_file").iterdir() if path.suffix != ".lock"]
    kept.write_bytes(kept.read_bytes()[:-7])
    passes._KNOWN.clear()
    assert sited(tmp_path).marks(KEYS) == first
    assert len(passed) == 2


def test_rows_without_a_legible_moment_are_with_the_row_before_them(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "x,,1\n" + row("a", 1) + "y,soon,1\n" + 'z,"torn\n' + row("b", 2))
    channel = sited(tmp_path)
    assert channel.fetch("2026-01-01").data.decode() == HEADER + "x,,1\n" + row("a", 1) + "y,soon,1\n" + 'z,"torn\n'
    assert channel.fetch("2026-01-02").data.decode() == HEADER + row("b", 2)


def test_two_formats_of_dates_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + row("a", 1) + "b,13/01/2026,2\nc,14/01/2026,2\n")
    with pytest.raises(ChannelProblem) as problem:
        sited(tmp_path).marks(KEYS)
    assert str(problem.value) == (
        f"{path} has '13/01/2026' in 'at' of record 3 (and 1 more like it), and '2026-01-01T10:00:00Z' in record 2: "
        "expected a moment such as 2024-03-01T05:00:00Z throughout, so none of its rows is taken. Write it in one "
        "format, and another one than ISO 8601 into the channel's time_format."
    )


def test_another_format_is_stated(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "a,31.01.2026 23:30,1\n")
    orders = source(time_format="%d.%m.%Y %H:%M")
    channel = sited(tmp_path, time_format="%d.%m.%Y %H:%M")
    assert channel.keys() == ["2026-01-31"]
    assert orders.read is not None
    assert orders.read(channel.fetch("2026-01-31").data)["at"].to_list() == [datetime(2026, 1, 31, 23, 30, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no header line"),
        ("id;at;amount\na;2026-01-01;1\n", "has no column 'at', by which .*; it has id;at;amount"),
        (HEADER + row("a", 1) + "b,2026-01-02T10:0", "is cut short: its last line 'b,2026-01-02T10:0' has no end"),
        (HEADER + "a,,1\nb,,2\n", "none of its first 2 rows has a moment in 'at'"),
    ],
)
def test_a_file_that_cannot_be_cut_is_refused_whole(tmp_path: Path, text: str, problem: str) -> None:
    write(tmp_path, text)
    with pytest.raises(ChannelProblem, match=problem):
        sited(tmp_path).fetch("2026-01-01")


def test_the_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    write(tmp_path, HEADER + row("a", 1) + "b,2026-01-02T10:0", at_s=time.time())
    assert sited(tmp_path).keys() == ["2026-01-01"]


def test_days_and_hours_end_in_their_zone(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "a,2026-01-01 23:30,1\nb,2026-01-02T03:00:00-02:00,1\n")
    assert sited(tmp_path, grain=replace(GRAIN, time_zone="Europe/Berlin")).keys() == ["2026-01-02"]
    assert sited(tmp_path, grain=HourlyGrain(start="2026-01-01T00")).keys()[0] == "2026-01-01T23"
    with pytest.raises(ValueError, match="batches have no moments; expected a DailyGrain or an HourlyGrain"):
        sited(tmp_path, grain=BatchGrain(count=3))


def test_more_rows_than_memory_are_refused_with_an_estimate(tmp_path: Path) -> None:
    write(tmp_path, HEADER + row("a", 1) * 10_000)
    with pytest.raises(ChannelProblem, match=r"has 10,000 rows of 2026-01-01, which take some 2 MB of memory"):
        sited(tmp_path, most_memory_mb=1).fetch("2026-01-01")


def test_rows_may_still_be_added_until_the_lag_is_over(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    write(tmp_path, HEADER + f"a,{today - timedelta(days=1)},1\n")
    grain = DailyGrain(start="2026-01-01")
    key = f"{today - timedelta(days=1)}"
    assert sited(tmp_path, grain=grain).probe(key) is not None
    late = source(lag=timedelta(days=2))
    assert late.patience == timedelta(days=3), "the deadline runs after the lag"
    orders = late.channel
    assert orders.at(Site(grain=grain, source="orders", folder=tmp_path)).probe(key) is None  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="lag=-1 day, 0:00:00; expected at least 0"):
        source(lag=timedelta(days=-1))


def test_relative_paths_start_in_the_products_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a host's package as in a checkout, and from any working folder."""
    file = tmp_path / "host/src/shop/products/returns.py"
    file.parent.mkdir(parents=True)
    module = ModuleType("shop_products_returns")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    assert project_of(module.__name__) == file.parent
    (tmp_path / "host/pyproject.toml").touch()
    assert project_of(module.__name__) == tmp_path / "host"
    assert project_of(flight_delays.__name__) == Path(__file__).parents[3]
    assert sited(tmp_path / "host", "data/orders.csv").cite() == str(tmp_path / "host/data/orders.csv")


@pytest.fixture
def both(settings: Settings, tmp_path: Path) -> Any:
    """A product whose orders and returns are in one file."""
    (tmp_path / "pyproject.toml").touch()
    channel = OneFile(str(tmp_path / "orders.csv"), by="at")
    ours = [replace(item, asset=None, read=None, channel=channel) for item in SPEC.sources]
    clock.move(settings, SPEC.name, datetime(2026, 1, 4, tzinfo=UTC))
    return replace(SPEC, sources=tuple(ours))


def test_labels_that_are_filled_in_later_share_the_pass(both: Any, tmp_path: Path, passed: list[str]) -> None:
    """The label's source waits for its lag, and the features do not."""
    label = replace(
        both.label_source, channel=OneFile(str(tmp_path / "orders.csv"), by="at", lag=timedelta(days=20_000))
    )
    spec = replace(both, sources=(both.sources[0], label))
    write(tmp_path, "id,at,amount,is_back\n" + "a,2026-01-01 10:00:00,1,\n")
    channels = landing.channels(spec, str(tmp_path), tmp_path / "scratch")
    assert channels["orders"].probe(KEYS[0]) is not None
    assert channels["returns"].probe(KEYS[0]) is None
    assert len(passed) == 1
