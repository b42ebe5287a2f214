"""Break a recording's deliveries for a while, with one of the product's faults, drawn by seed.

The platform is not told about the fault.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from platform_assets.demo.replay.recording import history
from platform_assets.product.spec import FaultKind, Product

LONGEST = 3
SOUND_BEFORE, SOUND_AFTER = 10, 5
"""How many of the replayed keys have no fault at the start and at the end; fewer when few are replayed."""


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A fault and the keys whose deliveries have it."""

    kind: FaultKind
    keys: tuple[str, ...]


def draw(spec: Product, keys: Sequence[str], seed: int) -> Injected | None:
    """Return the fault of a replay: its kind and one to three contiguous keys, by seed; None if there is no room.

    Args:
        spec: a product with a history.
        keys: the replayed keys, in order.
        seed: the same seed draws the same fault among the same keys.
    """
    kinds = history(spec).faults
    has_room = len(keys) >= SOUND_BEFORE + LONGEST + SOUND_AFTER
    before, after = (SOUND_BEFORE, SOUND_AFTER) if has_room else (len(keys) // 3, len(keys) // 4)
    candidates = keys[before : len(keys) - after]
    if not kinds or not candidates or not before:
        return None
    # Of text, which `random` hashes by SHA-512: the same draw in each process, unlike with `hash()`.
    stream = random.Random(f"{spec.name} {seed}")
    kind = stream.choice(kinds)
    length = min(stream.randint(1, LONGEST), len(candidates))
    first = stream.randrange(len(candidates) - length + 1)
    return Injected(kind=kind, keys=tuple(candidates[first : first + length]))


def inject(spec: Product, injected: Injected | None) -> Product:
    """Return the product with a recording that delivers the fault for its keys."""
    if injected is None:
        return spec
    sound = history(spec)

    def deliver(source: str, key: str) -> bytes | None:
        if key in injected.keys:
            return injected.kind.deliver(sound.deliver, source, key)
        return sound.deliver(source, key)

    return replace(spec, history=replace(sound, deliver=deliver))
