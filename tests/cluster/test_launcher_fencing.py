"""An attempt that was cut off and replaced writes nothing that counts once its cable is plugged in again."""

import json
from typing import Any

import msgspec
import obstore
import pytest

from platform_assets.launch.launchers import RESULT
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.objects import open_store
from platform_assets.store.records.attempts import ATTEMPTS
from platform_assets.store.records.trainings import CHECKPOINTS, Checkpoint
from platform_assets.training.steps.state import INDEX, SaveRecord
from tests.cluster.cluster import Cluster
from tests.cluster.launching import PATIENCE_S, Launching
from tests.cluster.node import Node
from tests.cluster.step_runs import WORK, StepRuns
from tests.cluster.test_launcher_nodes import cut_off, node_of
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.long

STEP = "tests.doubles.leased_step"
PROFILE = {"memory_gb": 0.8, "grace_s": 120.0}


def fences(root: str) -> list[int]:
    """Return the leases under which the saves in the index were made, the newest first."""
    index = obstore.get(open_store(root), f"saves/{WORK.fingerprint}/{INDEX}").bytes()
    return [record.fence for record in msgspec.json.decode(bytes(index), type=list[SaveRecord])]


def own_records(root: str) -> list[dict[str, Any]]:
    """Return what the steps themselves recorded of their ends."""
    records = [record.document() for _, record in Ledgers(root, WORK.product).of(ATTEMPTS).records()]
    return [record for record in records if record["by"] == "step" and record["reason"] != "vanished"]


def checkpoint(root: str) -> Checkpoint | None:
    return Ledgers(root, WORK.product).of(CHECKPOINTS).read(WORK.fingerprint)


def reported(root: str, attempt: str) -> list[int]:
    """Return the results that an attempt has reported, whether anybody reads them or not."""
    store = open_store(root)
    names = [item["path"] for batch in obstore.list(store, f"pipes/{attempt}") for item in batch]
    lines = [line for name in names for line in bytes(obstore.get(store, name).bytes()).splitlines()]
    payloads = [
        message["params"]["payload"]
        for message in map(json.loads, lines)
        if message["method"] == "report_custom_message"
    ]
    return [payload["value"] for payload in payloads if payload["kind"] == RESULT]


def test_an_attempt_that_comes_back_from_a_partition_writes_nothing(
    cluster: Cluster, machines: list[Node], launches: Launching, runs: StepRuns
) -> None:
    root = runs.settings.root
    run = launches.start(module=STEP, profile=PROFILE)
    run.wait_for("lease 1")
    wait_until(lambda: fences(root) == [1, 1], PATIENCE_S, "the first attempt has saved twice")
    with cut_off(cluster, node_of(launches, machines)):
        run.wait_for("lease 2")
        wait_until(lambda: fences(root) == [2, 2], PATIENCE_S, "the second attempt has saved twice")
    wait_until(lambda: bool(own_records(root)), PATIENCE_S, "the first attempt has ended")
    (first,) = own_records(root)
    assert first["fence"] == 1
    assert "LeaseLost" in first["said"]
    assert "was taken by somebody else (number 2)" in first["said"], "it tried to record a result"
    assert checkpoint(root) is None
    assert fences(root) == [2, 2]
    wait_until(lambda: 1 in reported(root, first["id"]), PATIENCE_S, "the first attempt has reported a result")
    runs.marks.touch("go")
    ended = run.ended()
    assert not ended.error
    assert ended.reasons == ["node_lost", "finished"]
    assert [record["fence"] for record in own_records(root)] == [1, 2]
    assert ended.value == 2
    assert checkpoint(root) == Checkpoint(manifest="of lease 2")
