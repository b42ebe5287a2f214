"""A pass over a file leaves a tick, dies without a trace, and meets files that are written meanwhile."""

from __future__ import annotations

import os
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies
from hypothesis import settings as drawn

from driftline import DailyGrain, OneFile
from platform_assets.automation.sensors import landed_files, source_calls
from platform_assets.base.settings import Settings
from platform_assets.data.channels import parts, passes
from platform_assets.product.sited import ChannelProblem, Site
from platform_assets.store.product_store import ProductStore
from tests.doubles.shop_orders import SPEC

GRAIN = DailyGrain(start="2026-01-01", end="2026-01-31")
HEADER = "at,text\n"
KEYS = [f"2026-01-{day:02d}" for day in range(1, 10)]


def sited(folder: Path, *, is_tick: bool = False, multiline: tuple[str, ...] = ()) -> OneFile:
    site = Site(
        grain=GRAIN, source="s", folder=folder, scratch=folder / "scratch", multiline=multiline, is_tick=is_tick
    )
    channel = OneFile("rows.csv", by="at").at(site)
    assert isinstance(channel, OneFile)
    return channel


def write(folder: Path, text: str) -> None:
    (folder / "rows.csv").write_bytes(text.encode())
    os.utime(folder / "rows.csv", (1_700_000_000, 1_700_000_000 + passes_made()))


def passes_made(count: list[int] = []) -> int:  # noqa: B006  # each file has a time of its own
    count.append(1)
    return len(count)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A file whose pass a tick has no time for."""
    monkeypatch.setattr(passes, "TICK_S", 0.0)
    write(tmp_path, HEADER + "".join(f"2026-01-0{n % 9 + 1},{n}\n" for n in range(500_000)))
    yield tmp_path
    for process in passes._PROCESSES.values():
        process.kill()
        process.wait()
    passes._PROCESSES.clear()


def started() -> subprocess.Popen[bytes]:
    (process,) = passes._PROCESSES.values()
    return process


def test_a_pass_that_is_too_long_for_a_tick_goes_on_in_a_process_of_its_own(slow: Path) -> None:
    began_s = time.perf_counter()
    with pytest.raises(
        passes.StillReading, match=r"rows\.csv \(9 MB\) is being read by a process of its own; its keys"
    ):
        sited(slow, is_tick=True).marks(KEYS)
    assert time.perf_counter() - began_s < 3
    with pytest.raises(passes.StillReading):
        sited(slow, is_tick=True).marks(KEYS)
    assert started().wait(60) == 0
    marks = sited(slow, is_tick=True).marks(KEYS)
    assert all(marks.values())
    passes.forget(sited(slow)._recipe, slow / "scratch")
    assert sited(slow).marks(KEYS) == marks, "a run makes the same pass itself"


def test_the_sensor_says_that_a_file_is_being_read(slow: Path, settings: Settings) -> None:
    orders = replace(SPEC.sources[0], asset=None, read=None, channel=OneFile(str(slow / "rows.csv"), by="at"))
    product = ProductStore(replace(SPEC, sources=(orders, SPEC.sources[1])), settings)
    marks = landed_files.Marks(product)
    with pytest.raises(source_calls.SourceProblem):
        marks(orders, KEYS[0])
    (clause,) = marks.clauses("")
    assert clause == (
        f"orders cannot be asked: {slow}/rows.csv (9 MB) is being read by a process of its own; its keys follow."
    )


def test_a_killed_pass_leaves_nothing_and_the_next_tick_says_so_and_starts_again(slow: Path) -> None:
    with pytest.raises(passes.StillReading):
        sited(slow, is_tick=True).marks(KEYS)
    started().kill()
    started().wait()
    assert [path.suffix for path in (slow / "scratch/one_file").iterdir()] == [".lock"]
    with pytest.raises(passes.StillReading, match=r"the process that read .* ended with -9; the next tick tries again"):
        sited(slow, is_tick=True).marks(KEYS)
    with pytest.raises(passes.StillReading, match="is being read"):
        sited(slow, is_tick=True).marks(KEYS)
    assert started().wait(60) == 0
    assert all(sited(slow, is_tick=True).marks(KEYS).values())


def test_two_processes_do_not_read_one_file_twice(slow: Path) -> None:
    recipe, place = sited(slow)._recipe, passes._place(sited(slow)._recipe, slow / "scratch")
    assert isinstance(place, Path)
    command = [sys.executable, "-m", "platform_assets.data.channels.passes", passes._as_text(recipe, place)]
    with passes._locked(place, is_patient=True):
        other = subprocess.Popen(command)
        time.sleep(1)
        with pytest.raises(passes.StillReading):
            sited(slow, is_tick=True).marks(KEYS)
        passes._store(place, parts.index(recipe))
        at_s = passes._KNOWN[place].at_s
    assert other.wait(60) == 0
    stored = passes._stored(place)
    assert stored is not None
    assert stored.at_s == at_s, "the other one found what this one had stored"


def test_a_file_that_is_replaced_between_mark_and_rows_gives_no_mixed_rows(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "2026-01-01,old\n2026-01-02,old\n")
    channel = sited(tmp_path)
    before = channel.marks(KEYS)
    text, stat = HEADER + "2026-01-01,new\n2026-01-02,new\n", (tmp_path / "rows.csv").stat()
    with (tmp_path / "rows.csv").open("r+b") as file:  # in place, with its size and its time
        file.write(text.encode())
    os.utime(tmp_path / "rows.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert channel.marks(KEYS) == before, "nothing shows that it was rewritten"
    delivery = channel.fetch("2026-01-01")
    assert delivery.data.decode() == HEADER + "2026-01-01,new\n"
    assert delivery.mark == sited(tmp_path).probe("2026-01-01") != before["2026-01-01"]


def test_a_mark_and_its_rows_are_one_while_the_file_is_rewritten(tmp_path: Path) -> None:
    """A writer replaces the file in place all the time; what comes is whole, and its mark names it."""
    texts = [HEADER + "".join(f"2026-01-0{n % 3 + 1},{kind * 9}\n" for n in range(3_000)) for kind in "ab"]
    write(tmp_path, texts[0])
    stop, came = threading.Event(), dict[str, set[bytes]]()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with (tmp_path / "rows.csv").open("r+b") as file:
                file.write(texts[number % 2].encode())
            time.sleep(0.01)

    writer = threading.Thread(target=work)
    writer.start()
    try:
        for _ in range(40):
            with suppress(ChannelProblem):  # it changed in each of three reads
                delivery = sited(tmp_path).fetch("2026-01-02")
                came.setdefault(delivery.mark, set()).add(delivery.data)
    finally:
        stop.set()
        writer.join()
    assert came
    assert all(len(data) == 1 for data in came.values())


TEXT = strategies.text(string.printable + "é\u2028", max_size=12) | strategies.just("a\n2026-01-05,looks like a row\nb")
ROWS = strategies.lists(strategies.tuples(strategies.integers(1, 9), TEXT), max_size=30)


def line(day: int, text: str) -> str:
    quoted = text.replace('"', '""').replace("\0", "")
    return f'2026-01-{day:02d},"{quoted}"\n'


def marks_of(folder: Path, rows: list[tuple[int, str]]) -> dict[str, str | None]:
    write(folder, HEADER + "".join(line(*row) for row in rows))
    return dict(sited(folder, multiline=("text",)).marks(KEYS))


def content(rows: list[tuple[int, str]], day: int) -> list[str]:
    return [text for at, text in rows if at == day]


@drawn(max_examples=60, deadline=None)
@given(before=ROWS, after=ROWS)
def test_marks_differ_exactly_where_rows_do(before: list[tuple[int, str]], after: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        old, new = marks_of(Path(name), before), marks_of(Path(name), after)
    for day, key in enumerate(KEYS, 1):
        is_same = content(before, day) == content(after, day)
        if content(before, day) or content(after, day):
            assert (old[key] == new[key]) == is_same, key


@drawn(max_examples=60, deadline=None)
@given(rows=ROWS.filter(bool), change=strategies.sampled_from(["change", "add", "remove"]), data=strategies.data())
def test_a_row_that_is_changed_added_or_removed_moves_the_mark_of_its_key_alone(
    rows: list[tuple[int, str]], change: str, data: strategies.DataObject
) -> None:
    place = data.draw(strategies.integers(0, len(rows) - 1))
    day, text = rows[place]
    replaced = {"change": [(day, f"{text}!")], "add": [(day, text), (day, "more")], "remove": []}[change]
    with tempfile.TemporaryDirectory() as name:
        old = marks_of(Path(name), rows)
        new = marks_of(Path(name), [*rows[:place], *replaced, *rows[place + 1 :]])
    is_empty = "0 "
    moved = [
        key
        for key in KEYS
        if old[key] != new[key] and {(old[key] or is_empty)[:2], (new[key] or is_empty)[:2]} != {is_empty}
    ]
    assert moved == [f"2026-01-{day:02d}"]


@drawn(max_examples=30, deadline=None)
@given(rows=ROWS, block=strategies.integers(40, 400))
def test_the_size_of_blocks_moves_no_mark(rows: list[tuple[int, str]], block: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        whole = marks_of(Path(name), rows)
        patch.setattr(parts, "BLOCK", block)
        assert marks_of(Path(name), rows) == whole


@drawn(max_examples=30, deadline=None)
@given(rows=ROWS)
def test_the_rows_of_all_keys_are_the_files_rows(rows: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        marks_of(Path(name), rows)
        channel = sited(Path(name), multiline=("text",))
        keys = channel.keys()
        for key in keys:
            day = int(key[-2:])
            expected = HEADER + "".join(line(*row) for row in rows if row[0] == day)
            assert channel.fetch(key).data.decode() == expected
