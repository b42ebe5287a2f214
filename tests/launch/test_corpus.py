"""Statuses of pods from public threads, in two halves: rules are written with `learn`, and `judge` measures them.

`address` is the thread, `failure` the class of what its people found to be the cause, and `completed` what the thread
leaves out. A seed drew the halves before any rule was written for them. Nobody tunes a rule to `judge`: R5 of
`make chaos` prints the share of both. `threads` came later: each was written down, with its class, before its rule.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from platform_assets.kubernetes import pods
from platform_assets.kubernetes.pod_status import read_event, read_node, read_pod
from platform_assets.launch.profiles import PROFILES

STATUSES = Path(__file__).resolve().parents[1] / "doubles" / "pod_statuses"
SEED = 20261127
HALVES = ("learn", "judge")
SETS = (*HALVES, "threads")
REQUIRED = {"failure", "address", "what", "completed", "status"}
OPTIONAL = {"metadata", "spec", "events", "node", "gone", "profile", "passes"}
ASKED_AFTER_S = (61, 240, 1_800, 30_000, 200_000)
"""The launcher asks until it has an answer, so time passes: for a pull, a start, a deadline, a gate."""
Half = Literal["learn", "judge", "threads"]
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many statuses of a half have the right class, and a sentence for each that has not."""

    right: int
    total: int
    wrong: tuple[str, ...]


def fixtures(half: str) -> dict[str, Json]:
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((STATUSES / half).glob("*.json"))
    }


def share(half: Half) -> Share:
    answers = {name: (answer(fixture), fixture["failure"]) for name, fixture in fixtures(half).items()}
    wrong = [
        f"{name}: decided {given or 'finished'}, expected {expected or 'finished'}"
        for name, (given, expected) in answers.items()
        if given != expected
    ]
    return Share(right=len(answers) - len(wrong), total=len(answers), wrong=tuple(wrong))


def answer(fixture: Json) -> str | None:
    """Return the first class that the classifier gives as time passes; `goes on` if it never does."""
    newest = max(times(fixture), default=datetime(2026, 11, 24, 10, 20, tzinfo=UTC))
    metadata = {"name": "pod", "creationTimestamp": "2016-01-01T00:00:00Z", **fixture.get("metadata", {})}
    pod = read_pod({"metadata": metadata, "spec": fixture.get("spec", {}), "status": fixture["status"]})
    for after_s in ASKED_AFTER_S:
        ending = pods.ending(
            None if fixture.get("gone") else pod,
            now=newest + timedelta(seconds=after_s),
            profile=PROFILES[fixture.get("profile", "gpu_spot")],
            events=[read_event(event) for event in fixture.get("events", ())],
            node=read_node(fixture["node"]) if "node" in fixture else None,
            last_seen=pod if fixture.get("gone") else None,
        )
        if ending is not None:
            return None if ending.failure is None else ending.failure.name
    return "goes on"


def times(value: Any) -> Iterator[datetime]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from times(inner)
    elif isinstance(value, str) and value.endswith("Z") and value[:2] == "20":
        yield datetime.fromisoformat(value)


def test_the_seed_drew_the_halves() -> None:
    halves = [list(fixtures(half)) for half in HALVES]
    names = sorted(halves[0] + halves[1])
    assert len(names) >= 40
    assert set(halves[0]) == set(random.Random(SEED).sample(names, len(names) // 2))


@pytest.mark.parametrize("half", SETS)
def test_a_status_names_its_thread_and_what_was_completed(half: str) -> None:
    for name, fixture in fixtures(half).items():
        assert REQUIRED <= fixture.keys() <= REQUIRED | OPTIONAL, name
        assert fixture["address"].startswith("https://github.com/"), name
        assert fixture["what"].endswith("."), name
        assert fixture["completed"].endswith("."), name


def test_no_thread_is_used_twice() -> None:
    addresses = [json.loads(path.read_text(encoding="utf-8"))["address"] for path in STATUSES.rglob("*.json")]
    of_corpus = [fixture["address"] for half in SETS for fixture in fixtures(half).values()]
    assert len(set(of_corpus)) == len(of_corpus)
    assert all(addresses.count(address) == 1 for address in of_corpus)


@pytest.mark.parametrize(("half", "name"), [(half, name) for half in ("learn", "threads") for name in fixtures(half)])
def test_the_rules_classify_every_status_that_they_were_written_with(half: str, name: str) -> None:
    fixture = fixtures(half)[name]
    assert answer(fixture) == fixture["failure"], fixture["what"]
