"""Sixty keys with the real sensors: one label file never arrives, one arrives after the patience, some arrive twice."""

from collections.abc import Container
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from platform_assets.data import unlabelled
from platform_assets.product.spec import Monitors
from platform_assets.sensors import landings
from tests.doubles import label_loop
from tests.doubles.label_loop import RULES, Loop

pytestmark = pytest.mark.slow

KEYS = 60
NEVER, LATE, TWICE, CHANGED = 14, 23, 40, 46
"""Indexes of the keys whose labels never arrive, arrive after the patience, arrive twice alike, and twice unlike."""
ARRIVES = 36


def loop_of(world: Any, grain: str, **changes: Any) -> Loop:
    world.spec = label_loop.product(grain, **changes)
    return Loop(world)


def play(loop: Loop, indexes: range, *, missing: Container[int] = ()) -> None:
    """Close the keys at these indexes at once; the labels that are due then land at the same time."""
    key_at = loop.spec.grain.key_at
    for index in indexes:
        due = index - loop.spec.label_delay
        if due >= 0 and due not in missing:
            loop.label(key_at(due))
    loop.close(*map(key_at, indexes))


@pytest.mark.costly
@pytest.mark.parametrize(
    ("grain", "stride"),
    [
        pytest.param("daily", 1, marks=pytest.mark.thorough),
        ("hourly", 4),
        pytest.param("batches", 4, marks=pytest.mark.thorough),
    ],
)
def test_retraining_goes_on_and_each_missing_file_raises_one_alert(world: Any, grain: str, stride: int) -> None:
    loop = loop_of(world, grain)
    key_at, index = loop.spec.grain.key_at, loop.spec.grain.index
    twice: Any = None
    for start in range(0, KEYS, stride):
        if start == ARRIVES:
            loop.label(key_at(LATE))
        if start == TWICE + 4:
            twice = world.tables.records("outcomes")[key_at(TWICE)]
            loop.label(key_at(TWICE))
        if start == CHANGED + 6:
            loop.label(key_at(CHANGED), good=False)
        play(loop, range(start, start + stride), missing=(NEVER, LATE))

    def decided(index: int) -> int:
        """Return the first index from there on at which a run ended, and so a decision was made."""
        return index // stride * stride + stride - 1

    patience = RULES.label_patience + loop.spec.label_delay
    never, late = key_at(NEVER), key_at(LATE)
    notes = unlabelled.notes(world.tables)
    assert notes.keys() == {never, late}
    for number, kind in ((NEVER, "given_up"), (LATE, "arrived")):
        note = notes[key_at(number)]
        assert (note["kind"], note["from_cutoff"]) == (kind, key_at(decided(number + patience) + 1))
        assert all(note[name] for name in ("why", "by", "at_utc"))
    assert notes[late]["until_cutoff"] == key_at(ARRIVES + 1), "the first that was not decided when it arrived"

    cutoffs = [index(cutoff) for cutoff in loop.trained]
    most = RULES.max_age + RULES.decide_every + RULES.label_patience + stride
    gaps = [after - before for before, after in pairwise([*cutoffs, KEYS])]
    assert max(gaps) <= most, "a missing file delays a training by no more than the patience"
    for cutoff, keys in loop.trained.items():
        assert loop.keys_of(cutoff) == keys, "later labels change no trained model"
        trained_keys = {key for part in keys for key in part}
        assert never not in trained_keys
        assert (late in trained_keys) == (index(cutoff) > ARRIVES)
        assert len(keys[1]) == loop.spec.holdout
    labels = world.tables.records("outcomes")
    assert labels[key_at(TWICE)] == twice, "the same file again changes nothing"
    assert world.tables.read("outcomes", [key_at(CHANGED)])["label"].to_list() == [1, 1], "another one needs a request"

    expected = [
        ("stale", f"stale-outcomes-{never}"),
        ("unlabelled", f"unlabelled-{key_at(decided(NEVER + patience))}"),
        ("stale", f"stale-outcomes-{late}"),
        ("unlabelled", f"unlabelled-{key_at(decided(LATE + patience))}"),
    ]
    assert [alert for alert in loop.alerts() if alert[0] != "changed"] == expected
    for _ in range(2):
        # Without a cursor the files of closed keys are looked at in the first tick.
        world.cursors.clear()
        loop.settle()
        *others, (kind, alert_id) = loop.alerts()
        assert others == expected, "a lost cursor raises no alert twice"
        assert kind == "changed" and alert_id.startswith(f"changed-results-{key_at(CHANGED)}-")


@pytest.mark.costly
def test_when_labels_stop_trainings_stop_too_with_an_alert(world: Any) -> None:
    """The window stays complete by giving keys up, and the same old labels must not be trained on again and again."""
    loop = loop_of(world, "daily")
    key_at, index, last = loop.spec.grain.key_at, loop.spec.grain.index, 19
    for start in range(0, KEYS, 4):
        play(loop, range(start, start + 4), missing=range(last + 1, KEYS))
    trained = [index(cutoff) for cutoff in loop.trained]
    assert trained[-1] <= last + RULES.max_age + RULES.decide_every + RULES.label_patience + 4
    assert [kind for kind, _ in loop.alerts()] == ["stale", "unlabelled", "stale_model"]
    (text,) = [alert["text"] for alert in world.alerts() if alert["kind"] == "stale_model"]
    assert "no usable labels have landed since the last training" in text
    for number in range(last + 1, KEYS):
        loop.label(key_at(number))
    loop.close(key_at(KEYS))
    assert index(list(loop.trained)[-1]) == KEYS + 1, "once labels arrive, the next key trains"
    assert [kind for kind, _ in loop.alerts()] == ["stale", "unlabelled", "stale_model"], "its keys were given up"


@pytest.mark.costly
def test_a_missing_first_label_file_delays_the_first_model_by_the_patience(world: Any) -> None:
    loop = loop_of(world, "batches")
    for start in range(0, 16, 2):
        play(loop, range(start, start + 2), missing=(0,))
    first = next(iter(loop.trained))
    assert loop.spec.grain.index(first) <= RULES.label_patience + loop.spec.label_delay + 2
    assert loop.spec.grain.first not in loop.trained[first][0]


@pytest.mark.thorough
def test_trainings_go_on_although_some_label_is_always_late(world: Any) -> None:
    """Every third file is missing, so at any time one is awaited that is not late by the patience."""
    loop = loop_of(world, "hourly")
    missing = range(1, KEYS, 3)
    for start in range(0, KEYS, 2):
        play(loop, range(start, start + 2), missing=missing)
    cutoffs = [loop.spec.grain.index(cutoff) for cutoff in loop.trained]
    most = RULES.max_age + RULES.decide_every + RULES.label_patience + 2
    assert max(after - before for before, after in pairwise([*cutoffs, KEYS])) <= most


@pytest.mark.costly
def test_a_patience_longer_than_the_window_ends_with_the_window(world: Any) -> None:
    loop = loop_of(world, "daily", window=8, monitors=Monitors(drift_window=3), rules=replace(RULES, label_patience=20))
    for start in range(0, 32, 2):
        play(loop, range(start, start + 2), missing=(9,))
    cutoffs = [loop.spec.grain.index(cutoff) for cutoff in loop.trained]
    assert max(after - before for before, after in pairwise([*cutoffs, 32])) <= 8 + 4 + 8 + 2
    assert [key for key, note in unlabelled.notes(world.tables).items() if note["kind"] == "given_up"] == ["2020-01-10"]


@pytest.mark.costly
def test_an_empty_label_file_stops_no_other_key_and_a_new_one_is_taken_in(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landings, "PAUSES_S", (0,))
    loop = loop_of(world, "daily")
    for start in range(0, 24, 2):
        if start == 8:
            world.land(label_loop.LABEL, "2020-01-08", "")
        play(loop, range(start, start + 2), missing=(7,))
    assert loop.alerts() == [], "no run failed, and no key was given up"
    assert world.history.is_decided("2020-01-24")
    assert len(loop.trained) >= 2
    raw = world.tables.records(f"raw_{label_loop.LABEL}", ["2020-01-08"])["2020-01-08"]
    assert raw.rows == 0 and "the file is empty" in raw.notes["unreadable"]
    loop.label("2020-01-08")
    world.cursors.clear()  # files of closed keys are compared in the first tick
    loop.settle()
    assert world.tables.records("outcomes", ["2020-01-08"])["2020-01-08"].rows == 2


@pytest.mark.costly
def test_awaited_labels_reach_the_patience_and_no_more(world: Any) -> None:
    """The rule LabelsMissing compares the two: older keys are given up."""
    loop, awaited = loop_of(world, "batches"), list[int]()
    for index in range(RULES.label_patience + 3):
        play(loop, range(index, index + 1), missing=range(KEYS))
        awaited.append(len(loop.decision(loop.spec.grain.key_at(index))["numbers"]["unlabelled"]))
    assert max(awaited) == awaited[-1] == RULES.label_patience
