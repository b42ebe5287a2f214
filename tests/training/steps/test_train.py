"""A training step ends with the same bytes however it was interrupted, and states clearly why it cannot run."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import pytest
import torch

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.launch.attempt import begin
from platform_assets.launch.endings import first_try
from platform_assets.launch.profiles import PROFILES
from platform_assets.product.learner import TrainingProblem
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS
from platform_assets.training.steps import process, train
from tests.doubles import tiny_product as tiny
from tests.doubles import tiny_step

pytestmark = pytest.mark.slow

STOPPED_AT = 40


def run(settings: Settings, extras: dict[str, Any], **changes: Any) -> dict[str, Any]:
    lines: list[str] = []
    job = train.Job.from_extras({**extras, **changes})
    return train.Training(tiny.SPEC, job, settings, log=lines.append).run() | {"lines": lines}


def reasons(settings: Settings) -> list[str]:
    return [record["reason"] for _, record in Ledgers(settings.root, "tiny").records("attempts")]


@pytest.mark.costly
def test_a_training_killed_six_times_and_stopped_once_ends_byte_identical(
    settings: Settings, extras: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    path = tmp_path / "extras.json"
    path.write_text(json.dumps(extras), encoding="utf-8")
    first, second, third, *late = tiny_step.MOMENTS
    moments = [first, second, f"stop:{STOPPED_AT}", third, *late, "-"]
    command = [sys.executable, str(repository / "tests/doubles/tiny_step.py"), "train", str(path), *moments]
    environment = {**os.environ, **settings.to_environment(), "PYTHONPATH": str(repository)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    interrupted = json.loads(ended.stdout.splitlines()[-1])
    killed = -signal.SIGKILL
    assert interrupted["exit_codes"] == [killed, killed, process.EXIT_PREEMPTED, killed, killed, killed, killed, 0]
    assert interrupted["saved"] == [8, 24, STOPPED_AT, 69, 70, 70, 70, None]
    vanished = ["vanished"] * 6
    assert reasons(settings) == [*vanished[:2], "preempted", *vanished[2:], "finished"]

    alone = Settings(root=str(tmp_path / "alone"), state=tmp_path / "alone_state")
    left_alone = run(alone, tiny.store(alone))
    assert interrupted["checkpoint"] == left_alone["checkpoint"]
    *_, (_, last_fit), (_, last) = Ledgers(settings.root, "tiny").of(ATTEMPTS).records()
    assert (last_fit.resumed_from_step, last.resumed_from_step) == (70, 0)
    assert (interrupted["is_reused"], left_alone["is_reused"]) == (True, False)
    one, other = (ArtifactStore(location.root).get_json(left_alone["checkpoint"]) for location in (settings, alone))
    assert ArtifactStore(settings.root).get(one["weights"]) == ArtifactStore(alone.root).get(other["weights"])


def test_the_manifest_names_data_configuration_and_history(settings: Settings, extras: dict[str, Any]) -> None:
    result = run(settings, extras)
    store = ArtifactStore(settings.root)
    manifest = store.get_json(result["checkpoint"])
    assert manifest["data"] == {"features": extras["features"], "outcomes": extras["outcomes"]}
    assert (manifest["training_keys"], manifest["holdout_keys"]) == (extras["training_keys"], extras["holdout_keys"])
    assert [row["epoch"] for row in manifest["history"]] == [1, 2, 3, 4, 5]
    assert store.get_json(manifest["config"])["training"]["epochs"] == 5
    assert set(store.get_json(manifest["baselines"])["models"]) == {"constant", "linear"}
    assert store.get_json(manifest["learned"])["rows"] == 6 * 149
    assert sum(line.startswith("epoch") for line in result["lines"]) == 5
    assert result["baselines"]["linear"] < result["baselines"]["constant"]


def test_a_finished_fingerprint_is_reused_and_another_one_trains(settings: Settings, extras: dict[str, Any]) -> None:
    first = run(settings, extras)
    again = run(settings, extras)
    assert (first["is_reused"], again["is_reused"]) == (False, True)
    assert again["checkpoint"] == first["checkpoint"]
    other = run(settings, extras, fingerprint="e" * 64)
    assert (other["is_reused"], other["checkpoint"]) == (False, first["checkpoint"])
    assert reasons(settings) == ["finished", "finished"]


class Overtaken(train.Training):
    """A training that is suspended just before it records its checkpoint, until another process holds the lease."""

    seen: ClassVar[list[object]]
    """What that process read of the checkpoint, then."""

    @cached_property
    def ledgers(self) -> Ledgers:
        def overtake() -> None:
            other = train.Training(self.spec, self.job, self.settings, log=lambda _: None)
            with other.attempt() as attempt:
                assert attempt.acquire(wait=lambda: pytest.fail("the lease had not lapsed"))
                self.seen.append(other.ledgers.read(naming.CHECKPOINTS, self.job.fingerprint))

        class Suspended(Ledgers):
            def create(self, ledger: str, key: str, record: object) -> None:
                if ledger == naming.CHECKPOINTS:
                    overtake()
                super().create(ledger, key, record)

        return Suspended(self.settings.root, self.spec.name)


def test_the_next_holder_of_a_lease_sees_what_an_overtaken_training_records(settings: Settings, extras: dict[str, Any]):
    Overtaken.seen = []
    Overtaken(tiny.SPEC, train.Job.from_extras(extras), settings, log=lambda _: None, ttl_s=0.0).run()
    assert Overtaken.seen == [Ledgers(settings.root, "tiny").read(naming.CHECKPOINTS, extras["fingerprint"])]


@pytest.mark.costly
@pytest.mark.parametrize("blob", naming.CHECKPOINT_BLOBS)
@pytest.mark.parametrize("damage", [None, b"", b"other bytes"])
def test_a_damaged_checkpoint_is_trained_again_to_the_same_bytes(
    settings: Settings, extras: dict[str, Any], blob: str, damage: bytes | None
) -> None:
    first = run(settings, extras)
    store = ArtifactStore(settings.root)
    path = Path(settings.root, naming.blob_path(store.get_json(first["checkpoint"])[blob]))
    before = path.read_bytes()
    path.unlink() if damage is None else path.write_bytes(damage)
    again = run(settings, extras)
    assert (again["is_reused"], again["checkpoint"]) == (False, first["checkpoint"])
    assert path.read_bytes() == before
    assert run(settings, extras)["is_reused"] is True


def test_a_damaged_checkpoint_that_cannot_be_trained_again_is_named(settings: Settings, extras: dict[str, Any]) -> None:
    first = run(settings, extras)
    store = ArtifactStore(settings.root)
    other = store.put_json({**store.get_json(first["checkpoint"]), "weights": "0" * 64})
    path = Path(settings.root, naming.ledger_path("tiny", naming.CHECKPOINTS), f"{extras['fingerprint']}.json")
    path.write_text(json.dumps({"manifest": other}), encoding="utf-8")
    with pytest.raises(ArtifactProblem, match="blobs of its checkpoint are damaged, and training again"):
        run(settings, extras)


def test_the_first_save_is_timed_and_one_that_takes_too_long_is_reported(settings: Settings, extras: dict[str, Any]):
    plan = first_try(PROFILES["gpu_spot"])
    launch = msgspec.structs.replace(begin(None, plan, run_id="r", launcher="kubernetes"), save_limit_s=1e-9)
    lines = run(settings, extras, attempt=launch.document())["lines"]
    saves = [line for line in lines if line.startswith("a save took ")]
    assert len(saves) == 1, lines
    assert saves[0].endswith("s; 1e-09 s are left for one when the step is stopped: too few.")
    (record,) = (record for _, record in Ledgers(settings.root, "tiny").records("attempts"))
    assert record["save_s"] >= 0
    assert record["save_limit_s"] == 1e-9


def test_a_request_to_stop_before_the_first_step_loses_nothing(settings: Settings, extras: dict[str, Any]) -> None:
    stop = process.StopRequest()

    def log(line: str) -> None:
        stop.is_set = "labelled rows" in line or stop.is_set

    with pytest.raises(process.Preempted):
        train.Training(tiny.SPEC, train.Job.from_extras(extras), settings, log=log, stop=stop).run()
    assert reasons(settings) == ["preempted"]
    assert run(settings, extras)["is_reused"] is False


def test_keys_without_any_label_are_refused(settings: Settings, extras: dict[str, Any]) -> None:
    with pytest.raises(TrainingProblem, match="no labelled rows"):
        run(settings, extras, known_before="1999-01-01T00:00:00+00:00")


def test_a_network_that_does_not_fit_its_device_is_refused_by_name(settings: Settings, extras: dict[str, Any]) -> None:
    spec = replace(tiny.SPEC, model=lambda *_: torch.nn.Linear(10**9, 10**6))
    with pytest.raises(
        TrainingProblem, match=r"tiny does not fit cpu: .*DefaultCPUAllocator.*a device that holds them"
    ):
        train.Training(spec, train.Job.from_extras(extras), settings, log=lambda line: None).run()
    assert reasons(settings) == ["code"]


def test_a_step_that_may_take_more_than_its_gpu_has_is_refused_before_any_row_is_read(
    settings: Settings, extras: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA A100")
    memory = SimpleNamespace(total_memory=40_000_000_000)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: memory)
    unknown_digests = {"features": dict.fromkeys(extras["features"], "0" * 64)}
    with pytest.raises(TrainingProblem, match=r"gpu_memory_gb is 48, and NVIDIA A100 has 40.0"):
        run(settings.replace(gpu_memory_gb=48), {**extras, **unknown_digests}, device="cuda")


def test_a_step_with_accelerators_is_refused_without_them_before_any_row_is_read(
    settings: Settings, extras: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    unknown_digests = {"features": dict.fromkeys(extras["features"], "0" * 64)}
    with pytest.raises(TrainingProblem, match="finds no CUDA device here"):
        run(settings, {**extras, **unknown_digests}, device="cuda")
    ledgers = Ledgers(settings.root, "tiny")
    ((_, attempt),) = ledgers.records(naming.ATTEMPTS)
    assert (attempt["reason"], attempt["steps_done"]) == ("code", 0)
    assert "finds no CUDA device here" in attempt["said"]
    assert ledgers.read(naming.CHECKPOINTS, extras["fingerprint"]) is None


@pytest.mark.costly
def test_a_training_in_mixed_precision_is_marked_and_gives_another_model(settings: Settings, extras: dict[str, Any]):
    exact = run(settings, extras)
    mixed = run(settings, extras, fingerprint="1" * 64, precision="bfloat16")
    assert [(item["device"], item["precision"]) for item in (exact, mixed)] == [("cpu", "float32"), ("cpu", "bfloat16")]
    first, second = (ArtifactStore(settings.root).get_json(item["checkpoint"]) for item in (exact, mixed))
    assert second["computed"] == {"device": "cpu", "precision": "bfloat16"}
    assert first["weights"] != second["weights"]
    assert first["learned"] == second["learned"]


def test_missing_extras_are_named() -> None:
    with pytest.raises(ValueError, match="without cutoff, fingerprint, device"):
        train.Job.from_extras(
            {"product": "tiny", "training_keys": [], "holdout_keys": [], "features": {}, "outcomes": {}}
        )
