"""A file without moments is dealt into batches: samples of the whole, or the rows of one value; marks by content."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from driftline import BatchGrain, DailyGrain, DealtFile, read_csv
from platform_assets.data.channels.dealt_file import KNOWN_AT, LONG_AGO
from platform_assets.product.channel_sites import ChannelProblem, Site
from platform_assets.product.channels import Channel

ROWS = "id,year,amount\n" + "".join(f"{number},{1990 + number // 4},{number}.5\n" for number in range(12))


KEYS = ["0001", "0002", "0003"]


def sited(folder: Path, path: str = "rows.csv", count: int = 3, **given: Any) -> Channel:
    site = Site(grain=BatchGrain(count=count), source="rows", folder=folder)
    return DealtFile(path, **given).at(site)


def ids(channel: Channel, key: str) -> list[str]:
    return read_csv(channel.fetch(key).data)["id"].to_list()


def test_rows_are_dealt_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    channel = sited(tmp_path)
    assert channel.keys() == KEYS
    assert [ids(channel, key) for key in KEYS] == [["0", "2", "5", "7", "10"], ["1", "4", "9"], ["3", "6", "8", "11"]]
    assert set(read_csv(channel.fetch("0002").data)[KNOWN_AT]) == {LONG_AGO}


def test_no_period_of_a_file_fills_a_batch(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("label\n" + "".join(f"{number % 30}\n" for number in range(3000)))
    channel = sited(tmp_path, count=30)
    batches = [read_csv(channel.fetch(key).data)["label"] for key in channel.keys()]  # noqa: SIM118
    assert {len(batch) for batch in batches} <= {98, 99, 100, 101, 102}
    assert min(batch.n_unique() for batch in batches) >= 20


def test_values_of_a_column_are_the_batches(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    assert ids(sited(tmp_path, batch="year"), "0002") == ["4", "5", "6", "7"]


def test_a_mark_follows_the_content_of_its_batch_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    channel = sited(tmp_path)
    before = {key: channel.probe(key) for key in KEYS}
    (tmp_path / "rows.csv").write_text(ROWS.replace("4,1991,4.5", "4,1991,4.75"))
    after = {key: channel.probe(key) for key in KEYS}
    assert [key for key in KEYS if before[key] != after[key]] == ["0002"]
    assert channel.fetch("0002").mark == after["0002"]


def test_parquet_is_read_as_parquet(tmp_path: Path) -> None:
    pl.DataFrame({"id": range(6), "amount": [0.5] * 6}).write_parquet(tmp_path / "rows.parquet")
    channel = DealtFile("rows.parquet")
    reader = channel.reader(None, lambda: None, ())  # type: ignore[arg-type,return-value]
    assert reader is not None
    rows = reader(channel.at(Site(grain=BatchGrain(count=3), source="rows", folder=tmp_path)).fetch("0003").data)
    assert rows["id"].to_list() == [3]


def test_what_cannot_be_dealt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        sited(tmp_path).fetch("0001")
    assert sited(tmp_path).keys() == []
    (tmp_path / "rows.csv").write_text(ROWS)
    with pytest.raises(ChannelProblem, match="has no column 'day', whose values are the batches"):
        sited(tmp_path, batch="day").fetch("0001")
    (tmp_path / "rows.csv").write_text(ROWS + "12,1993\n")
    with pytest.raises(ChannelProblem, match="has a record that is not a row"):
        sited(tmp_path).fetch("0001")
    site = Site(grain=BatchGrain(count=3), source="rows", folder=tmp_path)
    with pytest.raises(ValueError, match="expected a BatchGrain, or OneFile"):
        DealtFile("rows.csv").at(replace(site, grain=DailyGrain(start="2024-01-01")))
