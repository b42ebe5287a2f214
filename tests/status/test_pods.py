"""What is wrong with a service, from what Kubernetes reports; `tests/cluster/test_services.py` asks a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from platform_assets import naming, status
from platform_assets.handle import Product
from platform_assets.settings import Settings
from platform_assets.status import pods
from platform_assets.status.pods import Snapshot
from platform_assets.status.state import Pods
from platform_assets.storage.ledgers import Ledgers
from tests.doubles import documents
from tests.doubles.shipped import SPEC

NAME = "driftline-recorded"
QUOTAS: list[object] = [{"metadata": {"name": "runs"}}]
DEPLOYMENT = {"metadata": {"name": NAME}, "spec": {"replicas": 2}, "status": {"readyReplicas": 1}}
DIGEST = f"registry.example/service@sha256:{'a' * 64}"


@pytest.fixture
def product(tmp_path: Path) -> Product:
    settings = Settings(root=str(tmp_path / "store"), state=tmp_path / "state", launcher="kubernetes")
    Ledgers(settings.root, SPEC.name).append(naming.RELEASES, documents.release())
    return Product(SPEC, settings)


def pod(name: str = f"{NAME}-5d9c-abcde", **states: Any) -> dict[str, Any]:
    """Return a pod whose init container has ended well, and whose service has a state."""
    done = {"name": "fetch", "image": DIGEST, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
    status: dict[str, Any] = {"initContainerStatuses": [done], **states}
    return {"metadata": {"name": name}, "status": status}


def service(**members: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "service", "image": DIGEST, "started": True, "ready": True, **members}]}


def fetch(**members: Any) -> dict[str, Any]:
    return {"initContainerStatuses": [{"name": "fetch", "image": DIGEST, **members}]}


def messages(product: Product, *running: object, **snapshot: Any) -> list[str]:
    """Return the sentences."""
    todo = pods.judge(
        product, Snapshot(**{"deployments": [DEPLOYMENT], "pods": list(running), "quotas": QUOTAS, **snapshot})
    )
    assert all(one.about == "service" and one.steps for one in todo)
    return [one.what for one in todo]


def test_pods_that_serve_or_are_about_to_need_nothing(product: Product) -> None:
    starting = pod(**service(state={"running": {}}, started=False, ready=False))
    pulling = pod(**fetch(state={"waiting": {"reason": "PodInitializing"}}))
    assert messages(product, pod(**service(state={"running": {}})), starting, pulling) == []
    assert pods.pod_counts(Snapshot([DEPLOYMENT], [], None)) == Pods(ready=1, expected=2, deployments=1)


def test_an_image_that_is_not_there_is_named_once(product: Product) -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{DIGEST}": not found'}}
    (sentence,) = messages(product, pod("a", **fetch(state=waiting)), pod("b", **fetch(state=waiting)))
    assert sentence.startswith(f"Pods of recorded cannot get the image {DIGEST} (not found): push it, or set")
    assert sentence.endswith(
        "or set DRIFTLINE_SERVICE_IMAGE to one that is in the registry and apply the manifest again."
    )


@pytest.mark.parametrize("is_waiting", [True, False])
def test_the_last_message_of_the_init_container_is_quoted(product: Product, is_waiting: bool) -> None:
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": "fetch: the bucket s3://x does not exist.\n"}}
    states = {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}, "lastState": ended}
    (sentence,) = messages(product, pod(**fetch(**(states if is_waiting else {"state": ended}))))
    assert sentence == "Pods of recorded fail in container fetch: fetch: the bucket s3://x does not exist."


def test_a_config_map_that_is_missing_is_named(product: Product) -> None:
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": 'configmap "driftline" not found'}}
    (sentence,) = messages(product, pod(**fetch(state=waiting)))
    assert (
        sentence == 'Pods of recorded cannot start: configmap "driftline" not found; create it in namespace driftline.'
    )


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (
            {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "driftline-postgres" not found'}},
            (
                'Pods of driftline-daemon cannot start: secret "driftline-postgres" not found; create it in namespace '
                "driftline."
            ),
        ),
        (
            {"waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{DIGEST}": not found'}},
            (
                f"Pods of driftline-daemon cannot get the image {DIGEST} (not found): push it, or write one that is in "
                "the registry into the overlay and apply it again."
            ),
        ),
        (
            {"terminated": {"exitCode": 1, "reason": "Error"}},
            "Pods of driftline-daemon fail in container daemon: Error, exit code 1.",
        ),
        (
            {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            (
                "Pods of driftline-daemon fail in container daemon: it needed more memory than its limit: raise its "
                "memory limit in the overlay and apply it again."
            ),
        ),
        (
            {
                "waiting": {
                    "reason": "RunContainerError",
                    "message": 'exec: "dagster": executable file not found in $PATH',
                }
            },
            (
                'Pods of driftline-daemon cannot start: exec: "dagster": executable file not found in $PATH. Check the '
                "command of its image, and what its environment and volumes name."
            ),
        ),
        (
            {
                "waiting": {
                    "reason": "CreateContainerConfigError",
                    "message": "couldn't find key PASSWORD in Secret driftline/driftline-postgres",
                }
            },
            (
                "Pods of driftline-daemon cannot start: couldn't find key PASSWORD in Secret "
                "driftline/driftline-postgres. Check the command of its image, and what its environment and volumes "
                "name."
            ),
        ),
    ],
)
def test_the_platforms_own_pods_that_do_not_run_are_named(product: Product, state: Any, expected: str) -> None:
    labels = {"app.kubernetes.io/component": "daemon"}
    status = {"containerStatuses": [{"name": "daemon", "image": DIGEST, "state": state}]}
    daemon = {"metadata": {"name": "driftline-daemon-1", "labels": labels}, "status": status}
    assert messages(product, platform=[daemon, daemon]) == [expected]
    running = {"containerStatuses": [{"name": "daemon", "image": DIGEST, "state": {"running": {}}}]}
    assert messages(product, platform=[daemon | {"status": running}]) == []


def test_a_step_that_cannot_start_is_named(product: Product) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes: cpu"}
    step = {"metadata": {"name": "recorded-train-1", "labels": {"driftline/step": "train"}}}
    waiting = step | {"status": {"phase": "Pending", "conditions": [condition]}}
    (sentence,) = messages(product, work=[waiting])
    assert sentence == (
        "Step train of recorded waits for a node: 0/2 nodes: cpu. Add nodes, free some of what they have, or set cores "
        "and memory_gb of its profile lower."
    )
    states = {"waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{DIGEST}": not found'}}
    image = {"phase": "Pending", "containerStatuses": [{"name": "step", "image": DIGEST, "state": states}]}
    (sentence,) = messages(product, work=[step | {"status": image}])
    assert sentence.startswith(f"Step train of recorded cannot get the image {DIGEST} (not found): push it, or write")
    assert messages(product, work=[step | {"status": {"phase": "Running"}}]) == []


def test_before_the_first_release_only_the_platform_and_its_namespace_are_judged(
    product: Product, tmp_path: Path
) -> None:
    empty = Product(SPEC, product.settings.replace(root=str(tmp_path / "empty")))
    assert messages(empty, deployments=[], quotas=QUOTAS) == []
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "driftline-store" not found'}}
    daemon = {
        "metadata": {"name": "driftline-daemon-1", "labels": {"app.kubernetes.io/component": "daemon"}},
        "status": {"containerStatuses": [{"name": "daemon", "image": DIGEST, "state": waiting}]},
    }
    (sentence,) = messages(empty, deployments=[], platform=[daemon])
    assert sentence.startswith('Pods of driftline-daemon cannot start: secret "driftline-store" not found')


def test_too_little_memory_and_no_node_name_the_field(product: Product) -> None:
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    (sentence,) = messages(product, pod(**service(ready=False, state={"waiting": {}}, lastState=killed)))
    assert "needed more memory than its limit: raise Pods.memory_gb" in sentence
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes: cpu"}
    (sentence,) = messages(product, {"metadata": {"name": "a"}, "status": {"conditions": [condition]}})
    assert sentence.startswith("Pods of recorded find no node: 0/2 nodes: cpu. Add nodes, or lower Pods.cores")


def test_a_pod_that_runs_and_is_not_ready_leads_to_its_page(product: Product) -> None:
    snapshot = Snapshot([DEPLOYMENT], [pod("a", **service(state={"running": {}}, ready=False))], QUOTAS)
    (todo,) = pods.judge(product, snapshot)
    assert todo.what == "Pods of recorded run and are not ready; /readyz says why."
    assert todo.steps[0].command == "kubectl get --raw /api/v1/namespaces/driftline/pods/a:3001/proxy/readyz"


def test_pods_that_are_not_even_created_are_explained(product: Product) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": "pods is forbidden: exceeded quota"}
    refused = DEPLOYMENT | {"status": {"conditions": [failure]}}
    (sentence,) = messages(product, deployments=[refused])
    assert sentence == f"Kubernetes refuses to create pods of {NAME}: pods is forbidden: exceeded quota."


def test_no_deployment_and_two_are_named(product: Product) -> None:
    assert messages(product, deployments=[]) == ["Namespace driftline has no Deployment that serves recorded."]
    (sentence,) = messages(product, deployments=[DEPLOYMENT, {"metadata": {"name": "another"}}])
    assert sentence.startswith("recorded is served by 2 Deployments, driftline/another, driftline/driftline-recorded: ")


def test_a_namespace_without_quota_is_named_and_one_that_may_not_be_looked_at_is_not(product: Product) -> None:
    (sentence,) = messages(product, quotas=[])
    assert sentence.startswith("Namespace driftline has no ResourceQuota, so runs and steps may take all that its")
    assert messages(product, quotas=None) == []


def test_without_a_cluster_the_pods_are_unknown(
    product: Product, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "absent"))
    text = status.as_text(status.of_product(product))
    assert "  pods       unknown: no Kubernetes cluster is configured: " in text
    assert "  service    each pod counts its own requests: driftline_requests_total in its /metrics" in text
