"""Every line of a CSV file belongs to its header, a row or a broken record, and broken records disturb no row."""

import csv
import gzip
import io
import json
import re
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from platform_assets.data.delimited import BROKEN, UnreadableFile, read_csv
from tests.volume import draws

ENDS = ("\n", "\r\n", "\r")
HEADER = "name,size"
LONG = "x" * 70_000
QUOTE = "a quote that does not enclose a whole field"


def broken(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [] if BROKEN not in frame.columns else [json.loads(note) for note in frame[BROKEN].drop_nulls()]


def sound(frame: pl.DataFrame) -> pl.DataFrame:
    return frame if BROKEN not in frame.columns else frame.filter(pl.col(BROKEN).is_null()).drop(BROKEN)


def lines_of(text: str) -> list[str]:
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)", text)


def check_lines(text: str, frame: pl.DataFrame) -> None:
    """Compare the rows with those that Python's csv reads from the file without the lines of broken records."""
    lines, kept, end = lines_of(text.removeprefix("\ufeff")), list[str](), 1
    for record in broken(frame):
        first, last = record["first_line"], record["last_line"]
        assert end <= first <= last <= len(lines)
        assert "".join(lines[first - 1 : last]).removesuffix("\n").removesuffix("\r") == record["record"]
        kept += lines[end - 1 : first - 1]
        end = last + 1
    kept += lines[end - 1 :]
    header, *records = csv.reader(io.StringIO("".join(kept), newline=""), strict=True)
    rows = sound(frame)
    assert rows.columns == header
    assert rows.fill_null("").rows() == [tuple(record or [""]) for record in records]
    assert frame.height == len(records) + len(broken(frame))


@pytest.mark.parametrize(
    ("body", "reasons", "names"),
    [
        ("a,1\nb\nc,3\n", ["line 3 has 1 field; the header has 2"], "ac"),
        ("a,1\nb\n", ["line 3 has 1 field; the header has 2"], "a"),
        ("a,1\nb,2,x\n", ["line 3 has 3 fields; the header has 2"], "a"),
        ("a,1\n# note\nc,3\n", ["line 3 has 1 field; the header has 2"], "ac"),
        ("a,1\nb,\0\0\0\0\nc,3\n", ["line 3 has 4 zero bytes"], "ac"),
        ("a,1\nb\0\0\0,3\nc,3\n", ["line 3 has 3 zero bytes"], "ac"),
        ("a,1\n\nc,3\n\n", ["line 3 is empty", "line 5 is empty"], "ac"),
        (
            'a,1\n"b,2\nc,3\nd",4\ne,5\n',
            ["the record in lines 3 to 5 has a line break in name, which `multiline` does not list"],
            "ae",
        ),
        ('a,"1\nb,2\n",3\nd,4\n', ["the record in lines 2 to 4 has 3 fields; the header has 2"], "d"),
        ('a,1\n"b,2\nc,3\n"d, e",4\n', [f"line 3 has {QUOTE}"], ["a", "c", "d, e"]),
        ('a,1\nb"x",2\n"c",3\n', [f"line 3 has {QUOTE}"], "ac"),
        ('a,1\n"b" x,2\nc,3\nd,"4\ne,5\n', [f"line {line} has {QUOTE}" for line in (3, 5)], "ace"),
        ("a,1\nb\rx,2\nc,3\n", ["the record in lines 3 to 4 has a line end that is not the header's"], "ac"),
        ("a,1\r\nb,2\n\r\nc,3\r\n", ["line 4 is empty"], "abc"),
    ],
)
def test_a_broken_record_is_named_by_its_lines(body: str, reasons: list[str], names: list[str] | str) -> None:
    text = f"{HEADER}\n{body}"
    frame = read_csv(text.encode())
    for end in ("\r\n", "\r"):
        if "\r" not in body:
            other = read_csv(text.replace("\n", end).encode())
            assert other.drop(BROKEN).equals(frame.drop(BROKEN))
            assert [record["reason"] for record in broken(other)] == reasons
    assert [record["reason"] for record in broken(frame)] == reasons
    assert sound(frame)["name"].to_list() == [*names]
    check_lines(text, frame)


def test_a_column_of_several_lines_keeps_them() -> None:
    frame = read_csv(b'size,name\r\n1,"a\r\nb"\r\n"2\r\n",c\r\n3,"d\n\n"\r\n', multiline=["name"])
    assert sound(frame)["name"].to_list() == ["a\r\nb", "d\n\n"]
    assert [(record["first_line"], record["last_line"]) for record in broken(frame)] == [(4, 5)]
    assert broken(frame)[0]["record"] == '"2\r\n",c'


def test_an_empty_line_of_a_file_with_one_column_is_an_empty_value() -> None:
    frame = read_csv(b"name\na\n\nb\n\n")
    assert frame.columns == ["name"]
    assert frame["name"].to_list() == ["a", None, "b", None]


def test_a_damaged_gzip_file_is_refused() -> None:
    data = gzip.compress(b"name,size\na,1\n" * 100)
    for damaged in (data[:-9], data[:20], data + b"x", data[:30] + b"!" + data[31:]):
        with pytest.raises(UnreadableFile, match="the gzip file is damaged or cut short"):
            read_csv(damaged)


def test_a_large_file_with_one_broken_record_keeps_all_others() -> None:
    rows = [f'{number},"a ""{number}"", b"\n' for number in range(60_000)]
    frame = read_csv("".join(["size,name\n", *rows[:40_000], "1\n", *rows[40_000:]]).encode())
    assert sound(frame)["size"].to_list() == [str(number) for number in range(60_000)]
    assert broken(frame)[0]["first_line"] == 40_002
    assert frame[BROKEN].is_not_null().arg_true().to_list() == [40_000]


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[list[str] | None], tuple[str, ...], str]:
    """Draw a file: its text, its records (None for a broken one), its columns of several lines, and its line end."""
    end, width = draw(st.sampled_from(ENDS)), draw(st.integers(1, 4))
    names = [f"c{number}" for number in range(width)]
    multiline = tuple(name for name in names if draw(st.booleans()))
    plain = st.text("ab #'7\u00e9\u2028\x0b", max_size=4) | st.just(LONG)
    line = st.text('ab,"\u00e9', max_size=6)
    several = st.text('a,"\r\n', max_size=6)

    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    texts, records = [",".join(names)], list[list[str] | None]()
    kinds = ["row"] * 4 + ["short", "wide", "zeros", "torn", "stray", "blank"]
    for kind in [*draw(st.lists(st.sampled_from(kinds), max_size=8)), "row"]:
        # Whatever follows a stray quote in its line is broken with it, and the next line is on its own.
        may_break = [] if kind == "stray" else multiline
        cells = [draw(several if name in may_break and draw(st.booleans()) else line | plain) for name in names]
        fields = [quoted(cell) if draw(st.booleans()) or re.search('[,"\r\n]', cell) else cell for cell in cells]
        record: list[str] | None = None
        at = draw(st.integers(0, width - 1))
        if kind == "row":
            record = cells
        elif kind == "short" and width > 2:
            fields.pop()
        elif kind == "zeros":
            fields[at] = "\0" * draw(st.integers(1, 9))
        elif kind == "torn" and names[at] not in multiline:
            fields[at] = quoted("a" + draw(st.sampled_from(ENDS)) + "b")
        elif kind == "stray":
            fields[at] = draw(st.sampled_from(['a"b', '"a"b', '"a" ', ' "a"', 'a""', '"""a"b']))
        elif kind == "blank":
            fields, record = [""], [""] if width == 1 else None
        else:
            fields.append("x")
        texts.append(",".join(fields))
        records.append(record)
    return end.join([*texts, ""]), records, multiline, end


@pytest.mark.costly
@settings(max_examples=draws(300), deadline=None)
@given(file=files(), is_packed=st.booleans(), has_mark=st.booleans())
def test_rows_are_kept_whatever_is_broken_between_them(
    file: tuple[str, list[list[str] | None], tuple[str, ...], str], is_packed: bool, has_mark: bool
) -> None:
    text, records, multiline, _ = file
    data = ("\ufeff" * has_mark + text).encode()
    frame = read_csv(gzip.compress(data) if is_packed else data, multiline=multiline)
    assert sound(frame).fill_null("").rows() == [tuple(record) for record in records if record is not None]
    assert (BROKEN in frame.columns) == (None in records)
    if None in records:
        assert frame[BROKEN].is_not_null().to_list() == [record is None for record in records]
    check_lines(text, frame)


@settings(max_examples=draws(500), deadline=None)
@given(
    body=st.text('a,"\r\n\0 ', max_size=30),
    end=st.sampled_from(ENDS),
    header=st.sampled_from(["a", "a,b", '"a",b']),
    multiline=st.sets(st.sampled_from("ab")),
)
@example(body='"\n"\n\n', end="\n", header="a", multiline=set())
@example(body="a,a\ra,a\n", end="\r", header="a,b", multiline=set())
def test_the_lines_of_any_file_add_up(body: str, end: str, header: str, multiline: set[str]) -> None:
    text = f"{header}{end}{body}"
    try:
        frame = read_csv(text.encode(), multiline=multiline)
    except UnreadableFile as problem:
        frame, refused = None, str(problem)
    if frame is None:
        assert "the file is cut short" in refused
    else:
        check_lines(text, frame)
