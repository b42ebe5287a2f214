"""Show a service that was built and asked, and a release, or why the champion was kept.

Belongs here: from notes and records to metadata. Does not belong here: building or releasing (`stages`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets.compute.releases import SHORT_DIGEST
from platform_assets.records.notes import Service
from platform_assets.records.releases import Release
from platform_assets.records.verdicts import Verdict
from platform_assets.show import values

if TYPE_CHECKING:
    from platform_assets.serving.build import Built


def service(built: Built, notes: object, *, is_memoised: bool) -> values.Metadata:
    """Return the metadata of a Bento and its smoke test; `notes` are those of its record."""
    found = Service.read(notes, "the record of a service")
    return {
        "bento_tag": built.tag,
        "bento_content_digest": built.content_digest,
        "was_built": built.was_built,
        "is_memoised": is_memoised,
        "smoke_rows": found.asked_rows,
        "smoke_max_abs_difference": found.max_apart,
        "example_request": dg.MetadataValue.json(found.request),
        "cpu_s": found.cpu_s,
    }


def kept(verdict: Verdict, champion: str | None) -> values.Metadata:
    """Return the metadata of a run that released nothing."""
    return {
        "outcome": "kept_champion",
        "challenger": verdict.digest,
        "champion": champion or "none",
        "reasons": values.bullets(verdict.reasons),
    }


def released(
    number: int, record: Release, newest: Sequence[tuple[int, Release]], *, outcome: str, needs_new_bento: bool
) -> values.Metadata:
    """Return the metadata of a release.

    Args:
        number, record: of the release.
        newest: releases with their numbers, the newest first.
        outcome: what the run did.
        needs_new_bento: whether the contract is another one than the release's before.
    """
    shown = [
        {
            "release": at,
            "digest": item.digest[:SHORT_DIGEST],
            "cutoff": item.cutoff,
            "outcome": item.outcome,
            "why": item.why,
            "by": item.by,
        }
        for at, item in newest
    ]
    return {
        "outcome": outcome,
        "release": number,
        "digest": record.digest,
        "cutoff": record.cutoff,
        "why": record.why,
        "by": record.by,
        "needs_new_bento": needs_new_bento,
        "releases": values.table(shown),
    }
