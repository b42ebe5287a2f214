"""The trainer image in pods, and the servers that pods reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_assets.base.settings import REPOSITORY
from tests.cluster import images, trainer
from tests.cluster.accounts import STEP
from tests.cluster.pods import Pods, manifest
from tests.cluster.step_runs import StepRuns
from tests.cluster.trainer import TrainerImage
from tests.doubles.postgres_server import PostgresServer


def test_a_step_runs_in_the_trainer_image_and_its_result_comes_back(runs: StepRuns, steps: TrainerImage) -> None:
    pods_seen = []
    runs.when_ready(lambda name: (pods_seen.append(runs.pods.wait_until_running(name)), runs.marks.touch("go")))
    outcome = runs.run("hold")
    assert outcome.result == {"kind": "result", "value": 1, "root": runs.settings.root}
    assert "a line on stdout" in "\n".join(outcome.lines)
    (pod,) = pods_seen
    (status,) = pod.status.container_statuses
    assert status.image_id.endswith(steps.name.partition("@")[2])
    assert (pod.spec.service_account_name, pod.spec.automount_service_account_token) == (STEP, False)
    (record,) = runs.records()
    assert (record["reason"], record["exit_code"], record["launcher"]) == ("finished", 0, "kubernetes")
    assert (record["node"], record["host"]) == (pod.spec.node_name, pod.metadata.name)
    runs.pods.wait_until_gone(pod.metadata.name)


def test_an_image_has_the_same_digest_in_the_registry_and_is_built_once(
    built: TrainerImage, trained_in: TrainerImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert trained_in.name.partition("@")[2] == built.name.partition("@")[2]
    # Without a shell, and so without build.sh.
    (tmp_path / "podman").symlink_to(images.program("podman"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert trainer.trainer_image(REPOSITORY) == built


def test_pods_reach_postgresql(pods: Pods, shell: str, postgres: PostgresServer) -> None:
    pods.create(manifest("step", shell, f"timeout 5 bash -c '</dev/tcp/{postgres.address}/{postgres.port}'"))
    assert pods.wait_for_end("step").exit_code == 0
