"""List and read the segments that services have sent to the store, from a cursor on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets.store import segments
from platform_assets.store.history.reader import History
from platform_assets.store.records.prediction_log import Skipped
from platform_assets.store.segments import Name, NewerSegment, Segment, SegmentProblem, SwollenSegment

if TYPE_CHECKING:
    from obstore.store import ObjectStore

OVERLAP_MS = round(segments.LATEST_S * 1000)
"""A listing begins this long before the newest claimed name: segments appear up to so long after their names' time."""
MOST_LISTED = 10_000
"""How many segments are held in memory at once."""
HEAD_BYTES = 8192
"""Enough of a segment to learn its format."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A segment in a listing.

    Attributes:
        path: below the storage root.
        name: parsed from the path; None if it is not a segment's.
        modified_ms: when it was created, by the store's clock, in milliseconds since 1970.
        size (bytes): of the object.
    """

    path: str
    name: Name | None
    modified_ms: int
    size: int

    @property
    def has_body(self) -> bool:
        """Whether it contains answers; unknown, so True, without a segment's name."""
        return self.name is None or self.name.stream != segments.NO_STREAM

    @property
    def time_ms(self) -> int:
        """The time of its name, at most the store's, so that a wrong clock does not move the cursor too far."""
        return self.modified_ms if self.name is None else min(self.name.shipped_ms, self.modified_ms)


def pages(store: ObjectStore, product: str, after_ms: int | None) -> Iterator[list[Listed]]:
    """Yield a product's segments whose names' times are at or after a moment, all of them for None.

    Costs one request per 1,000 segments, and one at least, however many older ones there are. A bucket lists them in
    the order of names, a folder in none.
    """
    import obstore

    offset = None if after_ms is None else segments.start_after(product, max(0, after_ms))
    # S3 lists at most 1,000 names per request.
    for batch in obstore.list(store, f"{segments.folder(product)}/", offset=offset, chunk_size=1000):
        yield [
            Listed(
                path=item["path"],
                name=_name(item["path"]),
                modified_ms=round(item["last_modified"].timestamp() * 1000),
                size=item["size"],
            )
            for item in batch
        ]


def listed(path: str) -> Listed:
    """Return a segment whose path a record names, as if it had been listed without time and size."""
    return Listed(path=path, name=_name(path), modified_ms=0, size=0)


def unclaimed(store: ObjectStore, product: str, history: History) -> list[Listed]:
    """Return the segments that no claim names, in the order of names; of many, the first `MOST_LISTED` and a few."""
    import obstore

    number, claim = history.claim() or (0, None)
    after_ms = None if claim is None else claim.cursor_ms - OVERLAP_MS
    # These may be listed again although the claims that name them lie before what the loop reads.
    claimed = set[str]() if claim is None else {*claim.ahead, *claim.waiting}
    while claim is not None and after_ms is not None and claim.cursor_ms >= after_ms:
        claimed |= {*claim.segments, *(item.segment for item in claim.skipped)}
        number -= 1
        claim = history.claim_at(number) if number else None
    listed = list[Listed]()
    for page in pages(store, product, after_ms):
        listed += [item for item in page if item.path not in claimed]
        # A folder lists in no order: the first of many may be anywhere in it.
        if len(listed) >= MOST_LISTED and not isinstance(store, obstore.store.LocalStore):
            break
    return sorted(listed, key=lambda item: item.path)


def read(store: ObjectStore, product: str, path: str, size: int | None = None) -> Segment:
    """Read a segment.

    Args:
        size: of the object, if known; one that is too large is not read.

    Raises:
        SegmentProblem: it cannot be used; `NewerSegment` if newer code can.
        obstore.exceptions.BaseError, OSError: the store cannot be read.
    """
    import obstore

    # Whoever may write to the bucket may put anything there: it is judged before it is held in memory.
    if size is not None and size > segments.OBJECT_BYTES_MAX:
        raise SwollenSegment(f"{path} has {size} bytes; a segment has at most {segments.OBJECT_BYTES_MAX}.")
    try:
        data = bytes(obstore.get(store, path).bytes())
    except FileNotFoundError:
        raise SegmentProblem(f"{path} is gone; something other than Driftline deleted it.") from None
    return segments.decode(path, data, product)


def is_newer(store: ObjectStore, product: str, path: str) -> bool:
    """Tell whether a segment still has a format that this code does not read. Reads only its beginning."""
    import obstore

    try:
        segments.decode(path, bytes(obstore.get_range(store, path, start=0, length=HEAD_BYTES)), product)
    except NewerSegment:
        return True
    except (SegmentProblem, FileNotFoundError):
        return False
    return False


def ahead(product: str, cursor_ms: int, paths: Iterable[str], carried: Iterable[str]) -> list[str]:
    """Return the paths that will be listed again although the claim that names them may be out of reach by then.

    Args:
        cursor_ms: of the claim.
        paths: that it names; those after the cursor are of this kind.
        carried: what the claim before returned; kept until listings begin after them.
    """
    named = {path for path in paths if path > segments.start_after(product, cursor_ms + 1)}
    first = segments.start_after(product, max(0, cursor_ms - OVERLAP_MS))
    return sorted(named | {path for path in carried if path > first})


def skipped(problems: Mapping[str, str]) -> list[Skipped]:
    """Return the records of segments that cannot be used, from reasons by path."""
    return [Skipped(segment=path, reason=reason) for path, reason in sorted(problems.items())]


def _name(path: str) -> Name | None:
    try:
        return Name.parse(path)
    except SegmentProblem:
        return None
