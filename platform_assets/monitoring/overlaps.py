"""Find the earlier key whose content a delivery repeats, and tell a stale file from usual overlap.

The overlap of two samples is `monitoring.sketch`; the check built on this is `monitoring.faults`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from platform_assets.monitoring.sketch import Sample, overlap

if TYPE_CHECKING:
    from platform_assets.product.monitoring import Monitors
    from platform_assets.store.records.sketches import Content


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """How much of a delivery was already in an earlier key.

    Attributes:
        keys_back: which key; 1 is the previous key.
        share: share of the delivery's distinct rows that the earlier key also has, from 0 to 1.
        limit: the largest usual share, at least `Monitors.max_overlap`; may exceed 1.
    """

    keys_back: int
    share: float
    limit: float

    @property
    def is_stale(self) -> bool:
        """Whether more is repeated than usual."""
        return self.share > self.limit


def repeat(
    current: Content | None,
    before: Mapping[int, Content | None],
    accepted: Sequence[tuple[int, Content | None]],
    monitors: Monitors,
) -> Repeat | None:
    """Return the stale repetition if there is one, otherwise the overlap with the previous key; None without either.

    Content may repeat legitimately, such as a timetable every week. So the previous key is compared with how much
    adjacent accepted keys share, and an older key with how much accepted keys equally many phases of the season apart
    share; without such a pair nothing is compared. An older key's share must also exceed what is usual for another
    earlier key: otherwise the delivery resembles both of them.

    Args:
        current: of the judged key; None if its rows contain only identifiers.
        before: of earlier keys, by how many keys back they are.
        accepted: phase and content of the accepted keys, oldest first.
        monitors: the product's thresholds and season.
    """
    judged = None if current is None else Sample(current)
    earlier = {back: Sample(content) for back, content in before.items() if content is not None} if judged else {}
    shares = {
        back: share for back, sample in earlier.items() if judged and (share := overlap(judged, sample)) is not None
    }
    # To judge a year of flights takes 593,694 comparisons; of prepared samples each takes 8 us, otherwise 25.
    samples = [(phase, None if content is None else Sample(content)) for phase, content in accepted]
    # Once per phase: every earlier key would ask for the same pairs, and a year of flights took 120 s.
    usual_by_phase: dict[int, float | None] = {}
    repeats = {}
    for back, share in shares.items():
        limit: float | None = monitors.max_overlap
        if share > monitors.max_overlap:
            phase = -1 if back == 1 else back % monitors.season
            if phase not in usual_by_phase:
                usual_by_phase[phase] = _usual(back, samples, monitors.season)
            usual_share = usual_by_phase[phase]
            limit = None if usual_share is None else max(monitors.max_overlap, monitors.margin * usual_share)
        if limit is not None:
            repeats[back] = Repeat(keys_back=back, share=share, limit=limit)
    nearest = repeats.get(1)
    if nearest is not None and nearest.is_stale:
        return nearest
    usual = max((candidate.share for candidate in repeats.values() if not candidate.is_stale), default=0.0)
    stale = [
        candidate for candidate in repeats.values() if candidate.is_stale and candidate.share > monitors.margin * usual
    ]
    return max(stale, key=lambda candidate: (candidate.share, -candidate.keys_back), default=nearest)


def _usual(back: int, accepted: Sequence[tuple[int, Sample | None]], season: int) -> float | None:
    """Return the largest share between accepted keys equally many phases apart; None if there are none.

    Costs one comparison per pair. The previous key is compared with adjacent pairs.
    """
    if back == 1:
        pairs = [(early, late) for (_, early), (_, late) in pairwise(accepted)]
    else:
        pairs = [
            (early, late)
            for (early_phase, early), (late_phase, late) in combinations(accepted, 2)
            if not (late_phase - early_phase - back) % season
        ]
        if not pairs:
            return None
    return max((overlap(late, early) or 0.0 for early, late in pairs if early and late), default=0.0)
