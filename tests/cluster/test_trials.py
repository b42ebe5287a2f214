"""A search with three trials at once, in a namespace with room for two pods, one of which is deleted meanwhile."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from platform_assets.launch.profiles import PROFILES
from platform_assets.operations.experiments import study, tune
from tests.cluster.killing import set_slow
from tests.cluster.step_runs import STARTED_S, StepRuns
from tests.cluster.test_steps import set_quota
from tests.cluster.waiting import wait_until
from tests.doubles import tiny_product as tiny
from tests.doubles import tuned_product as tuned

TRIALS, ROOM = 4, 2
PODS = "driftline/step=trial"


def test_trials_wait_for_the_quota_and_one_that_loses_its_pod_is_repeated_alone(
    runs: StepRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    # A trial takes longer than another one waits for the quota, so that one comes back to the search.
    size = {"cores": 1, "memory_gb": 1.5, "shm_gb": 0.1, "schedule_timeout_s": 5}
    monkeypatch.setitem(PROFILES, "cpu_small", PROFILES["cpu_small"].replace(**size))
    product = tuned.product(runs.settings)
    set_slow(runs, "/")
    set_quota(runs, pods=str(ROOM))
    api, namespace = runs.pods.api, runs.pods.namespace
    most, is_over = [0], threading.Event()

    def running() -> list[str]:
        items = api.list_namespaced_pod(namespace, label_selector=PODS).items
        most[0] = max(most[0], sum(item.status.phase in ("Pending", "Running") for item in items))
        items.sort(key=lambda item: item.metadata.creation_timestamp)
        return [item.metadata.name for item in items if item.status.phase == "Running"]

    def delete() -> None:
        wait_until(lambda: len(running()) == ROOM, STARTED_S, "two trials at once")
        api.delete_namespaced_pod(running()[-1], namespace)  # the last to start: the first one may be at its end
        while not is_over.wait(0.5):
            running()

    thread = threading.Thread(target=delete, daemon=True)
    thread.start()
    out = io.StringIO()
    launcher, console = runs.launcher(), Console(file=out, width=300)
    trials = tune.run(product, tiny.CUTOFF, TRIALS, console, launcher=launcher, at_once=3)
    is_over.set()
    thread.join()
    assert [trial.state.name for trial in trials] == [study.FINISHED] * TRIALS
    assert most[0] == ROOM
    assert "exceeded quota: team" in out.getvalue()
    records = [record for record in runs.records() if record["reason"] != "admission"]
    assert sorted(record["reason"] for record in records) == ["finished"] * TRIALS + ["preempted"]
    (lost,) = (record for record in records if record["reason"] == "preempted")
    assert sum(record["fingerprint"] == lost["fingerprint"] for record in records) == 2
    assert {record["step"] for record in records} == {"trial"}
    assert all(record["cost_usd"] > 0 for record in records)
    runs.wait_until_empty()
