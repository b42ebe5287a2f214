"""A pass over a file is made once for all that wait for it, and meets files that are written meanwhile."""

import itertools
import os
import string
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, strategies
from hypothesis import settings as drawn

from driftline import DailyGrain, OneFile
from platform_assets.data.channels import parts
from platform_assets.product.channel_sites import ChannelProblem, Site

GRAIN = DailyGrain(start="2026-01-01", end="2026-01-31")
HEADER = "at,text\n"
KEYS = [f"2026-01-{day:02d}" for day in range(1, 10)]


def sited(folder: Path, *, multiline: tuple[str, ...] = ()) -> OneFile:
    site = Site(grain=GRAIN, source="s", folder=folder, scratch=folder / "scratch", multiline=multiline)
    channel = OneFile("rows.csv", by="at").at(site)
    assert isinstance(channel, OneFile)
    return channel


TIMES = itertools.count(1_700_000_001)


def write(folder: Path, text: str) -> None:
    (folder / "rows.csv").write_bytes(text.encode())
    os.utime(folder / "rows.csv", (1_700_000_000, next(TIMES)))  # each file has a time of its own


def test_two_threads_do_not_read_one_file_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick goes on without a pass that takes long; the next source of the file waits for it."""
    write(tmp_path, HEADER + "2026-01-01,a\n")
    real, began, may_end, passes_over = parts.index, threading.Event(), threading.Event(), list[str]()

    def index(recipe: parts.Recipe) -> parts.Index:
        passes_over.append(recipe.path)
        began.set()
        assert may_end.wait(60)
        return real(recipe)

    monkeypatch.setattr(parts, "index", index)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(sited(tmp_path).marks, KEYS)
        assert began.wait(60)
        second = threads.submit(sited(tmp_path).marks, KEYS)
        may_end.set()
        assert first.result(60) == second.result(60)
    assert passes_over == [f"{tmp_path}/rows.csv"]


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


@pytest.mark.costly
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
