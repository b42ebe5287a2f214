"""Each attempt has one record, by the launcher or the step: cost, reason, progress."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from msgspec.structs import replace

from platform_assets.base import failures, naming
from platform_assets.base.problems import LedgerProblem
from platform_assets.base.settings import Settings
from platform_assets.engine.outside import Work
from platform_assets.launch import records
from platform_assets.launch.attempt import begin, prepare
from platform_assets.launch.endings import Ending, Try, first_try
from platform_assets.launch.launchers import StepFailure, StepLauncher, SubprocessLauncher
from platform_assets.launch.profiles import PROFILES
from platform_assets.store import leases
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import Attempt, Launch, ProcessLocation

pytestmark = pytest.mark.slow

WORK = Work(product="tiny", step="train", cutoff="0009", fingerprint="f" * 64)
AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


def begun(size: str = "gpu_spot") -> Launch:
    plan: Try = first_try(PROFILES[size])
    launch = begin(WORK, plan, run_id="r1", launcher="kubernetes")
    return replace(launch, id="a1", requested_at_utc=AT.isoformat())


def progress_of(**members: Any) -> Attempt:
    return Attempt(**{"id": "a1", "reason": "", "usd_per_hour": 1.0, "wall_s": 1.0, **members})


def test_paid_is_the_time_from_start_to_end_at_the_profiles_price() -> None:
    ending = Ending(
        failure=failures.PREEMPTED,
        evidence="the node was taken away",
        exit_code=143,
        started_at=AT + timedelta(minutes=2),
        ended_at=AT + timedelta(minutes=62),
    )
    progress = progress_of(steps_done=120, steps_saved=100, resumed_from_step=40, cpu_s=7.5)
    result = records.record_of(begun(), ending, ProcessLocation(node="n1"), None, progress, None)
    assert (result.wall_s, result.waited_s) == (3600, 120)
    assert (result.cost_usd, result.on_demand_cost_usd) == (pytest.approx(0.99), pytest.approx(2.49))
    assert (result.steps_done, result.steps_lost, result.resumed_from_step) == (120, 20, 40)
    assert (result.reason, result.exit_code, result.node, result.zone) == ("preempted", 143, "n1", None)
    assert (result.by, result.id, result.run_id, result.is_spot) == ("launcher", "a1", "r1", True)
    assert result.digest is None


def test_the_cost_follows_from_the_duration_that_the_record_states() -> None:
    ending = Ending(failure=None, evidence="", started_at=AT, ended_at=AT + timedelta(seconds=9, microseconds=480_374))
    result = records.record_of(begun(), ending, ProcessLocation(), None, None, None)
    assert result.wall_s == 9.48
    assert (result.cost_usd, result.on_demand_cost_usd) == (9.48 / 3600 * 0.99, 9.48 / 3600 * 2.49)


@pytest.mark.parametrize(
    ("zone", "received", "price", "expected"),
    [
        ("zone-b", 3_000_000_000, 0.5, (3_000_000_000, 1.5)),
        ("zone-a", 3_000_000_000, 0.5, (0, 0.0)),
        ("zone-b", 3_000_000_000, None, (3_000_000_000, None)),
        ("zone-b", None, 0.5, (None, None)),
        (None, 3_000_000_000, 0.5, (None, None)),
    ],
)
def test_bytes_from_another_zone_are_priced_in_addition_to_the_node(
    zone: str | None, received: int | None, price: float | None, expected: tuple[int | None, float | None]
) -> None:
    launch = replace(begun(), data_zone="zone-a", cross_zone_usd_per_gb=price)
    ending = Ending(failure=None, evidence="", started_at=AT, ended_at=AT + timedelta(hours=1))
    progress = progress_of(received_bytes=received)
    result = records.record_of(launch, ending, ProcessLocation(zone=zone), None, progress, None)
    assert (result.cross_zone_bytes, result.cross_zone_usd) == expected
    assert (result.zone, result.data_zone, result.received_bytes) == (zone, "zone-a", received)
    assert result.cost_usd == pytest.approx(0.99)


def test_a_record_without_a_zone_of_its_data_has_the_members_it_always_had() -> None:
    ending = Ending(failure=None, evidence="", started_at=AT, ended_at=AT)
    document = records.record_of(begun(), ending, ProcessLocation(zone="zone-b"), None, None, None).document()
    assert not {"data_zone", "cross_zone_usd_per_gb", "received_bytes", "cross_zone_bytes"} & {*document}


def test_what_never_ran_costs_nothing_and_waited_all_the_time() -> None:
    ending = Ending(failure=failures.UNSCHEDULABLE, evidence="0/2 nodes", ended_at=AT + timedelta(seconds=600))
    result = records.record_of(begun(), ending, ProcessLocation(), None, None, None)
    assert (result.wall_s, result.waited_s, result.cost_usd, result.steps_lost) == (0, 600, 0, 0)


def test_what_finished_names_what_it_made_and_lost_nothing() -> None:
    ending = Ending(
        failure=None, evidence="it finished", exit_code=0, started_at=AT, ended_at=AT + timedelta(seconds=1)
    )
    result = records.record_of(
        begun(),
        ending,
        ProcessLocation(),
        None,
        progress_of(steps_done=9, steps_saved=5),
        records.Reported(checkpoint="c" * 64),
    )
    assert (result.reason, result.digest, result.steps_lost) == ("finished", "c" * 64, 0)


def test_usage_comes_from_the_steps_progress_or_its_result_or_is_absent() -> None:
    ending = Ending(
        failure=None, evidence="it finished", exit_code=0, started_at=AT, ended_at=AT + timedelta(seconds=9)
    )
    report = records.Reported(bundle="b" * 64, cpu_s=8.5, peak_memory_mb=400.0)
    record = records.record_of(begun(), ending, ProcessLocation(), None, None, report)
    assert (record.cpu_s, record.peak_memory_mb) == (8.5, 400.0)
    assert records.record_of(begun(), ending, ProcessLocation(), None, progress_of(cpu_s=7.5), report).cpu_s == 7.5
    assert records.record_of(begun(), ending, ProcessLocation(), None, None, None).cpu_s is None


def test_clocks_that_disagree_cost_nothing_rather_than_less_than_nothing() -> None:
    ending = Ending(failure=failures.NODE_LOST, evidence="gone", ended_at=AT)
    result = records.record_of(begun(), ending, ProcessLocation(), AT + timedelta(seconds=5), None, None)
    assert (result.wall_s, result.cost_usd) == (0, 0)


def run(folder: Path, *ends: str, work: Work | None = WORK, root: Path | None = None) -> list[dict[str, object]]:
    settings = Settings.from_environment(
        {"DRIFTLINE_STATE": str(folder / "state"), "DRIFTLINE_ROOT": str(root or folder / "store")}
    )

    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> dg.MaterializeResult:
        extras = {"folder": str(folder), "ends": list(ends)}
        launcher.run(context=context, module="tests.doubles.step", extras=extras, work=work)
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([waits], resources={"launcher": SubprocessLauncher(settings)}, instance=instance)
    return [record for _, record in Ledgers(settings.root, WORK.product).records(naming.ATTEMPTS)]


def test_a_subprocess_leaves_a_record_of_each_try(tmp_path: Path) -> None:
    first, second, third = run(tmp_path, "killed", "preempted", "well")
    assert [item["reason"] for item in (first, second, third)] == ["killed", "preempted", "finished"]
    assert len({item["id"] for item in (first, second, third)}) == 3
    assert third["exit_code"] == 0
    for item in (first, second, third):
        assert (item["launcher"], item["profile"], item["step"], item["cutoff"]) == (
            "subprocess",
            "cpu_small",
            "train",
            "0009",
        )
        assert item["started_at_utc"] < item["ended_at_utc"]
        assert item["cost_usd"] == item["wall_s"] / 3600 * 0.08


def test_an_own_error_is_on_record_too(tmp_path: Path) -> None:
    with pytest.raises(StepFailure, match="by its own error"):
        run(tmp_path, "code")
    ledgers = Ledgers(str(tmp_path / "store"), WORK.product)
    (record,) = [record for _, record in ledgers.records(naming.ATTEMPTS)]
    assert (record["reason"], record["exit_code"], record["steps_done"]) == ("code", 1, 0)


def test_a_store_that_takes_no_record_does_not_hide_why_a_step_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise LedgerProblem("the disk is full.")

    monkeypatch.setattr(Ledgers, "append", refuse)
    with pytest.raises(StepFailure, match="the double was told to fail"):
        run(tmp_path, "code")
    (tmp_path / "starts").unlink()
    with pytest.raises(LedgerProblem, match="the disk is full"):
        run(tmp_path, "well")


def leave(settings: Settings, **members: Any) -> None:
    """Leave what a step with the lease has recorded of its progress."""
    ledgers = Ledgers(settings.root, WORK.product)
    fence = leases.Lease(ledgers, WORK.fingerprint).acquire(60.0, "here")
    ledgers.overwrite(f"{naming.LEASES}/{WORK.fingerprint}", f"{fence}.progress", progress_of(**members).document())


def test_an_unobserved_end_comes_from_the_steps_record_or_is_now(settings: Settings) -> None:
    gone = Ending(failure=failures.NODE_LOST, evidence="the pod is gone", started_at=AT)
    until = AT + timedelta(seconds=90)
    assert records.complete(prepare(settings.root, begun()), gone, until) == Ending(
        failure=failures.NODE_LOST, evidence="the pod is gone", started_at=AT, ended_at=until
    )
    ended = (AT + timedelta(seconds=30)).isoformat()
    leave(settings, reason="preempted", started_at_utc=AT.isoformat(), ended_at_utc=ended)
    result = records.complete(
        prepare(settings.root, begun()), Ending(failure=failures.NODE_LOST, evidence="the pod is gone"), until
    )
    assert (result.failure, result.started_at, result.ended_at) == (failures.PREEMPTED, AT, AT + timedelta(seconds=30))
    assert "the step itself recorded" in result.evidence
    evicted = Ending(failure=failures.EVICTED, evidence="low on memory", started_at=AT)
    assert records.complete(prepare(settings.root, begun()), evicted, until).failure is failures.EVICTED, (
        "what the API showed stands"
    )


@pytest.mark.parametrize(
    ("failure", "peak_mb", "expected"),
    [
        (failures.KILLED, 31_000.0, failures.OUT_OF_MEMORY),
        (failures.KILLED, 30_000.0, failures.KILLED),
        (failures.KILLED, None, failures.KILLED),
        (failures.PREEMPTED, 31_000.0, failures.PREEMPTED),
    ],
)
def test_a_kill_that_nothing_explains_is_out_of_memory_if_the_step_had_used_nearly_all_of_it(
    failure: failures.Failure, peak_mb: float | None, expected: failures.Failure, settings: Settings
) -> None:
    leave(settings, peak_memory_mb=peak_mb)
    assert begun().memory_gb == 32
    result = records.explain_kill(prepare(settings.root, begun()), Ending(failure=failure, evidence="exit code 137"))
    assert result.failure is expected
    assert ("31000 MB of 32000 MB" in result.evidence) == (expected is failures.OUT_OF_MEMORY)


def test_an_abandoned_attempt_is_found_after_any_number_of_other_records(settings: Settings) -> None:
    ledgers = Ledgers(settings.root, WORK.product)
    other = replace(begun(), id="b1", fingerprint="e" * 64)
    for launch in (begun(), other):
        records.announce(prepare(settings.root, launch))
    for _ in range(50):
        ledgers.append(naming.ATTEMPTS, {**other.document(), "by": "step", "reason": "preempted", "wall_s": 1.0})
    assert [open_attempt.id for open_attempt in records.open_attempts(settings, WORK)] == ["a1"]
    ending = Ending(failure=failures.NODE_LOST, evidence="gone", ended_at=AT)
    records.write(prepare(settings.root, begun()), ending, ProcessLocation(), None)
    assert records.open_attempts(settings, WORK) == []
    records.announce(prepare(settings.root, replace(begun(), id="a2")))
    assert [open_attempt.id for open_attempt in records.open_attempts(settings, WORK)] == ["a2"]


def test_what_was_killed_before_it_could_announce_is_nothing_to_settle(settings: Settings) -> None:
    Ledgers(settings.root, WORK.product).append(
        f"{naming.ANNOUNCED}/train-{WORK.fingerprint}", {"id": "a1", "after": 0}
    )
    assert records.open_attempts(settings, WORK) == []


def test_the_record_of_a_finished_step_settles_its_attempt(settings: Settings) -> None:
    ended = (AT + timedelta(hours=1)).isoformat()
    leave(settings, reason="finished", started_at_utc=AT.isoformat(), ended_at_utc=ended)
    gone = Ending(failure=failures.NODE_LOST, evidence="the pod is gone", started_at=AT - timedelta(seconds=9))
    records.settle(prepare(settings.root, begun()), gone, [AT])
    (record,) = (item for _, item in Ledgers(settings.root, WORK.product).records(naming.ATTEMPTS))
    assert (record["reason"], record["wall_s"]) == ("finished", 3609)
    assert record["said"].startswith("nobody watched it: the pod is gone; the step itself recorded")


@pytest.mark.parametrize(
    ("signs", "beat_s", "expected_s"),
    [
        (None, 30, 90),
        ([], None, 90),
        ([], 30, 30),
        ([AT + timedelta(seconds=40)], None, 40),
        ([AT + timedelta(seconds=40)], 30, 40),
        ([AT + timedelta(seconds=40)], 50, 50),
        ([AT + timedelta(seconds=40)], 100, 100),
    ],
)
def test_a_process_that_nobody_can_ask_is_paid_until_its_last_sign_of_life(
    signs: list[datetime] | None, beat_s: int | None, expected_s: int, settings: Settings
) -> None:
    if beat_s is not None:
        ended = (AT + timedelta(seconds=beat_s)).isoformat()
        leave(settings, started_at_utc=AT.isoformat(), ended_at_utc=ended)
    lost = Ending(failure=failures.NODE_LOST, evidence="silent", started_at=AT)
    result = records.complete(prepare(settings.root, begun()), lost, AT + timedelta(seconds=90), signs)
    assert result.ended_at == AT + timedelta(seconds=expected_s)
