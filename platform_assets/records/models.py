"""Which trainings, fits and scores are done: each names the manifest of its blobs."""

from __future__ import annotations

from platform_assets import naming
from platform_assets.records.base import Number, Record, RecordKind


class Checkpoint(Record, frozen=True, kw_only=True):
    """The checkpoint of a training's fingerprint; `manifest` is the sha256 of what names its blobs."""

    manifest: str


class Fit(Record, frozen=True, kw_only=True):
    """A backtest's fit, by its fingerprint; `cpu_s` of all attempts at it."""

    manifest: str
    cpu_s: Number


class Scores(Record, frozen=True, kw_only=True):
    """What a fit answered on some rows."""

    manifest: str


CHECKPOINTS = RecordKind(naming.CHECKPOINTS, Checkpoint)
FITS = RecordKind(naming.BACKTESTS, Fit)
SCORES = RecordKind(naming.BACKTESTS, Scores)
