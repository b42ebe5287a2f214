"""Point-in-time features of a year, and of a day: CPU seconds against pandas and against reading the columns.

Ours builds all fields of the reference product. pandas builds six of them, those of a typical notebook, over the same
quarter; ours builds the same six over the same quarter, and every cell must agree. The limit reads the columns that
features need from Parquet. Every contestant runs in a process of its own, and costs include its whole tree after its
imports and its input are in memory; medians of five interleaved rounds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from platform_assets.base.naming import UNPARTITIONED
from platform_assets.data import landed, validation
from platform_assets.data.feature_blocks import Timeline, open_spans
from platform_assets.engine.product_files import load
from platform_assets.product.spec import Window
from proof.benchmarks.harness import Disagreement, Measure

ROUNDS = 5
PRODUCT = "flight_delays"
REPOSITORY = Path(__file__).resolve().parents[2]
QUARTER = ("2013-04-01", "2013-06-30")
IN_QUARTER = pl.col("key").is_between(*(pl.lit(key) for key in QUARTER))
DAY = "2013-06-13"
HOUR = timedelta(hours=1)
ENTITY = "entity"


def run() -> list[Measure]:
    with tempfile.TemporaryDirectory() as folder:
        _land(Path(folder))
        rounds = [{name: _in_its_own_process(name, folder) for name in CONTESTANTS} for _ in range(ROUNDS)]
        _agree(Path(folder))
    cpu_s = {name: statistics.median(one[name]["cpu_s"] for one in rounds) for name in CONTESTANTS}
    memory_mb = {name: max(one[name]["memory_mb"] for one in rounds) for name in CONTESTANTS}
    return [
        Measure("year, all fields: CPU s", cpu_s["year"], limit=cpu_s["scan"], target="<= 6 s"),
        Measure("day, all fields: CPU s", cpu_s["day"], limit=cpu_s["scan_day"], target="<= 1 s"),
        Measure("quarter, six fields: CPU s", cpu_s["polars"], peers={"pandas": cpu_s["pandas"]}),
        Measure("year, all fields: peak memory, MB", memory_mb["year"], limit=memory_mb["scan"]),
    ]


def _land(folder: Path) -> None:
    """Write the validated year, one Parquet file per source."""
    spec = load(PRODUCT)
    keys = spec.grain.span(spec.grain.first, spec.grain.last or "")
    assert spec.history is not None
    for source in spec.feature_sources:
        schema = source.schema()
        raws = {}
        for key in (UNPARTITIONED,) if source.is_slow else keys:
            data = spec.history.deliver(source.name, key)
            assert data is not None
            arrived = datetime(2014, 1, 1, tzinfo=UTC)
            raws[key] = landed.rows(data, columns=list(schema.columns), arrived_at_utc=arrived)
        splits = validation.split_keys(raws, schema, schema_version=1, unique=source.unique)
        frames = [part.good.with_columns(key=pl.lit(key)) for key, part in splits.items()]
        pl.concat(frames).write_parquet(folder / f"{source.name}.parquet")


def _in_its_own_process(name: str, folder: str) -> Mapping[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, __file__, name, folder]
    ended = subprocess.run(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(ended.stdout)
    return result


def _agree(folder: Path) -> None:
    """Compare the six fields of pandas, of our blocks alone and of the product's own features, cell by cell."""
    answers = {name: pl.read_parquet(folder / f"answer_{name}.parquet") for name in ("polars", "pandas")}
    product = pl.read_parquet(folder / "answer_year.parquet").filter(IN_QUARTER)
    ours = product.select(answers["polars"].columns).sort(ENTITY)
    for name, answer in answers.items():
        theirs = answer.sort(ENTITY)
        if not ours[ENTITY].equals(theirs[ENTITY]):
            raise Disagreement(f"{name} has other rows: {theirs.height}; ours {ours.height}.")
        for column in ours.columns[1:]:
            left, right = (frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy() for frame in (ours, theirs))
            differing = int((~np.isclose(left, right, rtol=0, atol=1e-9, equal_nan=True)).sum())
            if differing:
                raise Disagreement(f"{name} differs in {differing} of {len(left)} cells of {column}.")


def _tables(folder: Path) -> dict[str, pl.DataFrame]:
    return {source.name: pl.read_parquet(folder / f"{source.name}.parquet") for source in load(PRODUCT).feature_sources}


def _build(folder: Path, keys: tuple[str, ...]) -> Callable[[], pl.DataFrame]:
    spec = load(PRODUCT)
    reach = spec.grain.with_lookback(keys, spec.lookback)
    tables = {
        name: table.filter(pl.col("key").is_in([*reach, UNPARTITIONED])) for name, table in _tables(folder).items()
    }
    return lambda: spec.features(tables, Window(grain=spec.grain, keys=keys))


def _year(folder: Path) -> Callable[[], pl.DataFrame]:
    grain = load(PRODUCT).grain
    return _build(folder, grain.span(grain.first, grain.last or ""))


def _day(folder: Path) -> Callable[[], pl.DataFrame]:
    return _build(folder, (DAY,))


def _scan(folder: Path) -> Callable[[], pl.DataFrame]:
    return lambda: pl.concat(list(_tables(folder).values()), how="diagonal")


def _scan_day(folder: Path) -> Callable[[], pl.DataFrame]:
    grain = load(PRODUCT).grain
    reach = grain.with_lookback((DAY,), load(PRODUCT).lookback)
    expected = pl.col("key").is_in([*reach, UNPARTITIONED])
    names = [source.name for source in load(PRODUCT).feature_sources]
    return lambda: pl.concat(
        [pl.scan_parquet(folder / f"{name}.parquet").filter(expected).collect() for name in names], how="diagonal"
    )


def _quarter(folder: Path) -> pl.DataFrame:
    """Return the flights of the quarter and of the lookback before it, with their facts."""
    spec = load(PRODUCT)
    reach = spec.grain.with_lookback(spec.grain.span(*QUARTER), spec.lookback)
    tables = _tables(folder)
    facts = tables["movements"].drop("key", "source_offset", "sched_dep_utc")
    flights = tables["schedules"].join(facts, on="flight_id", how="left").filter(pl.col("key").is_in(reach))
    return flights.with_columns(asked_at=pl.col("sched_dep_utc") - timedelta(minutes=120)).sort("flight_id")


def _polars(folder: Path) -> Callable[[], pl.DataFrame]:
    flights = _quarter(folder)

    def build() -> pl.DataFrame:
        quarter = flights.filter(IN_QUARTER)
        departed_flights, arrived_flights = (
            flights.filter(pl.col(name).is_not_null()) for name in ("dep_delay_min", "arr_delay_min")
        )
        departed = Timeline(quarter, departed_flights, by=("origin",), fact_at="dep_known_at_utc")
        landed_ = Timeline(quarter, arrived_flights, by=("dest",), fact_at="arr_known_at_utc")
        tail = Timeline(quarter, departed_flights, by=("tail_number",), fact_at="dep_known_at_utc")
        late = open_spans(
            quarter, flights, by=("origin",), start="sched_dep_utc", end="dep_known_at_utc", longest=6 * HOUR
        )
        return quarter.select(
            pl.col("flight_id").alias(ENTITY),
            origin_dep_delay_3h_min=departed.mean("dep_delay_min", 3 * HOUR),
            origin_departed_1h=departed.count(HOUR),
            dest_arr_delay_3h_min=landed_.mean("arr_delay_min", 3 * HOUR),
            dest_arr_delay_5d_min=landed_.mean("arr_delay_min", timedelta(days=5)),
            tail_dep_delay_min=tail.latest(["dep_delay_min"], timedelta(days=5))["dep_delay_min"],
            origin_overdue=late["count"],
        )

    return build


def _pandas(folder: Path) -> Callable[[], pl.DataFrame]:
    """Write the six fields as a careful notebook does: merge_asof on sorted cumulative sums, group by group."""
    import pandas as pd

    flights = _quarter(folder).to_pandas().rename(columns={"flight_id": ENTITY})

    def running(facts: pd.DataFrame, group: str, at: str, value: str) -> pd.DataFrame:
        out = facts[[group, at, value]].dropna().sort_values(at, kind="stable")
        out["total"] = out.groupby(group)[value].cumsum()
        out["count"] = out.groupby(group).cumcount() + 1
        return out

    def standing(rows: pd.DataFrame, sums: pd.DataFrame, group: str, at: str, back: timedelta) -> pd.DataFrame:
        requested = (
            rows[[ENTITY, group]].assign(moment=rows["asked_at"] - back).dropna().sort_values("moment", kind="stable")
        )
        result = pd.merge_asof(requested, sums.drop(columns=sums.columns[2]), left_on="moment", right_on=at, by=group)
        return result.set_index(ENTITY)[["total", "count"]].reindex(rows[ENTITY]).fillna(0)

    def within_window(rows: pd.DataFrame, group: str, at: str, value: str, within: timedelta) -> pd.DataFrame:
        sums = running(flights, group, at, value)
        return standing(rows, sums, group, at, timedelta(0)) - standing(rows, sums, group, at, within)

    def build() -> pl.DataFrame:
        quarter = flights[flights["key"].between(*QUARTER)]
        three, one = (
            within_window(quarter, "origin", "dep_known_at_utc", "dep_delay_min", hours * HOUR) for hours in (3, 1)
        )
        arrived, week = (
            within_window(quarter, "dest", "arr_known_at_utc", "arr_delay_min", back)
            for back in (3 * HOUR, timedelta(days=5))
        )
        facts = flights[["tail_number", "dep_known_at_utc", "dep_delay_min"]].dropna()
        facts = facts.sort_values("dep_known_at_utc", kind="stable")
        requested = quarter[[ENTITY, "tail_number", "asked_at"]].dropna().sort_values("asked_at", kind="stable")
        last = pd.merge_asof(
            requested,
            facts,
            left_on="asked_at",
            right_on="dep_known_at_utc",
            by="tail_number",
            tolerance=pd.Timedelta(days=5),
        )
        spans = flights.assign(limit=flights["sched_dep_utc"] + 6 * HOUR, one=1)
        spans["end"] = spans["dep_known_at_utc"].fillna(spans["limit"]).where(lambda end: end < spans["limit"])
        spans["end"] = spans["end"].fillna(spans["limit"])
        spans = spans[spans["end"] > spans["sched_dep_utc"]]
        started, ended = (
            standing(quarter, running(spans, "origin", at, "one"), "origin", at, timedelta(0))
            for at in ("sched_dep_utc", "end")
        )
        out = pd.DataFrame(
            {
                "origin_dep_delay_3h_min": three["total"] / three["count"],
                "origin_departed_1h": one["count"],
                "dest_arr_delay_3h_min": arrived["total"] / arrived["count"],
                "dest_arr_delay_5d_min": week["total"] / week["count"],
                "tail_dep_delay_min": last.set_index(ENTITY)["dep_delay_min"].reindex(quarter[ENTITY]),
                "origin_overdue": started["count"] - ended["count"],
            }
        )
        return pl.DataFrame({ENTITY: out.index.to_list(), **{name: out[name].to_numpy() for name in out}})

    return build


CONTESTANTS: dict[str, Callable[[Path], Callable[[], pl.DataFrame]]] = {
    "year": _year,
    "scan": _scan,
    "day": _day,
    "scan_day": _scan_day,
    "polars": _polars,
    "pandas": _pandas,
}


def _measure(name: str, folder: Path) -> None:
    """Prepare one contestant, run it, write its result and print its cost."""
    build = CONTESTANTS[name](folder)
    before = os.times()
    answer = build()
    after = os.times()
    cpu_s = sum(after[:4]) - sum(before[:4])
    peak = next(line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if "VmHWM" in line)
    answer.write_parquet(folder / f"answer_{name}.parquet")
    print(json.dumps({"cpu_s": cpu_s, "memory_mb": int(peak.split()[1]) / 1e3}))


if __name__ == "__main__":
    _measure(sys.argv[1], Path(sys.argv[2]))
