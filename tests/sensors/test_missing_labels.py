"""Sixty keys by the real sensors: a label file that never comes, one that comes too late, one that comes twice."""

from __future__ import annotations

from typing import Any

import pytest

from platform_assets.stages import unlabelled
from tests.doubles import label_loop
from tests.doubles.label_loop import RULES, Loop

KEYS = 60
NEVER, LATE, TWICE, CHANGED = 14, 24, 40, 46
"""Places of the keys whose labels never come, come after the patience, come twice alike, and twice unlike."""
COMES = 36


def loop_of(world: Any, grain: str, **changes: Any) -> Loop:
    world.spec = label_loop.product(grain, **changes)
    return Loop(world)


def play(loop: Loop, place: int, *, missing: tuple[int, ...]) -> None:
    """Close the key at a place; the labels of the key before it land at the same time."""
    due = place - loop.spec.label_delay
    if due >= 0 and due not in missing:
        loop.label(loop.spec.grain.key_at(due))
    loop.close(loop.spec.grain.key_at(place), ticks=5)


@pytest.mark.parametrize("grain", ["daily", "hourly", "batches"])
def test_retraining_goes_on_and_each_missing_file_is_told_once(world: Any, grain: str) -> None:
    loop = loop_of(world, grain)
    key_at, index = loop.spec.grain.key_at, loop.spec.grain.index
    twice: dict[str, Any] = {}
    for place in range(KEYS):
        if place == COMES:
            loop.label(key_at(LATE))
        if place == TWICE + 4:
            twice = {stage: world.tables.records(stage) for stage in ("outcomes", unlabelled.STAGE)}
            loop.label(key_at(TWICE))
        if place == CHANGED + 4:
            loop.label(key_at(CHANGED), good=False)
        play(loop, place, missing=(NEVER, LATE))

    patience = RULES.label_patience + loop.spec.label_delay
    never, late = key_at(NEVER), key_at(LATE)
    notes = unlabelled.notes(world.tables)
    assert notes.keys() == {never, late}
    assert (notes[never]["kind"], notes[never]["from_cutoff"]) == ("given_up", key_at(NEVER + patience + 1))
    assert (notes[late]["kind"], notes[late]["from_cutoff"]) == ("arrived", key_at(LATE + patience + 1))
    assert notes[late]["until_cutoff"] == key_at(COMES + 1), "it came with the files of this place, before its decision"
    assert all(note["why"] and note["by"] and note["at_utc"] for note in notes.values())

    cutoffs = [index(cutoff) for cutoff in loop.trained]
    assert max(after - before for before, after in zip(cutoffs, cutoffs[1:], strict=False)) <= (
        RULES.max_age + RULES.decide_every + RULES.label_patience
    ), "a missing file costs a training no more than the patience"
    assert KEYS - cutoffs[-1] <= RULES.max_age + RULES.decide_every
    for cutoff, keys in loop.trained.items():
        assert loop.keys_of(cutoff) == keys, "what came later changes no model that was trained"
        seen = {key for part in keys for key in part}
        assert never not in seen
        assert (late in seen) == (index(cutoff) > COMES)
        assert len(keys[1]) == loop.spec.holdout
    assert twice["outcomes"][key_at(TWICE)] == world.tables.records("outcomes")[key_at(TWICE)]

    told = [
        ("stale", f"stale-outcomes-{never}"),
        ("unlabelled", f"unlabelled-{key_at(NEVER + patience)}"),
        ("stale", f"stale-outcomes-{late}"),
        ("unlabelled", f"unlabelled-{key_at(LATE + patience)}"),
    ]
    assert loop.alerts() == told
    world.cursors.clear()
    loop.settle()
    assert loop.alerts() == told, "a lost cursor tells nobody twice"
