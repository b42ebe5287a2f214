"""Pods as tests need them, and what became of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes import client, watch

from tests.cluster.waiting import wait_until

PATIENCE_S = 240.0
GRACE_S = 2
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

Manifest = dict[str, Any]


def manifest(name: str, image: str, script: str, *, memory: str = "64Mi", **spec: Any) -> Manifest:
    """Return a pod that runs a shell script once, as Pod Security "restricted" demands; `spec` overrides its spec."""
    resources = {"requests": {"cpu": "50m", "memory": memory}, "limits": {"cpu": "500m", "memory": memory}}
    container = {"name": "main", "image": image, "args": [script], "resources": resources, "securityContext": SECURITY}
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "containers": [container],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_S,
            "securityContext": security,
            "automountServiceAccountToken": False,
        }
        | spec,
    }


@dataclass(frozen=True)
class Pods:
    api: client.CoreV1Api
    namespace: str

    def create(self, pod: Mapping[str, Any]) -> str:
        self.api.create_namespaced_pod(self.namespace, dict(pod))
        return str(pod["metadata"]["name"])

    def read(self, name: str) -> Any:
        return self.api.read_namespaced_pod(name, self.namespace)

    def exists(self, name: str) -> bool:
        return any(pod.metadata.name == name for pod in self.api.list_namespaced_pod(self.namespace).items)

    def log(self, name: str) -> str:
        # As bytes: the client turns a log into the text of a bytes literal, b'...'.
        answer = self.api.read_namespaced_pod_log(name, self.namespace, _preload_content=False)
        return str(answer.data.decode("utf-8"))

    def wait_for_phase(self, name: str, *phases: str) -> Any:
        pods = []

        def is_there() -> bool:
            pods.append(self.read(name))
            return pods[-1].status.phase in phases

        wait_until(is_there, PATIENCE_S, f"pod {name} is {' or '.join(phases)}", lambda: self.describe(name))
        return pods[-1]

    def wait_for_end(self, name: str) -> Any:
        """Return the terminated state of the pod's only container."""
        pod = self.wait_for_phase(name, "Succeeded", "Failed")
        return pod.status.container_statuses[0].state.terminated

    def wait_until_running(self, name: str) -> Any:
        return self.wait_for_phase(name, "Running")

    def wait_until_ready(self, name: str) -> Any:
        self.wait_for_condition(name, "Ready", "True")
        return self.read(name)

    def wait_for_condition(self, name: str, type_: str, status: str) -> Any:
        """Return the pod's condition of a type once it has a status."""

        def matching() -> list[Any]:
            conditions = self.read(name).status.conditions or []
            return [condition for condition in conditions if (condition.type, condition.status) == (type_, status)]

        wait_until(lambda: bool(matching()), PATIENCE_S, f"{type_} of {name} is {status}", lambda: self.describe(name))
        return matching()[0]

    def wait_until_gone(self, name: str) -> None:
        wait_until(lambda: not self.exists(name), PATIENCE_S, f"pod {name} is gone", lambda: self.describe(name))

    def wait_for_reason(self, name: str, *reasons: str) -> Any:
        """Return the waiting state of the pod's only container once its reason is one of `reasons`."""
        states = []

        def is_waiting() -> bool:
            status = (self.read(name).status.container_statuses or [None])[0]
            states.append(status.state.waiting if status else None)
            return states[-1] is not None and states[-1].reason in reasons

        wait_until(is_waiting, PATIENCE_S, f"pod {name} waits with {reasons}", lambda: self.describe(name))
        return states[-1]

    def ends_until_deleted(self, name: str) -> list[Any]:
        """Return the terminated states of a pod's only container that were visible until the pod was gone."""
        version = self.read(name).metadata.resource_version
        ends: list[Any] = []
        for event in watch.Watch().stream(
            self.api.list_namespaced_pod,
            self.namespace,
            field_selector=f"metadata.name={name}",
            resource_version=version,
            timeout_seconds=int(PATIENCE_S),
        ):
            terminated = event["object"].status.container_statuses[0].state.terminated
            if event["type"] == "DELETED":
                return ends
            if terminated and terminated not in ends:
                ends.append(terminated)
        raise TimeoutError(f"pod {name} was not deleted within {PATIENCE_S:g} s\n{self.describe(name)}")

    def describe(self, name: str) -> str:
        events = self.api.list_namespaced_event(self.namespace, field_selector=f"involvedObject.name={name}").items
        lines = [f"{event.reason}: {event.message}" for event in events]
        status = self.read(name).to_dict()["status"] if self.exists(name) else "not there"
        return "\n".join([f"status: {status}", *lines])
