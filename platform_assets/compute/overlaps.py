"""Find the earlier key whose content a delivery repeats.

Belongs here: which overlap between keys is usual, and which is a stale file. Does not belong here: the overlap of two
samples (`compute.sketch`), or the check that is made of it (`compute.faults`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from platform_assets.compute.sketch import overlap

if TYPE_CHECKING:
    from platform_assets.product.monitoring import Monitors
    from platform_assets.records.sketches import Content


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """How much of a delivery stood in an earlier key.

    Attributes:
        keys_back: which key; 1 is the key before.
        share: of the delivery's distinct rows that the earlier key has too, from 0 to 1.
        limit: the largest share that is still usual, at least `Monitors.max_overlap`; may exceed 1.
    """

    keys_back: int
    share: float
    limit: float

    @property
    def is_stale(self) -> bool:
        """Whether more is repeated than is usual."""
        return self.share > self.limit


def repeat(
    came: Content | None,
    before: Mapping[int, Content | None],
    kept: Sequence[tuple[int, Content | None]],
    monitors: Monitors,
) -> Repeat | None:
    """Return the stale repetition if there is one, else what the key before has in common; None without either.

    Content may repeat honestly, such as a timetable every week. So the key before is compared with how much accepted
    keys next to each other share, and an older key with how much accepted keys as many phases of the season apart
    share; where there is no such pair, nothing is known and nothing is compared. What an older key has in common must
    also exceed what is usual of another earlier key, because the key repeats both of them then.

    Args:
        came: of the key that is judged; None for rows that say nothing but who they are.
        before: of earlier keys, by how many keys back they are.
        kept: phase and content of the accepted keys, oldest first.
        monitors: the product's thresholds and season.
    """
    shares = {back: share for back, content in before.items() if (share := shared(came, content)) is not None}
    usual_by_phase: dict[int, float | None] = {}
    found = {}
    for back, share in shares.items():
        limit: float | None = monitors.max_overlap
        if share > monitors.max_overlap:
            phase = -1 if back == 1 else back % monitors.season
            if phase not in usual_by_phase:
                usual_by_phase[phase] = _usual(back, kept, monitors.season)
            usual_share = usual_by_phase[phase]
            limit = None if usual_share is None else max(monitors.max_overlap, monitors.margin * usual_share)
        if limit is not None:
            found[back] = Repeat(keys_back=back, share=share, limit=limit)
    nearest = found.get(1)
    if nearest is not None and nearest.is_stale:
        return nearest
    usual = max((each.share for each in found.values() if not each.is_stale), default=0.0)
    stale = [each for each in found.values() if each.is_stale and each.share > monitors.margin * usual]
    return max(stale, key=lambda each: (each.share, -each.keys_back), default=nearest)


def shared(came: Content | None, before: Content | None) -> float | None:
    """Return the share of one key's distinct rows that the other key has too, from 0 to 1; None when unknown."""
    return overlap(came, before) if came and before else None


def _usual(back: int, kept: Sequence[tuple[int, Content | None]], season: int) -> float | None:
    """Return the largest share between accepted keys as many phases apart; None where there are none.

    Costs a comparison per pair. The key before is compared with pairs next to each other.
    """
    if back == 1:
        pairs = [(early, late) for (_, early), (_, late) in pairwise(kept)]
    else:
        pairs = [
            (early, late) for (then, early), (now, late) in combinations(kept, 2) if not (now - then - back) % season
        ]
        if not pairs:
            return None
    return max((shared(late, early) or 0.0 for early, late in pairs), default=0.0)
