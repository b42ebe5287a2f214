"""Read CSV as rows of text; a record that is not a row keeps its place, its lines and its text.

The format is RFC 4180 in UTF-8, also packed with gzip: a header, then records with as many fields, separated by commas.
A quote opens a field only at its start, a comma or the line's end follows the closing one, and a quote in between is
doubled. Lines end with LF or CRLF, or with CR alone if the header does. Every line belongs to one record: an empty line
is a record without fields, and in a file of one column a row whose value is empty.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.base.problems import Problem
from platform_assets.base.wording import counted

if TYPE_CHECKING:
    import numpy as np

BROKEN = "broken_record"
"""A record that is not a row, as JSON: `reason`, `first_line` and `last_line` (the header's is 1), and `record`, its
text. Only files with such a record have this column; the record's cells are null.
"""

SHOWN = 80
"""How many characters of a broken line a message quotes."""

_BLOCK = 500
"""How many records one match takes: more are not faster, and their stack takes memory."""

_UNQUOTED = rb'[^",\r\n\0]*+'
_LINE = rb'(?:"[^"\r\n\0]*+"(?:"[^"\r\n\0]*+")*|%b)' % _UNQUOTED
_TEXT = rb'(?:"[^"\0]*+"(?:"[^"\0]*+")*|%b)' % _UNQUOTED
"""A field of one line, and one of several. A position matches in one way only, so a match takes linear time."""

_PLAIN = bytes(set(range(256)) - set(b",\r\n\0"))
"""The bytes without a meaning in a file without quotes."""

_ANY = _TEXT.replace(rb"\0", b"")
_FIELD = re.compile(rb"(%b)(?:,|\r\n|\n|\r)" % _ANY)
_HEADER = re.compile(rb"%b(?:,%b)*(\r\n|\n|\r)" % (_ANY, _ANY))


class UnreadableFile(Problem, ValueError):
    """The file is empty, truncated, or not what its source sends."""


@dataclass(frozen=True)
class _Broken:
    """A record that is not a row: its place among all records, its bytes' start and end, and what `BROKEN` holds."""

    place: int
    start: int
    end: int
    note: str


def read_csv(data: bytes, *, multiline: Collection[str] = ()) -> pl.DataFrame:
    """Read a complete CSV file as text; empty cells are null. A source's own `read` may call it.

    A record is broken if it has more or fewer fields than the header, a quote that does not enclose a whole field, a
    zero byte, or a line break in a column that is not in `multiline`. A file with a broken record has the column
    `BROKEN`. Only the end of a file can show that it is cut short.

    Args:
        multiline: columns whose quoted fields may have line breaks.

    Raises:
        UnreadableFile: it is not text, or has no header or no end.
    """
    data = _unpacked(data)
    header = _header(data)
    names = _parsed(data[: header.end()], header).columns
    if BROKEN in names:
        raise UnreadableFile(f"a column is named {BROKEN!r}, which is reserved. Deliver it under another name.")
    # By itself polars fills a short record with nulls, lets a stray quote swallow rows, and refuses a longer record.
    broken = _broken(data, header, names, multiline)
    if not broken:
        return _parsed(data, header)
    # A record of empty fields takes the place of each broken one.
    blank = b"," * (len(names) - 1) + header[1]
    starts, ends = [record.start for record in broken], [record.end for record in broken]
    sound = [data[end:start] for end, start in zip([0, *ends], [*starts, len(data)], strict=True)]
    rows = _parsed(blank.join(sound), header)
    notes = pl.repeat(None, rows.height, dtype=pl.String, eager=True)
    notes = notes.scatter([record.place for record in broken], [record.note for record in broken])
    return rows.with_columns(notes.alias(BROKEN))


def _parsed(data: bytes, header: re.Match[bytes]) -> pl.DataFrame:
    eol = "\r" if header[1] == b"\r" else "\n"
    return pl.read_csv(io.BytesIO(data), infer_schema=False, eol_char=eol)


def _unpacked(data: bytes) -> bytes:
    try:
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableFile(f"the gzip file is damaged or cut short: {error}. Deliver it again.") from None
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFile(
            f"the file is not UTF-8 text: {error.reason} at byte {error.start}. Deliver it as UTF-8, uncompressed or "
            "packed with gzip, or give the source a `read` of its own."
        ) from None
    return data.removeprefix(codecs.BOM_UTF8)


def _header(data: bytes) -> re.Match[bytes]:
    """Match the header, whose line end is the file's, and make sure that the last line has it too."""
    header = _HEADER.match(data)
    first = min((at for at in (data.find(b"\n"), data.find(b"\r")) if at >= 0), default=len(data))
    if first < len(data) and header is None:
        raise UnreadableFile(
            f"the header {_decoded(data[:first])[:SHOWN]!r} has a quote that does not enclose a whole name. Fix the "
            "delivery."
        )
    if header is not None and (first == 0 or b"\0" in header[0]):
        fault = "is empty" if first == 0 else f"has {counted(header[0].count(0), 'zero byte')}"
        raise UnreadableFile(f"the first line {fault}; expected a header, the columns' names. Fix the delivery.")
    if header is None or not data.endswith((b"\r", b"\r\n") if header[1] == b"\r" else b"\n"):
        start = 0 if header is None else header.end()
        lines = 0 if header is None else _breaks(data, start, len(data)) + (not data.endswith(b"\r"))
        last = re.split(rb"[\r\n]", data.rstrip(b"\r\n")[-4 * SHOWN :])[-1]
        raise UnreadableFile(
            f"the file is cut short: its last line {_decoded(last)[-SHOWN:]!r} has no end ({lines} lines came). "
            "Deliver it again."
        )
    return header


def _broken(data: bytes, header: re.Match[bytes], names: Sequence[str], multiline: Collection[str]) -> list[_Broken]:
    """Find the broken records."""
    if b'"' not in data:
        # Most files: all rows have the same marks, which is seen in a quarter of the time.
        marks, expected = data[header.end() :].translate(None, _PLAIN), b"," * (len(names) - 1) + header[1]
        if marks == expected * (len(marks) // len(expected)):
            return []
    end, line = (rb"\r(?!\n)", rb"[^\r]*\r\n?") if header[1] == b"\r" else (rb"\r?\n", rb"[^\n]*\n")
    kinds = [_TEXT if name in multiline else _LINE for name in names]
    others = [b"(?:,%b){%d}" % (kind, len([*alike])) for kind, alike in groupby(kinds[1:])]
    row = re.compile(kinds[0] + b"".join(others) + end)
    rows = re.compile(b"(?:%b){1,%d}" % (row.pattern, _BLOCK))
    # Where a quote is out of place nobody can tell what it encloses, so the lines after its own are read on their own.
    record = re.compile(b"(?P<whole>%b(?:,%b)*%b)|%b" % (_ANY, _ANY, end, line))
    broken: list[_Broken] = []
    place, number, at = 0, 1, 0
    sound_from = header.end()
    while True:
        start = sound_from
        while match := rows.match(data, start):
            start = match.end()
        if start == len(data):
            return broken
        match = record.match(data, start)
        assert match is not None  # the last line has an end
        place += _count(data, sound_from, start, row)
        number += _breaks(data, at, start)
        text = match[0][: -2 if match[0].endswith(b"\r\n") else -1]
        fields = _FIELD.findall(match[0]) if text and match["whole"] else []
        last = number + _breaks(text, 0, len(text))
        lines = f"line {number:,}" if last == number else f"the record in lines {number:,} to {last:,}"
        note = {
            "reason": f"{lines} {_fault(text, fields, names)}",
            "first_line": number,
            "last_line": last,
            "record": _decoded(text),
        }
        broken.append(_Broken(place, start, match.end(), json.dumps(note, ensure_ascii=False)))
        at, sound_from = start, match.end()
        place += 1


def _fault(text: bytes, fields: Sequence[bytes], names: Sequence[str]) -> str:
    """Return what is wrong with a record; `fields` is empty where its quotes or line ends do not tell them."""
    if not text:
        return "is empty"
    if zeros := text.count(0):
        return f"has {counted(zeros, 'zero byte')}"
    if fields and len(fields) != len(names):
        return f"has {counted(len(fields), 'field')}; the header has {len(names):,}"
    if fields:
        torn = next(name for name, field in zip(names, fields, strict=True) if re.search(rb"[\r\n]", field))
        return f"has a line break in {torn}, which `multiline` does not list"
    if b'"' in text:
        return "has a quote that does not enclose a whole field"
    return "has a line end that is not the header's"


def _count(data: bytes, start: int, end: int, row: re.Pattern[bytes]) -> int:
    """Count the rows from one place in a file to another."""
    if data.find(b'"', start, end) < 0:
        return _breaks(data, start, end)
    return sum(1 for _ in row.finditer(data, start, end))


def _breaks(data: bytes, start: int, end: int) -> int:
    """Count line ends of all kinds from one place to another, neither of them inside CRLF."""
    return data.count(b"\n", start, end) + data.count(b"\r", start, end) - data.count(b"\r\n", start, end)


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", errors="replace")


@dataclass(frozen=True)
class Records:
    """The records of a file, or of some of its lines, see `records`.

    Attributes:
        cells: of one column, as text; null where it is empty or the record is not a row.
        ends (bytes): where each record ends, int64, in order.
        opens (bytes): where records begin that have a quote without its pair, in order. Text that follows the body
            may close it, and then they and what follows them are other records.
    """

    cells: pl.Series
    ends: np.ndarray
    opens: Sequence[int]


def names_of(header: bytes) -> list[str]:
    """Return the columns of a header, with its line end.

    Raises:
        UnreadableFile: it is not one.
    """
    header = _unpacked(header)
    return _parsed(header, _header(header)).columns


def records(header: bytes, body: bytes, column: int, *, multiline: Collection[str] = ()) -> Records:
    """Return where the records in the complete lines of a body are, and their cells in one column.

    Letters beyond ASCII are question marks there.
    """
    import numpy as np

    data = header.removeprefix(codecs.BOM_UTF8) + body
    match, names = _header(data), names_of(header)
    broken, eol = _broken(data, match, names, multiline), header[-1:]
    sound, ends, at, start = list[bytes](), list[np.ndarray](), 0, match.end()
    for item in [*broken, None]:
        stop = len(data) if item is None else item.start
        stretch = np.frombuffer(data, np.uint8, stop - max(at, start), max(at, start))
        breaks = np.flatnonzero(stretch == eol[0])
        if multiline:
            # In sound records quotes come in pairs, so a line end after an odd number of them is inside a field.
            breaks = breaks[np.cumsum(stretch == ord('"'))[breaks] % 2 == 0]
        sound.append(data[at:stop])
        ends.append(breaks + 1 + max(at, start))
        if item is not None:
            ends.append(np.array([item.end]))
            at = item.end
    text = (b"," * (len(names) - 1) + match[1]).join(sound).translate(_ASCII)
    rows = pl.read_csv(io.BytesIO(text), columns=[column], infer_schema=False, eol_char=eol.decode())
    opens = [item.start - start for item in broken if data.count(b'"', item.start, item.end) % 2]
    return Records(cells=rows.to_series(), ends=np.concatenate(ends) - start, opens=opens)


_ASCII = bytes(range(128)) + b"?" * 128
"""Keeps the bytes of ASCII text in their places, whatever the rest is encoded in."""
