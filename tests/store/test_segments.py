"""A segment is read as it was written, or refused by name."""

import hashlib
import random
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.store import segments
from platform_assets.store.segments import (
    ChangedSegment,
    ForeignSegment,
    Header,
    MisnamedSegment,
    Name,
    NewerSegment,
    SegmentProblem,
    SwollenSegment,
    TruncatedSegment,
)

FIXTURES = Path(__file__).parents[1] / "doubles" / "segments"
MOMENT = datetime(2026, 11, 27, 10, 0, 0, 123000, UTC)
SHIPPED_MS = 1_795_773_600_123
PROCESS = "serving-5d9c7b-x2x4q-17-0a1b2c3d"
STREAM = "1795773500000000000-17-0a1b2c3d"
NAME = Name(product="orders", shipped_ms=SHIPPED_MS, process=PROCESS, stream=STREAM, first=4711)
BODY = b'{"prediction_id":"a"}\n{"prediction_id":"b"}\n'


def encoded(body: bytes = BODY, name: Name = NAME) -> bytes:
    return segments.encode(name, body, kind="answers", sent_at=MOMENT, covers_until=MOMENT - timedelta(seconds=1))


def rebuilt(data: bytes = b"", *, packed: bytes | None = None, **changes: object) -> bytes:
    """Return a segment with a changed header or packed body and a right digest at its end."""
    line, _, rest = (data or encoded()).partition(b"\n")
    packed = rest[:-32] if packed is None else packed
    document = {**msgspec.json.decode(line), "packed": len(packed), **changes}
    content = msgspec.json.encode(document) + b"\n" + packed
    return content + hashlib.sha256(content).digest()


def test_the_name_contains_product_time_process_stream_and_first_byte() -> None:
    path = f"prediction_log/orders/20261127/1795773600123-{PROCESS}-{STREAM}-000000004711.segment"
    assert NAME.path == path
    assert Name.parse(path) == NAME


def test_the_header_states_what_is_inside() -> None:
    data = segments.encode(
        NAME,
        BODY,
        kind="goodbye",
        sent_at=MOMENT,
        covers_until=MOMENT,
        clock_offset_s=-60.0,
        release=7,
        is_last_of_stream=True,
    )
    segment = segments.decode(NAME.path, data, "orders")
    assert (segment.name, segment.body) == (NAME, BODY)
    assert segment.header == Header(
        format=1,
        product="orders",
        process=PROCESS,
        stream=STREAM,
        first=4711,
        packed=len(zlib.compress(BODY, 1)),
        unpacked=44,
        sha256=hashlib.sha256(BODY).hexdigest(),
        rows=2,
        sent_at_utc=MOMENT,
        covers_until_utc=MOMENT,
        clock_offset_s=-60.0,
        release=7,
        kind="goodbye",
        is_last_of_stream=True,
    )


def test_format_1_is_read() -> None:
    """The platform is updated before the services: what older services send is no longer written by this code."""
    paths = sorted((FIXTURES / "format_1").rglob("*.segment"))
    read = [
        segments.decode(str(path.relative_to(FIXTURES / "format_1")), path.read_bytes(), "orders") for path in paths
    ]
    assert [(segment.header.kind, segment.header.rows, segment.body) for segment in read] == [
        ("hello", 0, b""),
        ("answers", 2, BODY),
        ("heartbeat", 0, b""),
        ("goodbye", 1, b'{"prediction_id":"c"}\n'),
    ]
    assert read[1].header.clock_offset_s == 1.5
    assert [segment.header.is_last_of_stream for segment in read] == [False, False, False, True]


@pytest.mark.parametrize(
    ("process", "stream"),
    [
        (PROCESS, "none"),
        ("1-1-12345678", "1795773500000000000-1-12345678"),
        ("host.with-dots-1-1-12345678", "1795773500000000000-1-87654321"),
    ],
)
def test_names_without_a_stream_and_of_hosts_with_dashes_are_parsed(process: str, stream: str) -> None:
    name = Name(product="orders", shipped_ms=SHIPPED_MS, process=process, stream=stream, first=0)
    assert Name.parse(name.path) == name


@given(st.lists(st.integers(min_value=1_000_000_000_000, max_value=2**42), min_size=2, max_size=8))
def test_names_sort_by_time_and_listing_starts_between(times: list[int]) -> None:
    paths = [Name(product="p", shipped_ms=ms, process=PROCESS, stream=STREAM, first=0).path for ms in sorted(times)]
    assert paths == sorted(paths)
    for ms in times:
        start = segments.start_after("p", ms)
        assert [path > start for path in paths] == [other >= ms for other in sorted(times)]


lines = st.lists(st.binary(max_size=200).map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=20).map(b"".join)


@given(lines, st.integers(0, 10**12 - 1), st.sampled_from(["hello", "answers", "heartbeat", "goodbye"]))
def test_a_segment_is_read_as_it_was_written(body: bytes, first: int, kind: segments.Kind) -> None:
    name = replace(NAME, first=first)
    data = segments.encode(name, body, kind=kind, sent_at=MOMENT, covers_until=MOMENT)
    segment = segments.decode(name.path, data, "orders")
    assert (segment.name, segment.body, segment.header.rows) == (name, body, body.count(b"\n"))


@given(lines, st.data())
def test_every_truncation_is_refused_as_such(body: bytes, data: st.DataObject) -> None:
    whole = encoded(body)
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(TruncatedSegment):
        segments.decode(NAME.path, whole[:length], "orders")


@given(st.data(), st.integers(1, 255))
def test_every_changed_byte_is_refused(data: st.DataObject, change: int) -> None:
    whole = bytearray(encoded())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= change
    with pytest.raises(SegmentProblem):
        segments.decode(NAME.path, bytes(whole), "orders")


@given(st.binary(min_size=1, max_size=40))
def test_bytes_after_the_end_are_refused(more: bytes) -> None:
    with pytest.raises(ChangedSegment):
        segments.decode(NAME.path, encoded() + more, "orders")


@given(st.binary(max_size=6000))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SegmentProblem):
        segments.decode(NAME.path, data, "orders")


def test_a_segment_of_another_product_is_refused() -> None:
    with pytest.raises(ForeignSegment, match=r"is a segment of orders; expected one of flights"):
        segments.decode(NAME.path, encoded(), "flights")
    with pytest.raises(ForeignSegment, match=r"contains a segment of flights"):
        segments.decode(NAME.path, rebuilt(product="flights"), "orders")


@pytest.mark.parametrize(
    "change",
    [{"process": "other-17-0a1b2c3d"}, {"stream": "1795773500000000001-17-0a1b2c3d"}, {"first": 4712}],
)
def test_a_header_that_contradicts_the_name_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(MisnamedSegment, match="contains the segment prediction_log/orders/"):
        segments.decode(NAME.path, rebuilt(**change), "orders")


@pytest.mark.parametrize(
    "path",
    [
        "prediction_log/orders/20261127/notes.txt",
        f"prediction_log/orders/20261127/1795773600123-{PROCESS}-{STREAM}-4711.segment",
        NAME.path.replace("prediction_log", "predictions"),
        NAME.path.replace("20261127", "20261128"),
        NAME.path + ".tmp",
    ],
)
def test_what_is_not_a_segments_name_is_refused(path: str) -> None:
    with pytest.raises(MisnamedSegment):
        segments.decode(path, encoded(), "orders")


def test_a_newer_format_is_refused_before_anything_else_of_it_is_read() -> None:
    with pytest.raises(NewerSegment, match=r"has format 2; this code reads formats up to 1\. Upgrade Driftline\."):
        segments.decode(NAME.path, b'{"format":2,"body":"elsewhere"}\nanything', "orders")


def test_a_segment_that_unpacks_to_more_than_it_states_is_refused_without_unpacking_it() -> None:
    bomb = zlib.compress(bytes(64 * 1024 * 1024), 9)
    for stated in (0, 44, 1024):
        with pytest.raises(SwollenSegment, match=f"unpacks to more than the {stated} bytes"):
            segments.decode(NAME.path, rebuilt(packed=bomb, unpacked=stated), "orders")
    with pytest.raises(SwollenSegment, match=r"states a body of 67108864 bytes; expected at most 16777216"):
        segments.decode(NAME.path, rebuilt(packed=bomb, unpacked=64 * 1024 * 1024), "orders")
    with pytest.raises(SwollenSegment, match="a segment has at most"):
        segments.decode(NAME.path, bytes(segments.OBJECT_BYTES_MAX + 1), "orders")


@pytest.mark.parametrize(
    ("packed", "changes"),
    [
        (zlib.compress(b'{"prediction_id":"a"}\n{"prediction_id":"x"}\n', 1), {}),
        (zlib.compress(BODY[:22], 1), {}),
        (zlib.compress(BODY, 1) + b"more", {}),
        (zlib.compress(BODY, 1)[:-3], {}),
        (b"not packed", {}),
        (None, {"rows": 3}),
        (None, {"sha256": "0" * 64}),
        (None, {"unpacked": 45}),
        (None, {"first": -1}),
        (None, {"kind": "farewell"}),
        (None, {"more": 1}),
        (None, {"sent_at_utc": "2026-11-27T10:00:00"}),
    ],
)
def test_a_segment_that_contradicts_itself_is_refused(packed: bytes | None, changes: dict[str, object]) -> None:
    with pytest.raises(ChangedSegment):
        segments.decode(NAME.path, rebuilt(packed=packed, **changes), "orders")


def test_lines_that_are_not_whole_are_refused() -> None:
    body = BODY + b"half"
    data = rebuilt(packed=zlib.compress(body, 1), unpacked=len(body), sha256=hashlib.sha256(body).hexdigest())
    with pytest.raises(ChangedSegment, match="does not have the 2 whole lines"):
        segments.decode(NAME.path, data, "orders")


def test_a_body_of_the_largest_size_is_read() -> None:
    """Of random bytes, which do not get smaller."""
    body = random.Random(1).randbytes(segments.BODY_BYTES_MAX - 1) + b"\n"
    data = encoded(body)
    assert len(data) <= segments.OBJECT_BYTES_MAX
    assert segments.decode(NAME.path, data, "orders").body == body
