"""Build the metadata of a service and its smoke test, and of a release or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets.compute.releases import SHORT_DIGEST
from platform_assets.records.notes import Service
from platform_assets.records.releases import Release
from platform_assets.show import values

if TYPE_CHECKING:
    from platform_assets.serving.build import Built


def answers_alike(notes: object) -> str:
    """Return a smoke test in one sentence; `notes` are those of its record."""
    noted = Service.read(notes, "the record of a service")
    return (
        f"serves: Bento {noted.tag} answered {noted.asked_rows} holdout rows as the bundle does, "
        f"at most {noted.max_apart:.1e} apart"
    )


def service(built: Built, notes: object, *, is_memoised: bool) -> values.Metadata:
    """Return the metadata of a Bento and its smoke test; `notes` are those of its record."""
    noted = Service.read(notes, "the record of a service")
    return {
        "bento_tag": built.tag,
        "bento_content_digest": built.content_digest,
        "bento_in_store": noted.stored,
        "was_built": built.was_built,
        "is_memoised": is_memoised,
        "smoke_rows": noted.asked_rows,
        "smoke_max_abs_difference": noted.max_apart,
        "example_request": dg.MetadataValue.json(noted.request),
        "cpu_s": noted.cpu_s,
    }


def kept(digest: str, reasons: Sequence[str], champion: str | None) -> values.Metadata:
    """Return the metadata of a run that did not release a bundle."""
    return values.readable(
        f"{'champion kept' if champion else 'not released, and no model is live yet'}: {' '.join(reasons)}",
        {
            "outcome": "kept_champion",
            "reasons": values.bullets(reasons),
            "challenger": digest,
            "champion": champion or "none",
        },
    )


def released(
    number: int, record: Release, newest: Sequence[tuple[int, Release]], *, outcome: str, needs_new_bento: bool
) -> values.Metadata:
    """Return the metadata of a release.

    Args:
        number, record: of the release.
        newest: releases with their numbers, the newest first.
        outcome: of the run: released, rolled back or already live.
        needs_new_bento: whether the contract differs from the previous release's.
    """
    rows = [
        {
            "release": release,
            "digest": item.digest[:SHORT_DIGEST],
            "cutoff": item.cutoff,
            "outcome": item.outcome,
            "why": item.why,
            "by": item.by,
        }
        for release, item in newest
    ]
    state = "is live already" if outcome == "already_live" else "is live"
    metadata = {
        "outcome": outcome,
        "release": number,
        "digest": record.digest,
        "cutoff": record.cutoff,
        "why": record.why,
        "by": record.by,
        "needs_new_bento": needs_new_bento,
        "releases": values.table(rows),
    }
    cutoff = f"model of cutoff {record.cutoff}, {record.digest[:SHORT_DIGEST]}"
    return values.readable(f"release {number} {state}: {cutoff}; {record.why} (by {record.by})", metadata)
