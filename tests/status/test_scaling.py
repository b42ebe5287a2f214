"""What keeps a service from scaling or outliving a node; `tests/cluster/test_status_scaling.py` asks a real cluster."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_assets import naming
from platform_assets.facts.service_memory import needed_bytes
from platform_assets.handle import Product
from platform_assets.settings import Settings
from platform_assets.status import pods, scaling
from platform_assets.status.pods import Snapshot
from platform_assets.storage.ledgers import Ledgers
from tests.doubles import models
from tests.doubles.shipped import SPEC

NAME, AT = "driftline-recorded", datetime(2026, 3, 1, 12, tzinfo=UTC)
ABSENT = (
    "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for "
    "resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource "
    "(get pods.metrics.k8s.io)"
)
EMPTY = "unable to get metrics for resource cpu: no metrics returned from resource metrics API"


@pytest.fixture
def product(tmp_path: Path) -> Product:
    settings = Settings(root=str(tmp_path / "store"), state=tmp_path / "state", launcher="kubernetes")
    product = Product(replace(SPEC), settings)
    digest = product.artifacts.write_bundle({"model.onnx": bytes(20 * 1024**2)}, {"product": SPEC.name})
    Ledgers(settings.root, SPEC.name).append(naming.RELEASES, models.release_record(1, digest, product=SPEC.name))
    return product


def messages(product: Product, **seen: Any) -> list[str]:
    todo = pods.judge(
        product, Snapshot(**{"deployments": [deployment()], "pods": [], "quotas": None, "at": AT, **seen})
    )
    assert all(one.about == "service" and one.steps for one in todo)
    return [one.what for one in todo]


def deployment(memory: str = "1Gi", **status: Any) -> dict[str, Any]:
    container = {"name": "service", "resources": {"limits": {"memory": memory}}}
    spec = {"replicas": 2, "template": {"spec": {"containers": [container]}}}
    return {"metadata": {"name": NAME}, "spec": spec, "status": status}


def scaler(reason: str = "FailedGetResourceMetric", message: str = ABSENT, minutes: float = 0.0) -> dict[str, Any]:
    since = (AT - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    active = {"type": "ScalingActive", "status": "False", "reason": reason, "message": message}
    return {
        "metadata": {"name": NAME},
        "status": {"currentReplicas": 2, "conditions": [active | {"lastTransitionTime": since}]},
    }


def pod(node: str, is_ready: bool = True, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if is_ready else "False"}]
    return {
        "metadata": {"name": f"a-{node}"},
        "spec": {"nodeName": node},
        "status": {"conditions": conditions} | status,
    }


def lost(count: int, first_minutes: float, last_minutes: float, node: str = "node-2") -> dict[str, Any]:
    first, last = ((AT - timedelta(minutes=ago)).isoformat() for ago in (first_minutes, last_minutes))
    event = {"involvedObject": {"kind": "Node", "name": node}, "reason": "NodeNotReady", "count": count}
    return event | {"firstTimestamp": first, "lastTimestamp": last}


def test_a_sound_service_needs_nothing(product: Product) -> None:
    fine = {"metadata": {"name": NAME}, "status": {"conditions": [{"type": "ScalingActive", "status": "True"}]}}
    assert messages(product, autoscalers=[fine], lost=[], pods=[pod("node-1"), pod("node-2")]) == []


def test_an_autoscaler_without_a_metrics_api_is_named_at_once(product: Product) -> None:
    (sentence,) = messages(product, autoscalers=[scaler()])
    assert sentence.startswith(
        f"The autoscaler of {NAME} has no readings and keeps 2 replicas under any load (FailedGet"
    )
    assert sentence.endswith("The cluster does not serve these metrics: install metrics-server.")


def test_readings_that_are_missing_for_minutes_are_named_and_first_ones_are_waited_for(product: Product) -> None:
    assert messages(product, autoscalers=[scaler(message=EMPTY, minutes=1)]) == []
    (sentence,) = messages(product, autoscalers=[scaler(message=EMPTY, minutes=3)])
    assert "Check what serves these metrics (metrics-server for CPU)" in sentence
    (sentence,) = messages(product, autoscalers=[scaler("FailedGetPodsMetric", "no custom metrics API", minutes=3)])
    assert "(FailedGetPodsMetric: no custom metrics API)" in sentence


def test_a_scaler_that_was_switched_off_is_not_reported(product: Product) -> None:
    assert messages(product, autoscalers=[scaler("ScalingDisabled", "scaling is disabled", minutes=9)]) == []


@pytest.mark.parametrize(("limit", "is_named"), [("256Mi", True), ("0.5G", True), ("2Gi", False), ("", False)])
def test_a_limit_below_the_models_memory_is_named(product: Product, limit: str, is_named: bool) -> None:
    live = product.history.live()
    assert live is not None
    needed = needed_bytes(product, live[1])
    assert needed == pytest.approx(4 * 128 * 1024**2 + 3 * scaling_share() * 20 * 1024**2)
    sentences = messages(product, deployments=[deployment(limit)])
    assert len(sentences) == is_named
    if is_named:
        assert sentences[0].startswith(f"{NAME} limits a pod's memory to {limit}, and the model of release 1 needs ")
        assert f"needs {needed / 1024**3:.2f} GB" in sentences[0]
        assert "Raise Pods.memory_gb of recorded" in sentences[0]


def scaling_share() -> float:
    from platform_assets.serving.candidate import SHARE_OF_BLOBS

    return SHARE_OF_BLOBS


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("1Gi", 1024**3),
        ("512Mi", 512 * 1024**2),
        ("1G", 1e9),
        ("100000", 1e5),
        ("1e9", 1e9),
        ("900m", 0.9),
        ("x", None),
    ],
)
def test_quantities_are_read_as_kubernetes_writes_them(quantity: str, number: float | None) -> None:
    assert scaling.bytes_of(quantity) == number


def test_a_stuck_rollout_says_that_the_others_answer(product: Product) -> None:
    failed = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    (sentence,) = messages(product, deployments=[deployment(readyReplicas=2, conditions=[failed])])
    assert "no new replica became ready within 600 s. Ready replicas: 2 of 2; these go on answering." in sentence


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (
            {"exitCode": 137, "reason": "OOMKilled"},
            "it needed more memory than its limit: raise Pods.memory_gb in the product's file",
        ),
        (
            {"exitCode": 1, "reason": "Error", "message": "x\nno model\n"},
            "started 3 times, and ended last with: no model.",
        ),
        (
            {"exitCode": 143, "reason": "Error"},
            "container service was started 3 times, and ended last with: exit code 143.",
        ),
    ],
)
def test_a_replica_that_is_started_again_and_again_is_named(product: Product, last: Any, words: str) -> None:
    status = {"name": "service", "restartCount": 2, "started": False, "ready": False, "state": {"running": {}}}
    again = pod("node-1", is_ready=False, containerStatuses=[status | {"lastState": {"terminated": last}}])
    (sentence,) = messages(product, pods=[again])
    assert sentence.startswith("Pods of recorded never become ready: ") and words in sentence
    status["restartCount"] = 1
    once = pod("node-1", is_ready=False, containerStatuses=[status | {"lastState": {"terminated": last}}])
    assert messages(product, pods=[once]) == []


def test_a_spread_that_cannot_be_met_is_distinguished_from_too_few_cores(product: Product) -> None:
    message = "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    (sentence,) = messages(product, pods=[{"metadata": {"name": "a"}, "status": {"conditions": [condition]}}])
    assert sentence.startswith(f"Pods of recorded find no node that keeps them apart: {message} Add nodes")
    assert "whenUnsatisfiable: ScheduleAnyway" in sentence


def test_replicas_that_share_a_node_are_named(product: Product) -> None:
    (sentence,) = messages(product, pods=[pod("node-1"), pod("node-1")])
    assert sentence.startswith("All 2 ready pods of recorded are on node node-1, so its loss is an outage")
    assert "see that another node has room for one, then restart them" in sentence
    assert messages(product, pods=[pod("node-1")]) == []
    assert messages(product, pods=[pod("node-1"), pod("node-1"), pod("node-2")]) == []
    assert messages(product, pods=[pod("node-1"), pod("node-1", is_ready=False)]) == []


def test_a_node_that_comes_and_goes_is_named(product: Product) -> None:
    (sentence,) = messages(product, lost=[lost(4, 3.0, 1.0)])
    assert sentence.startswith("Node node-2 was lost 4 times within 2 min and came back: replicas of recorded there")
    (sentence,) = messages(product, lost=[lost(1, 3.0, 3.0), lost(1, 2.0, 2.0), lost(1, 1.0, 1.0)])
    assert "was lost 3 times within 2 min" in sentence


@pytest.mark.parametrize(
    "events",
    [
        [lost(2, 3.0, 1.0)],
        [lost(9, 55.0, 20.0)],
        [lost(3, 50.0, 1.0)],
        [lost(2, 3.0, 1.0, "node-1"), lost(2, 3.0, 1.0)],
        [{"involvedObject": {"name": "node-1"}, "count": 9}],
    ],
    ids=["twice", "long ago", "thrice in an hour", "two nodes", "without times"],
)
def test_a_node_that_was_lost_now_and_then_is_not(product: Product, events: list[Any]) -> None:
    assert messages(product, lost=events) == []


def test_what_may_not_be_listed_is_not_judged(product: Product) -> None:
    assert messages(product, autoscalers=None, lost=None) == []
