"""Read a pod and its node from the API's JSON, even if fields are missing, null or of another type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from platform_assets.kubernetes.manifest import CONTAINER
from platform_assets.store.records.values import items, member, text, texts

_TERMINAL = ("Succeeded", "Failed")
_UNKNOWN = "ContainerStatusUnknown"
"""When a kubelet cannot find a container any more, it reports a made-up end: exit code 137, no times."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition of a pod or a node.

    Attributes:
        status: `True`, `False`, `Unknown` or empty.
        since: when the status changed.
        posted_at: when a kubelet last posted it; of nodes alone.
    """

    kind: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    since: datetime | None = None
    posted_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container's state; `exit_code` is None if it has none or nobody saw it.

    Attributes:
        unhealthy: its devices that their plugin reports as unhealthy, by id.
    """

    name: str = ""
    state: Literal["waiting", "running", "terminated", ""] = ""
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    is_sidecar: bool = False
    restarts: int = 0
    unhealthy: tuple[str, ...] = ()

    @property
    def is_unknown(self) -> bool:
        """Whether its reported end was made up."""
        return self.reason == _UNKNOWN

    @property
    def failed(self) -> bool:
        """Whether it ended without success."""
        return self.state == "terminated" and not self.finished

    @property
    def finished(self) -> bool:
        """Whether it ended successfully; an incomplete status may lack the exit code."""
        return self.state == "terminated" and (
            self.exit_code == 0 or (self.exit_code is None and self.reason == "Completed")
        )


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod as the API shows it.

    Attributes:
        version: of the object; each change has its own.
        node: the node it is bound to; empty if none is shown.
        environment: of the step's container, from the pod's spec.
        created_at: by the API server's clock.
        accepted_at: when a kubelet saw it, by the kubelet's clock.
        ends_by: end of its grace period, by the API server's clock; None if it was not deleted.
        grace_s: the grace period, if the pod shows one.
        step: the step's container; None if not shown.
    """

    name: str
    version: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    node: str
    environment: Mapping[str, str]
    phase: str
    reason: str
    message: str
    has_node: bool
    created_at: datetime | None
    accepted_at: datetime | None
    ends_by: datetime | None
    grace_s: float | None
    conditions: tuple[Condition, ...]
    step: Container | None
    init: tuple[Container, ...]

    @property
    def is_over(self) -> bool:
        """Whether it has ended; a container's state shows it seconds before the phase does."""
        return self.phase in _TERMINAL or (self.step is not None and self.step.state == "terminated")

    @property
    def bound_at(self) -> datetime | None:
        """When it got its node, as far as the cluster says; None if it has none."""
        scheduled = self.condition("PodScheduled")
        if not self.has_node:
            return None
        return (scheduled.since if scheduled.status == "True" else None) or self.accepted_at or self.created_at

    @property
    def has_run(self) -> bool:
        """Whether the step's process ever started."""
        return self.step is not None and self.step.state in ("running", "terminated")

    def stop_requested_at(self, grace_s: float) -> datetime | None:
        """Return when it was asked to stop, by the API server's clock; None if it was not.

        Args:
            grace_s: the grace period, used if the pod does not show its own.
        """
        period_s = grace_s if self.grace_s is None else self.grace_s
        return self.ends_by - timedelta(seconds=period_s) if self.ends_by else None

    def condition(self, kind: str) -> Condition:
        """Return a condition; an empty one if it is not shown."""
        return next((item for item in self.conditions if item.kind == kind), Condition())


@dataclass(frozen=True, kw_only=True)
class Node:
    """A pod's node as the API shows it; `is_gone` means 404."""

    is_gone: bool
    labels: Mapping[str, str]
    ready: Condition
    conditions: tuple[Condition, ...]
    taints: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event about a pod or its node, by the clock of the component that reported it.

    Attributes:
        container: of the pod, if the event is about one.
    """

    reason: str = ""
    container: str = ""
    message: str = ""
    count: int = 1
    first_at: datetime | None = None
    last_at: datetime | None = None


def read_pod(pod: object) -> Pod:
    """Return a pod from the API's JSON."""
    status, phase = member(pod, "status"), text(pod, "status", "phase")
    sidecars = {
        text(item, "name") for item in items(pod, "spec", "initContainers") if text(item, "restartPolicy") == "Always"
    }
    grace_s = member(pod, "metadata", "deletionGracePeriodSeconds")
    conditions = tuple(read_conditions(pod))
    scheduled = any(item.kind == "PodScheduled" and item.status == "True" for item in conditions)
    containers = [_container(item, phase) for item in items(status, "containerStatuses")]
    # By its name; a single container without one must be it.
    named = [item for item in containers if item.name == CONTAINER] or (containers if len(containers) == 1 else [])
    specs = [item for item in items(pod, "spec", "containers") if text(item, "name") == CONTAINER]
    node = text(pod, "spec", "nodeName")
    return Pod(
        name=text(pod, "metadata", "name"),
        version=text(pod, "metadata", "resourceVersion"),
        labels=texts(pod, "metadata", "labels"),
        annotations=texts(pod, "metadata", "annotations"),
        node=node,
        environment={text(item, "name"): text(item, "value") for spec in specs for item in items(spec, "env")},
        phase=phase,
        reason=text(status, "reason"),
        message=text(status, "message"),
        has_node=bool(node or member(status, "startTime") or containers or scheduled or phase == "Running"),
        created_at=instant(member(pod, "metadata", "creationTimestamp")),
        accepted_at=instant(member(status, "startTime")),
        ends_by=instant(member(pod, "metadata", "deletionTimestamp")),
        grace_s=grace_s if isinstance(grace_s, int | float) else None,
        conditions=conditions,
        step=named[0] if named else None,
        init=tuple(
            _container(item, phase, is_sidecar=text(item, "name") in sidecars)
            for item in items(status, "initContainerStatuses")
        ),
    )


def read_node(node: object) -> Node:
    """Return a node from the API's JSON; None means that there is no such node."""
    conditions = tuple(read_conditions(node))
    return Node(
        is_gone=not node,
        labels=texts(node, "metadata", "labels"),
        ready=next((item for item in conditions if item.kind == "Ready"), Condition()),
        conditions=conditions,
        taints=tuple(text(item, "key") for item in items(node, "spec", "taints")),
    )


def read_event(event: object) -> Event:
    """Return an event from the API's JSON, of either of its two generations."""
    count = member(event, "series", "count") or member(event, "count")
    moments = (member(event, "series", "lastObservedTime"), member(event, "lastTimestamp"), member(event, "eventTime"))
    return Event(
        reason=text(event, "reason"),
        container=text(event, "involvedObject", "fieldPath").removeprefix("spec.containers{").removesuffix("}"),
        message=text(event, "message"),
        count=count if type(count) is int and count > 0 else 1,
        first_at=instant(member(event, "firstTimestamp")) or instant(member(event, "eventTime")),
        last_at=next((at for at in map(instant, moments) if at), None),
    )


def instant(value: object) -> datetime | None:
    """Return an RFC 3339 time; None if there is none, or for the zero times that kubelets write."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC) if moment.year > 1970 else None


def _container(status: object, phase: str, *, is_sidecar: bool = False) -> Container:
    state, name, restarts = member(status, "state"), text(status, "name"), member(status, "restartCount")
    restarts = restarts if type(restarts) is int else 0  # to isinstance, true is an int
    is_last = phase in _TERMINAL or text(state, "waiting", "reason") == "CrashLoopBackOff"
    ended = member(state, "terminated") or (member(status, "lastState", "terminated") if is_last else None)
    if isinstance(ended, Mapping):
        reason, code = text(ended, "reason"), ended.get("exitCode")
        return Container(
            name=name,
            state="terminated",
            reason=reason,
            message=text(ended, "message"),
            exit_code=code if type(code) is int and reason != _UNKNOWN else None,
            started_at=instant(ended.get("startedAt")),
            ended_at=instant(ended.get("finishedAt")),
            is_sidecar=is_sidecar,
            restarts=restarts,
            unhealthy=tuple(
                text(device, "resourceID")
                for kind in items(status, "allocatedResourcesStatus")
                for device in items(kind, "resources")
                if text(device, "health") == "Unhealthy"
            ),
        )
    if isinstance(running := member(state, "running"), Mapping):
        return Container(
            name=name, state="running", started_at=instant(running.get("startedAt")), is_sidecar=is_sidecar
        )
    return Container(
        name=name,
        state="waiting" if isinstance(state, Mapping) and "waiting" in state else "",
        reason=text(state, "waiting", "reason"),
        message=text(state, "waiting", "message"),
        is_sidecar=is_sidecar,
    )


def read_conditions(document: object) -> Iterator[Condition]:
    """Yield the conditions in the status of an object of the API."""
    for item in items(document, "status", "conditions"):
        yield Condition(
            kind=text(item, "type"),
            status=text(item, "status"),
            reason=text(item, "reason"),
            message=text(item, "message"),
            since=instant(member(item, "lastTransitionTime")),
            posted_at=instant(member(item, "lastHeartbeatTime")),
        )
