"""A complete file becomes rows of text; any other is refused with its content and the expected one."""

from datetime import UTC, datetime

import polars as pl
import pytest

from platform_assets.data.delimited import BROKEN, read_csv
from platform_assets.data.landed import UnreadableFile, rows

AT = datetime(2024, 5, 1, 6, 30, tzinfo=UTC)
COLUMNS = ("name", "size")


def read(text: str) -> pl.DataFrame:
    return rows(text.encode(), columns=COLUMNS, arrived_at_utc=AT)


def test_cells_stay_text_and_empty_ones_are_null() -> None:
    frame = read('name,size\n"a, b",007\n,1e5\n')
    assert frame.rows() == [("a, b", "007", 0, AT), (None, "1e5", 1, AT)]
    assert frame.schema == {
        "name": pl.String(),
        "size": pl.String(),
        "source_offset": pl.Int64(),
        "arrived_at_utc": pl.Datetime("us", "UTC"),
    }


def test_columns_keep_the_order_of_the_upstream() -> None:
    assert read("size,name\n1,a\n").columns[:2] == ["size", "name"]


def test_a_header_alone_is_a_file_without_rows() -> None:
    assert read("name,size\n").height == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"the file is empty \(0 bytes\)"),
        ("name,si", r"cut short: its last line 'name,si' has no end \(0 lines came\)"),
        ("name,size\na,1\nb,", r"cut short: its last line 'b,' has no end \(2 lines came\)"),
        ("\nname,size\na,1\n", r"the first line is empty; expected a header"),
        ("na\0me,size\na,1\n", r"the first line has 1 zero byte; expected a header"),
        ('na"me,size\na,1\n', r"the header 'na\"me,size' has a quote that does not enclose a whole name"),
        ("name,size\r\na,1\r", r"cut short: its last line 'a,1' has no end \(1 lines came\)"),
        ("name,size,broken_record\na,1,{}\n", r"named 'broken_record', which is reserved"),
        ("name,length\na,1\n", r"columns name, length; expected name, size. Missing: size; not expected: length"),
    ],
)
def test_a_broken_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(UnreadableFile, match=message):
        read(text)


def test_bytes_that_are_not_text_are_refused() -> None:
    with pytest.raises(UnreadableFile, match=r"not UTF-8 text: .* at byte 10"):
        rows(b"name,size\n\xff,1\n", columns=COLUMNS, arrived_at_utc=AT)


def test_a_broken_record_counts_as_a_row_with_its_place() -> None:
    frame = read("name,size\na,1,2\nb,1\n")
    assert frame.select("name", "source_offset").rows() == [(None, 0), ("b", 1)]
    assert frame[BROKEN].is_null().to_list() == [False, True]


def test_a_sources_own_reader_may_read_csv_of_another_encoding() -> None:
    def latin(data: bytes) -> pl.DataFrame:
        return read_csv(data.decode("latin-1").encode(), multiline=["name"])

    data = 'name,size\n"caf\u00e9\nbar",1\n2\nb,"3\n4"\n\n'.encode("latin-1")
    frame = rows(data, columns=COLUMNS, arrived_at_utc=AT, read=latin)
    assert frame["name"].to_list() == ["caf\u00e9\nbar", None, None, None]
    assert frame[BROKEN].is_null().to_list() == [True, False, False, False]


def test_a_sources_own_reader_is_used_and_its_error_is_reported() -> None:
    def pairs(data: bytes) -> pl.DataFrame:
        if len(data) % 2:
            raise ValueError(f"{len(data)} bytes are not pairs")
        return pl.DataFrame({"name": list(data[::2]), "size": list(data[1::2])})

    assert rows(b"abcd", columns=COLUMNS, arrived_at_utc=AT, read=pairs)["size"].to_list() == [98, 100]
    with pytest.raises(UnreadableFile, match="3 bytes are not pairs"):
        rows(b"abc", columns=COLUMNS, arrived_at_utc=AT, read=pairs)


def test_a_file_with_ten_thousand_columns_is_refused_in_one_short_sentence() -> None:
    names = [f"c{number}" for number in range(10_000)]
    text = ",".join(names) + "\n" + ",".join("1" for _ in names) + "\n"
    with pytest.raises(UnreadableFile, match=r"c0, .*c11 and 9,988 more; expected a, b\..*Missing: a, b;") as refused:
        rows(text.encode(), columns=["a", "b"], arrived_at_utc=AT)
    assert len(str(refused.value)) < 400
