"""How far the prediction log was taken in."""

from __future__ import annotations

from platform_assets import naming
from platform_assets.records.base import Part, Record, RecordKind


class LeftOut(Part, frozen=True, kw_only=True):
    """A line, or a part of one, that is no row: never silently dropped, never a reason to stop.

    Attributes:
        file: its name in the log's folder.
        offset: in bytes, where the line begins.
        reason: what came and what was expected.
    """

    file: str
    offset: int
    reason: str


class Ingested(Record, frozen=True, kw_only=True):
    """What was taken in at once.

    Attributes:
        offsets: by file of the log, up to which byte it is taken in.
        rows: how many were new, of `keys`.
        left_out: how many lines or parts; the first of them stand in `left_out_named`.
    """

    offsets: dict[str, int]
    rows: int
    keys: list[str]
    left_out: int
    left_out_named: list[LeftOut]


INGESTED = RecordKind(naming.INGESTED, Ingested)
