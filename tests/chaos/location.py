"""A code location for a replay of one week: the first product with short limits, so that a week covers a whole fault.

It decides every fourth key, trains again after three, and gives a held key up after two.
"""

from __future__ import annotations

from dataclasses import replace

from platform_assets import replay, specs
from platform_assets.definitions import build_defs
from platform_assets.specs.base import Retraining

_recorded = next(spec for spec in specs.load_all() if spec.history is not None)
CUTOFF = replay.first_cutoff(_recorded)
SPEC = replace(
    _recorded,
    retraining=Retraining(decide_every=4, anchor=_recorded.grain.shift(CUTOFF, 3), max_age=3, cooldown=3),
    monitors=replace(_recorded.monitors, repair_within=2),
)

defs = build_defs(specs=[SPEC])
