"""Build the metadata of a service and its smoke test, and of a release or the reason why there is none."""

from __future__ import annotations

import dagster as dg

from platform_assets.engine.metadata import Metadata, bullets, table
from platform_assets.engine.outside import Shown
from platform_assets.evaluation.releases import SHORT_DIGEST
from platform_assets.serving.release import ALREADY_LIVE, Kept, Live
from platform_assets.serving.service import Tested
from platform_assets.store.records.notes import Service


def view_service(shown: Shown) -> tuple[str, Metadata]:
    """Show a Bento and its smoke test."""
    tested: Tested = shown.facts
    built, content = tested.built, tested.content
    noted = Service.read(content.notes, "the record of a service")
    sentence = (
        f"serves: Bento {noted.tag} answered {noted.asked_rows} holdout rows as the bundle does, "
        f"at most {noted.max_apart:.1e} apart"
    )
    return sentence, {
        "bento_tag": built.tag,
        "bento_content_digest": built.content_digest,
        "bento_in_store": noted.stored,
        "was_built": built.was_built,
        "is_memoised": content.is_memoised,
        "smoke_rows": noted.asked_rows,
        "smoke_max_abs_difference": noted.max_apart,
        "example_request": dg.MetadataValue.json(noted.request),
        "cpu_s": noted.cpu_s,
    }


def view_release(shown: Shown) -> tuple[str, Metadata]:
    """Show a release, or why there is none."""
    facts: Kept | Live = shown.facts
    if isinstance(facts, Kept):
        sentence = "champion kept" if facts.champion else "not released, and no model is live yet"
        return f"{sentence}: {' '.join(facts.reasons)}", {
            "outcome": "kept_champion",
            "reasons": bullets(facts.reasons),
            "challenger": facts.digest,
            "champion": facts.champion or "none",
        }
    rows = [
        {"release": release, "digest": item.digest[:SHORT_DIGEST], **item.members(("cutoff", "outcome", "why", "by"))}
        for release, item in facts.newest
    ]
    record = facts.record
    state = "is live already" if facts.outcome == ALREADY_LIVE else "is live"
    cutoff = f"model of cutoff {record.cutoff}, {record.digest[:SHORT_DIGEST]}"
    return f"release {facts.number} {state}: {cutoff}; {record.why} (by {record.by})", {
        "outcome": facts.outcome,
        "release": facts.number,
        "digest": record.digest,
        "cutoff": record.cutoff,
        "why": record.why,
        "by": record.by,
        "needs_new_bento": facts.needs_new_bento,
        "releases": table(rows),
        **({"trial": facts.trial} if facts.trial else {}),
    }
