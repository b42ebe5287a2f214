"""What keeps a cluster from running a step is reported in one sentence, before anything is created."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kubernetes import client

from platform_assets.kubernetes.launcher import KubernetesLauncher
from platform_assets.kubernetes.manifest import Manifest
from platform_assets.launch.attempt import Launched
from platform_assets.launch.endings import Ending
from platform_assets.launch.launchers import StepFailure
from tests.cluster.accounts import RUN, STEP, write_kubeconfig
from tests.cluster.launching import Launching
from tests.cluster.pods import manifest
from tests.cluster.step_runs import StepRuns
from tests.cluster.waiting import wait_until


def nothing_was_started(launches: Launching) -> bool:
    return not launches.core.list_namespaced_pod(launches.namespace).items


def set_role(launches: Launching, rules: list[dict[str, object]]) -> None:
    api = client.RbacAuthorizationV1Api(launches.core.api_client)
    api.patch_namespaced_role(RUN, launches.namespace, {"rules": rules})


def test_all_rights_that_are_missing_are_named_at_once(launches: Launching) -> None:
    set_role(launches, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "list"]}])
    ended = launches.run("report")
    missing = "delete pods, get pods, watch pods, get pods/log"
    expected = f"The account of this run may not {missing} in namespace {launches.namespace}; deploy/kubernetes"
    assert expected in ended.error
    assert (ended.records, nothing_was_started(launches)) == ([], True)


def test_an_unreachable_api_server_is_reported(launches: Launching) -> None:
    configuration = client.Configuration(host="https://10.244.255.1:1")
    configuration.ssl_ca_cert = launches.core.api_client.configuration.ssl_ca_cert
    configuration.api_key = {"authorization": "Bearer nothing"}
    write_kubeconfig(launches.folder / "nowhere", configuration)
    ended = launches.run("report", patience_s=3.0, KUBECONFIG=str(launches.folder / "nowhere"))
    assert "the Kubernetes API did not answer" in ended.error
    assert "10.244.255.1" in ended.error
    assert "run this asset again" in ended.error
    assert ended.records == []


def test_a_missing_kubeconfig_is_reported(launches: Launching) -> None:
    ended = launches.run("report", KUBECONFIG="/nowhere/kubeconfig")
    assert "no Kubernetes cluster is configured" in ended.error
    assert "set KUBECONFIG" in ended.error
    assert ended.records == []


def test_a_profile_that_the_cluster_refuses_is_reported_before_any_attempt(launches: Launching) -> None:
    limit = {"type": "Container", "max": {"memory": "100M"}}
    launches.core.create_namespaced_limit_range(
        launches.namespace, {"metadata": {"name": "small"}, "spec": {"limits": [limit]}}
    )
    ended = launches.run("report")
    assert "The cluster refuses a pod of profile cpu_small: 403 Forbidden" in ended.error
    assert "maximum memory usage per Container is 100M" in ended.error
    assert (ended.records, nothing_was_started(launches)) == ([], True)


def test_the_message_of_an_admission_policy_is_reported_before_any_attempt(launches: Launching, shell: str) -> None:
    api = client.AdmissionregistrationV1Api(launches.core.api_client)
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    needs_limit = "object.spec.containers.all(c, has(c.resources.limits) && 'cpu' in c.resources.limits)"
    name, here = launches.namespace, {"matchLabels": {"kubernetes.io/metadata.name": launches.namespace}}
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": needs_limit, "message": "every container needs a limit of CPU"}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": here}}
    api.create_validating_admission_policy({"metadata": {"name": name}, "spec": policy})
    try:
        api.create_validating_admission_policy_binding({"metadata": {"name": name}, "spec": binding})
        wait_until(lambda: is_refused(launches, shell), 60, "the policy counts")
        ended = launches.run("report")
    finally:
        api.delete_validating_admission_policy_binding(name)
        api.delete_validating_admission_policy(name)
    assert "The cluster refuses a pod of profile cpu_small: 422" in ended.error
    assert "every container needs a limit of CPU" in ended.error
    assert (ended.records, nothing_was_started(launches)) == ([], True)


def is_refused(launches: Launching, image: str) -> bool:
    """Return whether a pod without a limit of CPU is refused."""
    pod = manifest("probe", image, "exit 0")
    pod["spec"]["containers"][0]["resources"] = {}
    try:
        launches.core.create_namespaced_pod(launches.namespace, pod, dry_run="All")
    except client.ApiException:
        return True
    return False


class Privileged(KubernetesLauncher):
    """Asks for the processes of the node once it comes to it."""

    def _create(self, new: Manifest, launched: Launched) -> Ending | None:
        new["spec"]["hostPID"] = True
        return super()._create(new, launched)


def test_a_refusal_by_pod_security_ends_the_step_at_once_unpaid(runs: StepRuns) -> None:
    with pytest.raises(StepFailure, match=r"it was not admitted.*403 Forbidden.*violates PodSecurity") as failure:
        runs.run("well", launcher=runs.launcher(Privileged))
    assert failure.value.kind == "admission"
    assert [(record["reason"], record["cost_usd"]) for record in runs.records()] == [("admission", 0.0)]
    runs.wait_until_empty()


def test_a_service_account_that_is_late_is_waited_for(launches: Launching) -> None:
    launches.core.delete_namespaced_service_account(STEP, launches.namespace)
    run = launches.start("report")
    run.wait_for("error looking up service account")
    launches.core.create_namespaced_service_account(launches.namespace, {"metadata": {"name": STEP}})
    ended = run.ended()
    assert not ended.error
    assert ended.reasons == ["finished"]


def test_an_image_missing_from_the_registry_is_reported_and_costs_nothing(launches: Launching) -> None:
    name = launches.steps.environment["DRIFTLINE_TRAINER_IMAGE"].partition("@")[0]
    ended = launches.run("report", DRIFTLINE_TRAINER_IMAGE=f"{name}@sha256:{'0' * 64}")
    assert "its image could not be pulled" in ended.error
    assert "not found" in ended.error
    assert {(record["reason"], record["cost_usd"]) for record in ended.records} == {("image", 0.0)}
    launches.steps.wait_until_empty()


QUOTA = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}}


@pytest.mark.long
def test_a_full_quota_is_waited_for_as_long_as_a_full_cluster(launches: Launching) -> None:
    launches.core.create_namespaced_resource_quota(launches.namespace, QUOTA)
    wait_until(
        lambda: bool(launches.core.read_namespaced_resource_quota("full", launches.namespace).status.hard),
        60,
        "the quota counts",
    )
    run = launches.start("report", profile={"schedule_timeout_s": 90.0})
    run.wait_for("waiting at most 90 s for the quota")
    time.sleep(60)  # well beyond the 30 s for which other refusals are retried
    launches.core.delete_namespaced_resource_quota("full", launches.namespace)
    ended = run.ended()
    assert not ended.error
    assert ended.reasons == ["finished"]


def test_a_quota_that_stays_full_ends_the_step_once(launches: Launching) -> None:
    launches.core.create_namespaced_resource_quota(launches.namespace, QUOTA)
    ended = launches.run("report", profile={"schedule_timeout_s": 10.0})
    assert "the Kubernetes API did not create the pod for 10 s: 403 Forbidden" in ended.error
    assert "exceeded quota: full" in ended.error
    assert [(record["reason"], record["cost_usd"]) for record in ended.records] == [("admission", 0.0)]


@contextmanager
def patched_in_a_loop(launches: Launching) -> Iterator[None]:
    """Change a quota all the time: creations that it counts meet conflicts."""
    quota = {"metadata": {"name": "busy"}, "spec": {"hard": {"pods": "10"}}}
    launches.core.create_namespaced_resource_quota(launches.namespace, quota)
    is_over = threading.Event()

    def patch() -> None:
        number = 10
        while not is_over.is_set():
            number += 1
            change = {"spec": {"hard": {"pods": str(number)}}}
            launches.core.patch_namespaced_resource_quota("busy", launches.namespace, change)

    threads = [threading.Thread(target=patch, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    yield
    is_over.set()
    for thread in threads:
        thread.join()


def test_a_quota_that_is_being_changed_only_delays_the_step(launches: Launching) -> None:
    with patched_in_a_loop(launches):
        run = launches.start("report")
        run.wait_for("runs as pod")
    ended = run.ended()
    assert not ended.error
    assert ended.reasons == ["finished"]


def test_a_dead_webhook_is_asked_again(launches: Launching) -> None:
    api = client.AdmissionregistrationV1Api(launches.core.api_client)
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    webhook = {
        "name": "pods.example.com",
        "clientConfig": {"url": "https://10.244.255.1:1/"},
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 2,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": launches.namespace}},
    }
    api.create_validating_webhook_configuration({"metadata": {"name": launches.namespace}, "webhooks": [webhook]})
    try:
        run = launches.start("report")
        run.wait_for("failed calling webhook")
    finally:
        api.delete_validating_webhook_configuration(launches.namespace)
    ended = run.ended()
    assert not ended.error
    assert ended.reasons == ["finished"]
