"""Encode and decode segments: the objects by which service processes send their prediction log to the store.

    prediction_log/{product}/{yyyymmdd}/{shipped_ms}-{process}-{stream}-{first}.segment

A segment is a header (one line of JSON), the packed body, and the sha256 of both. The body is whole lines of one local
file of the log, unchanged; that file is called a stream. Segments are created once and never changed. Their names sort
by the store's time. No polars and no Dagster, because the service imports this module.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec

from platform_assets.base.problems import Problem

FORMAT = 1
CLOCK_LIMIT_S = 30.0
"""A service says so when its clock differs more from the store's."""
PREFIX = "prediction_log"
NO_STREAM = "none"
"""The stream of a segment without a body."""
BODY_BYTES_MAX = 16 * 1024 * 1024
OBJECT_BYTES_MAX = BODY_BYTES_MAX + 1024 * 1024
"""The largest segment: a body that did not get smaller, its header and zlib's own bytes."""
LATEST_S = 600.0
"""No segment is created later than this after the time in its name."""

HELLO: Final = "hello"
ANSWERS: Final = "answers"
HEARTBEAT: Final = "heartbeat"
GOODBYE: Final = "goodbye"
Kind = Literal["hello", "answers", "heartbeat", "goodbye"]

_HEADER_BYTES_MAX = 4096
_DIGEST_BYTES = 32
_LEVEL = 1
"""Level 6 takes four times the CPU for a sixth less: 2,000 records of 89 fields, 52 and 229 ms."""
_PROCESS = re.compile(r".+-\d+-[0-9a-f]{8}")
_POD = re.compile(r"(?P<deployment>.+)-[a-z0-9]{1,10}-[a-z0-9]{5}[.](?P<namespace>[a-z0-9-]+)")
"""A server's name in a pod of a Deployment, as `driftline manifests` has it: POD.NAMESPACE."""
_STREAM = re.compile(r"\d{19}-\d+-[0-9a-f]{8}")
_NAME = re.compile(
    rf"{PREFIX}/(?P<product>[^/]+)/(?P<day>\d{{8}})/"
    rf"(?P<shipped_ms>\d{{13}})-(?P<process>[^/]+-\d+-[0-9a-f]{{8}})-"
    rf"(?P<stream>{NO_STREAM}|{_STREAM.pattern})-(?P<first>\d{{12}})\.segment"
)

Count = Annotated[int, msgspec.Meta(ge=0)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class SegmentProblem(Problem):
    """A segment that cannot be used; the message names it."""


class TruncatedSegment(SegmentProblem):
    """A segment whose end is missing."""


class ChangedSegment(SegmentProblem):
    """A segment whose bytes are not those that were written."""


class ForeignSegment(SegmentProblem):
    """A segment of another product."""


class MisnamedSegment(SegmentProblem):
    """A segment whose name is not that of its header, or not a segment's name."""


class NewerSegment(SegmentProblem):
    """A segment in a format that only newer code reads."""


class SwollenSegment(SegmentProblem):
    """A segment that is larger, or unpacks to more, than a segment may."""


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A segment's header.

    Attributes:
        format: of the segment.
        product: whose answers these are.
        process: of the service: host, process id and 8 random hexadecimal digits.
        stream: the local file of the log, without its suffix; `none` without a body.
        first (bytes): where the body starts in its stream.
        packed (bytes): length of the packed body.
        unpacked (bytes): length of the body.
        sha256: of the body.
        rows: lines of the body.
        sent_at_utc: by the process's own clock.
        covers_until_utc: every answer that the process gave before this moment, by its own clock, is in this segment or
            in an earlier one.
        clock_offset_s (s): by how much the store's clock is ahead of the process's; None before it was measured.
        release: number of the release served now; None if no release chose the model.
        kind: `hello` is a process's first segment, `heartbeat` says that there was nothing to send, and after
            `goodbye`, which may have a body, the process sends nothing.
        is_last_of_stream: the stream ends with this body; false where that was not known yet.
    """

    format: Annotated[int, msgspec.Meta(ge=1)] = FORMAT
    product: str
    process: str
    stream: str
    first: Count
    packed: Count
    unpacked: Count
    sha256: str
    rows: Count
    sent_at_utc: Moment
    covers_until_utc: Moment
    clock_offset_s: float | None
    release: int | None
    kind: Kind
    is_last_of_stream: bool


@dataclass(frozen=True, kw_only=True)
class Name:
    """What a segment's name tells.

    Attributes:
        shipped_ms: milliseconds since 1970, by the store's clock as far as the process knew it.
    """

    product: str
    shipped_ms: int
    process: str
    stream: str
    first: int

    @property
    def path(self) -> str:
        """The path below the storage root."""
        return f"{start_after(self.product, self.shipped_ms)}-{self.process}-{self.stream}-{self.first:012d}.segment"

    @staticmethod
    def parse(path: str) -> Name:
        """Return what a path tells.

        Raises:
            MisnamedSegment: it is not a segment's path.
        """
        match = _NAME.fullmatch(path)
        if match is None:
            raise MisnamedSegment(
                f"{path} is not the name of a segment; expected {PREFIX}/PRODUCT/DAY/TIME-PROCESS-STREAM-FIRST.segment."
            )
        name = Name(
            product=match["product"],
            shipped_ms=int(match["shipped_ms"]),
            process=match["process"],
            stream=match["stream"],
            first=int(match["first"]),
        )
        if name.path != path:
            raise MisnamedSegment(f"{path} is in the folder of another day; expected {name.path}.")
        return name


@dataclass(frozen=True)
class Segment:
    """A decoded segment."""

    name: Name
    header: Header
    body: bytes


def folder(product: str) -> str:
    """Return the folder of a product's segments below the storage root."""
    return f"{PREFIX}/{product}"


# The store's time, and not a process's: a clock an hour ahead would move the readers' cursor past everybody's segments.
def start_after(product: str, shipped_ms: int) -> str:
    """Return a path that sorts before all segments of a moment and after all earlier ones, to list from."""
    day = datetime.fromtimestamp(shipped_ms / 1000, UTC)
    return f"{folder(product)}/{day:%Y%m%d}/{shipped_ms:013d}"


def is_process(text: str) -> bool:
    """Tell whether a text is a process's name."""
    return _PROCESS.fullmatch(text) is not None and "/" not in text


def process_of(path: str) -> str | None:
    """Return the process that a segment's path names; None for another object."""
    match = _NAME.fullmatch(path)
    return None if match is None else match["process"]


def server_of(process: str) -> str:
    """Return the name of the machine or pod of a process."""
    return process.rsplit("-", 2)[0]


def deployment_of(process: str) -> str | None:
    """Return the Deployment of a process as NAMESPACE/NAME, or None if its server is not named after its pod."""
    pod = _POD.fullmatch(server_of(process))
    return None if pod is None else f"{pod['namespace']}/{pod['deployment']}"


def is_stream(text: str) -> bool:
    """Tell whether a text is a stream's name."""
    return _STREAM.fullmatch(text) is not None


def encode(
    name: Name,
    body: bytes,
    *,
    kind: Kind,
    sent_at: datetime,
    covers_until: datetime,
    clock_offset_s: float | None = None,
    release: int | None = None,
    is_last_of_stream: bool = False,
) -> bytes:
    """Return a segment's bytes; the arguments are those of `Header`."""
    # Half a line would be a bad line in this segment, and another one in the next.
    assert len(body) <= BODY_BYTES_MAX and (not body or body.endswith(b"\n")), "a body is whole lines"
    packed = zlib.compress(body, _LEVEL)
    header = Header(
        product=name.product,
        process=name.process,
        stream=name.stream,
        first=name.first,
        packed=len(packed),
        unpacked=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        rows=body.count(b"\n"),
        sent_at_utc=sent_at,
        covers_until_utc=covers_until,
        clock_offset_s=clock_offset_s,
        release=release,
        kind=kind,
        is_last_of_stream=is_last_of_stream,
    )
    content = msgspec.json.encode(header) + b"\n" + packed
    return content + hashlib.sha256(content).digest()


def decode(path: str, data: bytes, product: str) -> Segment:
    """Return a segment from its bytes, verified; unpacks no more than its header states.

    Args:
        path: below the storage root.
        data: read whole; check the object's size against `OBJECT_BYTES_MAX` before.
        product: whose segment it must be.

    Raises:
        SegmentProblem: see the kinds of it.
    """
    name = Name.parse(path)
    if name.product != product:
        raise ForeignSegment(f"{path} is a segment of {name.product}; expected one of {product}.")
    if len(data) > OBJECT_BYTES_MAX:
        raise SwollenSegment(f"{path} has {len(data)} bytes; a segment has at most {OBJECT_BYTES_MAX}.")
    line = _header_line(path, data)
    header = _header(path, line)
    end = len(line) + 1 + header.packed
    if len(data) < end + _DIGEST_BYTES:
        raise TruncatedSegment(f"{path} has {len(data)} bytes; its header states {end + _DIGEST_BYTES}.")
    if hashlib.sha256(data[:end]).digest() != data[end:]:
        raise ChangedSegment(f"{path} does not have the digest that it ends with; its bytes were changed.")
    _check_name(path, name, header)
    if header.unpacked > BODY_BYTES_MAX:
        raise SwollenSegment(f"{path} states a body of {header.unpacked} bytes; expected at most {BODY_BYTES_MAX}.")
    unpacking = zlib.decompressobj()
    try:
        # One byte more than stated: zlib takes 0 for no limit.
        body = unpacking.decompress(data[len(line) + 1 : end], header.unpacked + 1)
    except zlib.error as problem:
        raise ChangedSegment(f"{path} cannot be unpacked: {problem}.") from None
    if len(body) > header.unpacked:
        raise SwollenSegment(f"{path} unpacks to more than the {header.unpacked} bytes that its header states.")
    is_whole = unpacking.eof and not unpacking.unused_data and hashlib.sha256(body).hexdigest() == header.sha256
    if not is_whole or len(body) != header.unpacked:
        raise ChangedSegment(f"{path} has {len(body)} bytes with another digest than its header states.")
    if body.count(b"\n") != header.rows or body[-1:] not in (b"", b"\n"):
        raise ChangedSegment(f"{path} does not have the {header.rows} whole lines that its header states.")
    return Segment(name, header, body)


def read_header(path: str, head: bytes, product: str) -> Header:
    """Return a segment's header from the first bytes of it; what follows is not verified.

    Args:
        head: at least 4,096 bytes, or the whole object.

    Raises:
        SegmentProblem: see the kinds of it.
    """
    name = Name.parse(path)
    if name.product != product:
        raise ForeignSegment(f"{path} is a segment of {name.product}; expected one of {product}.")
    header = _header(path, _header_line(path, head))
    _check_name(path, name, header)
    return header


def _header_line(path: str, data: bytes) -> bytes:
    length = data.find(b"\n", 0, _HEADER_BYTES_MAX)
    if length >= 0:
        return data[:length]
    if len(data) < _HEADER_BYTES_MAX:
        raise TruncatedSegment(f"{path} has {len(data)} bytes and no whole header.")
    raise ChangedSegment(f"{path} does not begin with a header of at most {_HEADER_BYTES_MAX} bytes.")


class _Format(msgspec.Struct):
    format: int = FORMAT


def _header(path: str, line: bytes) -> Header:
    try:
        number = msgspec.json.decode(line, type=_Format).format
        if number > FORMAT:
            raise NewerSegment(
                f"{path} has format {number}; this code reads formats up to {FORMAT}. Upgrade Driftline."
            )
        return msgspec.json.decode(line, type=Header)
    # At bad UTF-8 and at deep nesting msgspec raises Python's own errors.
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise ChangedSegment(f"{path} does not begin with a header that this code reads: {problem}.") from None


def _check_name(path: str, name: Name, header: Header) -> None:
    if header.product != name.product:
        raise ForeignSegment(f"{path} contains a segment of {header.product}; expected one of {name.product}.")
    stated = replace(name, process=header.process, stream=header.stream, first=header.first)
    if stated != name:
        raise MisnamedSegment(f"{path} contains the segment {stated.path}.")
