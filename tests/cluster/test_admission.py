"""An image without its digest is refused by the cluster: for pods, and for whatever has a template of one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from platform_assets.kubernetes.launcher import KubernetesLauncher
from platform_assets.kubernetes.manifest import Manifest
from platform_assets.launch.attempt import Launched
from platform_assets.launch.endings import Ending
from platform_assets.launch.launchers import StepFailure
from tests.cluster import guards
from tests.cluster.cluster import Cluster
from tests.cluster.pods import Pods, manifest
from tests.cluster.step_runs import StepRuns
from tests.cluster.waiting import wait_until

TAGGED = "registry.example/step:latest"
KINDS = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
SENTENCE = f"images must be named by digest, name@sha256:...; these are not: {TAGGED}"


@pytest.fixture
def guarded(reachable: Cluster, namespace: str, pods: Pods, tmp_path: Path) -> Iterator[Pods]:
    """This test's namespace, with the policy in force."""
    reachable.core.patch_namespace(namespace, {"metadata": {"labels": {"driftline/images": "by-digest"}}})
    with guards.applied(reachable, tmp_path, guards.objects(namespace, *KINDS)):
        wait_until(lambda: _refusal(pods, TAGGED) is not None, 60, "the policy counts")
        yield pods


def _refusal(pods: Pods, image: str, **spec: Any) -> str | None:
    try:
        pods.api.create_namespaced_pod(pods.namespace, manifest("probe", image, "exit 0", **spec), dry_run="All")
    except client.ApiException as problem:
        return str(problem.body)
    return None


def _container(image: str) -> dict[str, Any]:
    container: dict[str, Any] = manifest("x", image, "exit 0")["spec"]["containers"][0]
    return container | {"name": "second"}


def test_each_container_of_a_pod_is_looked_at(guarded: Pods, shell: str) -> None:
    assert _refusal(guarded, shell, initContainers=[_container(shell)]) is None
    assert SENTENCE in (_refusal(guarded, TAGGED) or "")
    assert SENTENCE in (_refusal(guarded, shell, initContainers=[_container(TAGGED)]) or "")
    guarded.create(manifest("whole", shell, "exit 0"))
    for image in (shell, TAGGED):
        container = _container(image)
        del container["resources"]
        change = {"spec": {"ephemeralContainers": [container]}}

        def add(change: dict[str, Any] = change) -> None:
            guarded.api.patch_namespaced_pod_ephemeralcontainers("whole", guarded.namespace, change, dry_run="All")

        if image == shell:
            add()
        else:
            with pytest.raises(client.ApiException, match="images must be named by digest"):
                add()


def test_apply_fails_for_every_template(guarded: Pods, reachable: Cluster, shell: str, tmp_path: Path) -> None:
    by_digest, tagged = (tmp_path / name for name in ("by-digest.yaml", "tagged.yaml"))
    for path, image in ((by_digest, shell), (tagged, TAGGED)):
        path.write_text(yaml.safe_dump_all(_templates(guarded.namespace, image)), encoding="utf-8")
    argv = ("apply", "--dry-run=server", "--filename")
    assert len(reachable.kubectl(*argv, str(by_digest)).splitlines()) == len(KINDS_WITH_TEMPLATE)
    with pytest.raises(RuntimeError) as failure:
        reachable.kubectl(*argv, str(tagged))
    refused = [line for line in str(failure.value).splitlines() if SENTENCE in line]
    for kind in KINDS_WITH_TEMPLATE:
        assert [line for line in refused if f'"{kind.lower()}"' in line], (kind, failure.value)


KINDS_WITH_TEMPLATE = (
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Job",
    "PodTemplate",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
)


def _templates(namespace: str, image: str) -> list[dict[str, Any]]:
    labels = {"app": "probe"}
    spec = manifest("probe", image, "exit 0")["spec"]
    once = {"metadata": {"labels": labels}, "spec": spec}
    always = {"metadata": {"labels": labels}, "spec": spec | {"restartPolicy": "Always"}}
    selected = {"selector": {"matchLabels": labels}, "template": always}
    specs: dict[str, tuple[str, dict[str, Any]]] = {
        "CronJob": ("batch/v1", {"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": once}}}}),
        "DaemonSet": ("apps/v1", {"spec": selected}),
        "Deployment": ("apps/v1", {"spec": selected}),
        "Job": ("batch/v1", {"spec": {"template": once}}),
        "PodTemplate": ("v1", {"template": once}),
        "ReplicaSet": ("apps/v1", {"spec": selected}),
        "ReplicationController": ("v1", {"spec": {"selector": labels, "template": always}}),
        "StatefulSet": ("apps/v1", {"spec": selected | {"serviceName": "probe"}}),
    }
    return [
        {"apiVersion": version, "kind": kind, "metadata": {"name": kind.lower(), "namespace": namespace}, **body}
        for kind, (version, body) in specs.items()
    ]


class Tagged(KubernetesLauncher):
    """Names an image by its tag once it comes to it."""

    def _create(self, new: Manifest, launched: Launched) -> Ending | None:
        new["spec"]["containers"][0]["image"] = TAGGED
        return super()._create(new, launched)


def test_the_launcher_gives_the_policys_sentence_and_nothing_is_paid(guarded: Pods, runs: StepRuns) -> None:
    with pytest.raises(StepFailure, match=r"it was not admitted.*images must be named by digest") as failure:
        runs.run("well", launcher=runs.launcher(Tagged))
    assert failure.value.kind == "admission"
    assert [(record["reason"], record["cost_usd"]) for record in runs.records()] == [("admission", 0.0)]
    runs.wait_until_empty()


def test_other_namespaces_are_left_alone(guarded: Pods, core: client.CoreV1Api) -> None:
    core.patch_namespace(guarded.namespace, {"metadata": {"labels": {"driftline/images": None}}})
    wait_until(lambda: _refusal(guarded, TAGGED) is None, 60, "the policy counts no more")
