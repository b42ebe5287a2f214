"""Say why Kubernetes does not run a product's service, or the platform: what Deployments, pods and quotas report.

`read` sends seven requests, and `judge` reads no cluster. Without a cluster, or the right to look, the status says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from platform_assets.problems import Problem
from platform_assets.records.values import items, member, text
from platform_assets.serving.shipping import deployments_problem
from platform_assets.status import scaling
from platform_assets.status.state import Pods, Step, Todo
from platform_assets.status.steps import apply, as_line, condition, kubectl, service_todo

if TYPE_CHECKING:
    from platform_assets.handle import Product

TIMEOUT_S = (3.0, 5.0)
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
SPREAD = "didn't match pod topology spread constraints"
"""Part of the scheduler's message when the spread rules leave no node."""
RESTARTS = 2
"""From this many on, restarts point to the container and not to its node."""
NODE_EVENTS, LOST = "default", "involvedObject.kind=Node,reason=NodeNotReady"
"""The namespace of nodes' events, and which of them say that a node was lost: of the node controller or the kubelet."""
_TOO_LITTLE = "it needed more memory than its limit"
STEP = "driftline/step"
COMPONENT = "app.kubernetes.io/component"
PLATFORM = f"app.kubernetes.io/part-of=driftline,{COMPONENT} in (code,daemon,webserver,webserver-read-only)"
_NO_CONTAINER = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class _Fixes:
    """What to do about pods of one kind whose image or memory is wrong."""

    image: str
    memory: str


_SERVICE = _Fixes(
    image="set DRIFTLINE_SERVICE_IMAGE to one that is in the registry and apply the manifest again.",
    memory="raise Pods.memory_gb in the product's file and apply the manifest again.",
)
_PLATFORM = _Fixes(
    image="write one that is in the registry into the overlay and apply it again.",
    memory="raise its memory limit in the overlay and apply it again.",
)
_STEP = _Fixes(image=_PLATFORM.image, memory="raise memory_gb of its profile.")


class Unknown(Problem):
    """Kubernetes could not be asked, or refused."""


@dataclass(frozen=True)
class Snapshot:
    """What Kubernetes reported, as JSON, and when; None where something may not be listed.

    Attributes:
        autoscalers: of the product's service.
        lost: events of nodes that were not ready any more, of the last hour.
        platform: the platform's own pods.
        work: pods of the product's steps.
    """

    deployments: list[object]
    pods: list[object]
    quotas: list[object] | None
    autoscalers: list[object] | None = None
    lost: list[object] | None = None
    platform: list[object] | None = None
    work: list[object] | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


def read(product: Product) -> Snapshot:
    """Ask Kubernetes, with the account of this pod or of the kubeconfig.

    Raises:
        Unknown: no cluster is configured, it does not answer, or it refuses.
    """
    from kubernetes import client

    from resources.launchers.api import ApiTrouble, credentials

    try:
        configuration = credentials()
    except ApiTrouble as trouble:
        raise Unknown(str(trouble)) from None
    configuration.retries = False
    namespace = product.settings.namespace
    selector = f"app.kubernetes.io/component=service,driftline/product={product.name}"
    with client.ApiClient(configuration) as api:
        deployments = _items(api, f"/apis/apps/v1/namespaces/{namespace}/deployments", labelSelector=selector)
        pods = _items(api, f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)
        quotas = _allowed(api, f"/api/v1/namespaces/{namespace}/resourcequotas")
        scalers = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
        lost = _allowed(api, f"/api/v1/namespaces/{NODE_EVENTS}/events", fieldSelector=LOST)
        platform = _allowed(api, f"/api/v1/namespaces/{namespace}/pods", labelSelector=PLATFORM)
        autoscalers = _allowed(api, scalers, labelSelector=selector)
        of_steps = f"{STEP},driftline/product={product.name}"
        work = _allowed(api, f"/api/v1/namespaces/{namespace}/pods", labelSelector=of_steps)
        return Snapshot(deployments, pods, quotas, autoscalers, lost, platform, work)


def _allowed(api: object, path: str, **query: str) -> list[object] | None:
    """Return what is listed; None where this account may not."""
    try:
        return _items(api, path, **query)
    except Unknown:
        return None


def _items(api: object, path: str, **query: str) -> list[object]:
    from kubernetes import client
    from urllib3.exceptions import HTTPError

    try:
        response = api.call_api(  # type: ignore[attr-defined]  # the client has no types
            path,
            "GET",
            {},
            list(query.items()),
            {"Accept": "application/json"},
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _preload_content=False,
            _request_timeout=TIMEOUT_S,
        )
        return items(json.loads(response.data), "items")
    except client.ApiException as error:
        reason = "this account may not list them" if error.status in (401, 403) else error.reason
        raise Unknown(f"Kubernetes answered {error.status} for {path}: {reason}") from None
    except (HTTPError, OSError, ValueError) as error:
        raise Unknown(f"the Kubernetes API did not answer: {type(error).__name__}") from None


def pod_counts(snapshot: Snapshot) -> Pods:
    """Return how many pods are ready, and how many there should be."""
    expected = sum(_number(deployment, "spec", "replicas") for deployment in snapshot.deployments)
    ready = sum(_number(deployment, "status", "readyReplicas") for deployment in snapshot.deployments)
    return Pods(ready=ready, expected=expected, deployments=len(snapshot.deployments))


def judge(product: Product, snapshot: Snapshot) -> list[Todo]:
    """Return what a person should do, one sentence each; what several pods report is said once."""
    namespace = product.settings.namespace
    names = [f"{namespace}/{text(deployment, 'metadata', 'name')}" for deployment in snapshot.deployments]
    todo = []
    if not names and product.history.live() is not None:
        what = f"Namespace {namespace} has no Deployment that serves {product.name}."
        todo.append(service_todo(what, apply(product)))
    if (problem := deployments_problem(product.name, names)) is not None:
        steps = [
            Step(when=f"if {name} should not be there", command=kubectl(product, "delete", "deployment", name))
            for name in (name.partition("/")[2] for name in sorted(names))
        ]
        todo.append(service_todo(problem, *steps))
    if snapshot.quotas == []:
        what = (
            f"Namespace {namespace} has no ResourceQuota, so runs and steps may take all that its services need to "
            "start again: apply one, such as those of deploy/kubernetes."
        )
        todo.append(service_todo(what, Step(when="to see its limits", command=kubectl(product, "get", "quota"))))
    pods = [pod for pod in snapshot.pods if member(pod, "metadata", "deletionTimestamp") is None]
    return [
        *todo,
        *_refused(product, snapshot.deployments),
        *_pods(product, pods),
        *_platform(product, snapshot.platform or []),
        *_waiting_steps(product, snapshot.work or []),
        *scaling.memory(product, snapshot.deployments),
        *scaling.stuck(product, snapshot.deployments),
        *scaling.autoscalers(product, snapshot.autoscalers or [], snapshot.at),
        *scaling.one_node(product, pods),
        *scaling.flapping(product, snapshot.lost or [], snapshot.at),
    ]


def _refused(product: Product, deployments: Iterable[object]) -> Iterator[Todo]:
    """Yield why pods are not even created: a quota, a policy, an account that is not there."""
    for deployment in deployments:
        failure = condition(deployment, "ReplicaFailure")
        if text(failure, "status") == "True":
            name = text(deployment, "metadata", "name")
            what = f"Kubernetes refuses to create pods of {name}: {as_line(text(failure, 'message'))}"
            yield service_todo(what, Step(when="to see all of it", command=kubectl(product, "describe", "rs")))


def _pods(product: Product, pods: Iterable[object]) -> list[Todo]:
    todo = dict[str, Todo]()
    for pod in pods:
        if (problem := _problem(product, pod)) is not None:
            name = text(pod, "metadata", "name")
            step = Step(when="to see all of it", command=kubectl(product, "describe", "pod", name))
            if problem.endswith("/readyz says why."):
                path = f"/api/v1/namespaces/{product.settings.namespace}/pods/{name}:3001/proxy/readyz"
                step = Step(when="to see why", command=f"kubectl get --raw {path}")
            todo.setdefault(problem, service_todo(problem, step))
    return list(todo.values())


def _problem(product: Product, pod: object) -> str | None:
    """Return why a pod does not serve, without its own name in the sentence; None if it does, or is still starting."""
    who, namespace = f"Pods of {product.name}", product.settings.namespace
    scheduled = condition(pod, "PodScheduled")
    if text(scheduled, "reason") == "Unschedulable":
        if SPREAD in text(scheduled, "message"):
            return (
                f"{who} find no node that keeps them apart: {as_line(text(scheduled, 'message'))} Add nodes, or one in "
                "each zone, or prefer the spread as `driftline manifests` does: whenUnsatisfiable: ScheduleAnyway."
            )
        return (
            f"{who} find no node: {as_line(text(scheduled, 'message'))} Add nodes, or lower Pods.cores or "
            "Pods.memory_gb in the product's file."
        )
    for status in [*items(pod, "status", "initContainerStatuses"), *items(pod, "status", "containerStatuses")]:
        if (problem := _stopped(status, who, namespace, _SERVICE)) is not None:
            return problem
        if member(status, "started") is True and member(status, "ready") is False and text(status, "name") == "service":
            return f"{who} run and are not ready; /readyz says why."
        if (restarted := _restarted(status, _SERVICE)) is not None:
            return f"{who} never become ready: {restarted}"
    return None


def _platform(product: Product, pods: Iterable[object]) -> list[Todo]:
    """Return why the platform's own pods do not run; without them nothing is taken in, trained or released."""
    todo = dict[str, Todo]()
    for pod in pods:
        who = f"Pods of driftline-{text(pod, 'metadata', 'labels', COMPONENT)}"
        for status in items(pod, "status", "containerStatuses"):
            if (problem := _stopped(status, who, product.settings.namespace, _PLATFORM)) is not None:
                command = kubectl(product, "describe", "pod", text(pod, "metadata", "name"))
                todo.setdefault(problem, service_todo(problem, Step(when="to see all of it", command=command)))
    return list(todo.values())


def _waiting_steps(product: Product, pods: Iterable[object]) -> list[Todo]:
    """Return why steps have not started; the run that waits for one says so in its log only."""
    todo = []
    for pod in pods:
        problem, who = None, f"Step {text(pod, 'metadata', 'labels', STEP)} of {product.name}"
        if text(pod, "status", "phase") != "Pending":
            continue
        if text(scheduled := condition(pod, "PodScheduled"), "reason") == "Unschedulable":
            problem = (
                f"{who} waits for a node: {as_line(text(scheduled, 'message'))} Add nodes, free some of what they "
                "have, or set cores and memory_gb of its profile lower."
            )
        for status in items(pod, "status", "containerStatuses"):
            problem = problem or _stopped(status, who, product.settings.namespace, _STEP)
        if problem is not None:
            command = kubectl(product, "describe", "pod", text(pod, "metadata", "name"))
            todo.append(service_todo(problem, Step(when="to see all of it", command=command)))
    return todo


def _stopped(status: object, who: str, namespace: str, fixes: _Fixes) -> str | None:
    """Return why a container does not run: no image, something missing that it names, or its own last words."""
    waiting = member(status, "state", "waiting")
    reason, message = text(waiting, "reason"), as_line(text(waiting, "message"))
    if reason in _NO_IMAGE:
        cause = message.rstrip(".").rpartition(": ")[2]  # what goes before repeats the image
        return f"{who} cannot get the image {text(status, 'image')} ({cause}): push it, or {fixes.image}"
    if reason in _NO_CONTAINER:
        what = f"{who} cannot start: {message.rstrip('.')}"
        if message.rstrip(".").endswith("not found") and reason == "CreateContainerConfigError":
            return f"{what}; create it in namespace {namespace}."
        return f"{what}. Check the command of its image, and what its environment and volumes name."
    if (ended := _ended(status, fixes)) is not None:
        return f"{who} fail in container {text(status, 'name')}: {ended}"
    return None


def _restarted(status: object, fixes: _Fixes) -> str | None:
    """Return how often a container was started that is being started once more, and how it ended last."""
    count = _number(status, "restartCount")
    if member(status, "started") is True or member(status, "ready") is True or count < RESTARTS:
        return None
    last = member(status, "lastState", "terminated")
    started = f"container {text(status, 'name')} was started {count + 1} times, and ended last"
    if text(last, "reason") == "OOMKilled":
        return f"{started} because {_TOO_LITTLE}: {fixes.memory}"
    line = as_line(text(last, "message").strip().rpartition("\n")[2]) or f"exit code {_number(last, 'exitCode')}."
    return f"{started} with: {line}"


def _ended(status: object, fixes: _Fixes) -> str | None:
    """Return the last words of a container that failed and is not running again."""
    if member(status, "state", "running") is not None:
        return None
    for state in ("state", "lastState"):
        terminated = member(status, state, "terminated")
        if terminated is not None and _number(terminated, "exitCode"):
            reason = text(terminated, "reason")
            if reason == "OOMKilled":
                return f"{_TOO_LITTLE}: {fixes.memory}"
            last = as_line(text(terminated, "message").strip().rpartition("\n")[2])
            return last or f"{reason}, exit code {_number(terminated, 'exitCode')}."
    return None


def _number(document: object, *path: str) -> int:
    value = member(document, *path)
    return value if isinstance(value, int) else 0
