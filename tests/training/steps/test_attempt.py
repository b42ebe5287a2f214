"""Every attempt leaves one record, even if it vanished, and two attempts never work on the same training."""

from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.store.leases import LeaseLost
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import Launch
from platform_assets.store.records.trainings import CHECKPOINTS, Checkpoint
from platform_assets.training.steps import process
from platform_assets.training.steps.attempt import Attempt

pytestmark = pytest.mark.slow


def attempt(settings: Settings, **changes: Any) -> Attempt:
    ledgers = Ledgers(settings.root, "tiny")
    members = {"cutoff": "0009", "profile_name": "cpu_small", "usd_per_hour": 0.08, **changes}
    return Attempt(settings, ledgers, fingerprint="f", **members)


LAUNCH: dict[str, Any] = {
    "id": "a1",
    "product": "tiny",
    "step": "train",
    "fingerprint": "f",
    "cutoff": "0009",
    "run_id": "r1",
    "profile": "cpu_small",
    "is_spot": False,
    "memory_gb": 4,
    "usd_per_hour": 1,
    "on_demand_usd_per_hour": 1,
    "priced_on": "2026-11-01",
    "requested_at_utc": "2026-11-01T12:00:00+00:00",
}


def continue_work() -> bool:
    return True


def records(settings: Settings) -> list[dict[str, Any]]:
    return [record for _, record in Ledgers(settings.root, "tiny").records("attempts")]


def test_a_finished_attempt_is_recorded_with_its_cost(settings: Settings) -> None:
    with attempt(settings) as work:
        assert work.acquire(wait=continue_work)
        work.note(steps_done=12)
    (record,) = records(settings)
    assert (record["reason"], record["steps_done"], record["fence"], record["profile"]) == (
        "finished",
        12,
        1,
        "cpu_small",
    )
    assert record["usd_per_hour"] == 0.08
    assert record["started_at_utc"] <= record["ended_at_utc"]


@pytest.mark.parametrize(("launcher", "counted"), [("kubernetes", 700), ("subprocess", None)])
def test_what_a_pod_received_is_recorded_where_its_profile_says_where_the_data_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, launcher: str, counted: int | None
) -> None:
    counts = chain([1000], repeat(1700))
    monkeypatch.setattr(process, "received_bytes", lambda: next(counts))
    launch = Launch(**LAUNCH, launcher=launcher, data_zone="zone-a", cross_zone_usd_per_gb=0.25)
    with attempt(settings, launch=launch) as work:
        assert work.acquire(wait=continue_work)
    (record,) = records(settings)
    assert record.get("received_bytes") == counted
    assert (record["data_zone"], record["cross_zone_usd_per_gb"]) == ("zone-a", 0.25)


def fail(work: Attempt, error: BaseException) -> None:
    with work:
        work.acquire(wait=continue_work)
        raise error


@pytest.mark.parametrize(("error", "reason"), [(process.Preempted(), "preempted"), (ValueError("no rows"), "code")])
def test_an_attempt_that_ends_with_an_error_names_it_and_frees_the_lease(
    settings: Settings, error: BaseException, reason: str
) -> None:
    with pytest.raises(type(error)):
        fail(attempt(settings), error)
    assert [record["reason"] for record in records(settings)] == [reason]
    with attempt(settings) as work:
        assert work.acquire(wait=lambda: pytest.fail("the lease was not released"))


def test_an_attempt_waits_for_a_living_one_and_may_give_up(settings: Settings) -> None:
    with attempt(settings) as first:
        first.acquire(wait=continue_work)
        with attempt(settings) as second:
            assert not second.acquire(wait=lambda: False)
    assert len(records(settings)) == 1


def test_the_record_of_a_vanished_attempt_is_written_by_the_next_one(settings: Settings) -> None:
    vanished = attempt(settings, ttl_s=0.0)
    vanished.acquire(wait=continue_work)
    vanished.note(steps_done=40)
    vanished.beat(is_due=True)
    with attempt(settings) as work:
        work.acquire(wait=continue_work)
        work.note(steps_done=70)
    result = [(record["reason"], record["steps_done"], record["fence"]) for record in records(settings)]
    assert result == [("vanished", 40, 1), ("finished", 70, 2)]


def test_an_attempt_that_wakes_up_late_is_stopped(settings: Settings) -> None:
    late = attempt(settings, ttl_s=0.0)
    late.acquire(wait=continue_work)
    with attempt(settings) as work:
        work.acquire(wait=continue_work)
        with pytest.raises(LeaseLost):
            late.beat(is_due=True)


def test_a_result_that_comes_late_is_refused_and_one_that_was_left_is_recorded(settings: Settings) -> None:
    checkpoints = Ledgers(settings.root, "tiny").of(CHECKPOINTS)
    late, vanished = attempt(settings, ttl_s=0.0), attempt(settings, ttl_s=0.0)
    late.acquire(wait=continue_work)
    vanished.acquire(wait=continue_work)
    with pytest.raises(LeaseLost):
        late.conclude(CHECKPOINTS, Checkpoint(manifest="late"))
    assert checkpoints.read("f") is None
    assert vanished.conclude(CHECKPOINTS, Checkpoint(manifest="first"))
    Path(settings.root, naming.ledger_path("tiny", naming.CHECKPOINTS), "f.json").unlink()  # as if suspended before
    with attempt(settings) as work:
        work.acquire(wait=continue_work)
        assert checkpoints.read("f") == Checkpoint(manifest="first")
        assert not work.conclude(CHECKPOINTS, Checkpoint(manifest="second"))
    assert [(record["reason"], record["fence"]) for record in records(settings)] == [
        ("vanished", 1),
        ("vanished", 2),
        ("finished", 4),
    ]
    with attempt(settings) as work:
        assert work.acquire(wait=lambda: pytest.fail("the lease was not released"))


def test_an_attempt_that_never_held_the_lease_leaves_no_record(settings: Settings) -> None:
    with attempt(settings):
        pass
    assert records(settings) == []


def test_an_attempt_is_not_started_a_second_time(settings: Settings) -> None:
    """A queue may let a Job in again while no launcher lives: its pods end before they work."""

    def started(name: str) -> Attempt:
        return attempt(settings, launch=Launch(**{**LAUNCH, "id": name}, launcher="kubernetes"))

    with started("a1") as work:
        work.acquire(wait=continue_work)
    for _ in range(2):
        with pytest.raises(process.Preempted), started("a1") as work:
            work.acquire(wait=continue_work)
    with started("a2") as work:
        assert work.acquire(wait=continue_work)
    assert [record["reason"] for record in records(settings)] == ["finished", "preempted", "preempted", "finished"]


def test_the_launchers_facts_about_an_attempt_are_in_its_record_and_progress(settings: Settings) -> None:
    launch = Launch(**{**LAUNCH, "profile": "gpu"}, launcher="kubernetes")
    with attempt(settings, profile_name="gpu_spot", launch=launch) as work:
        work.acquire(wait=continue_work)
        work.note(steps_done=9, steps_saved=5)
    (record,) = records(settings)
    assert (record["id"], record["run_id"], record["profile"], record["by"]) == ("a1", "r1", "gpu", "step")
    assert Ledgers(settings.root, "tiny").read("leases/f", "1.progress") == record
