"""Read what the API shows of a pod and its node, whatever is missing, null or of another kind.

Belongs here: JSON in, typed values out. Does not belong here: what they mean for a step (pods.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from platform_assets.records.values import items, member, text, texts
from resources.launchers.manifest import CONTAINER

SAID_CHARACTERS = 400
_TERMINAL = ("Succeeded", "Failed")
_UNKNOWN = "ContainerStatusUnknown"
"""A kubelet that cannot find a container any more makes up its end: exit code 137, no times."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition of a pod or a node; `status` is `True`, `False`, `Unknown` or empty."""

    kind: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    since: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container's state; `exit_code` is None while it has none or nobody saw it."""

    name: str = ""
    state: Literal["waiting", "running", "terminated", ""] = ""
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    is_sidecar: bool = False

    @property
    def is_unknown(self) -> bool:
        """Whether its end was made up."""
        return self.reason == _UNKNOWN

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than well."""
        return self.state == "terminated" and not self.finished

    @property
    def finished(self) -> bool:
        """Whether it ended well; a status cut short may lack the exit code."""
        return self.state == "terminated" and (
            self.exit_code == 0 or (self.exit_code is None and self.reason == "Completed")
        )


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod as the API shows it.

    Attributes:
        node: it is bound to; empty: none is shown.
        environment: of the step's container, as it was asked for.
        created_at: by the API server's clock.
        ends_by: when its time to end is over, by the API server's clock; None: it was not asked to end.
        grace_s: how long it has to end, where it says so itself.
        step: the step's container; None: not shown.
    """

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    node: str
    environment: Mapping[str, str]
    phase: str
    reason: str
    message: str
    has_node: bool
    created_at: datetime | None
    ends_by: datetime | None
    grace_s: float | None
    conditions: tuple[Condition, ...]
    step: Container | None
    init: tuple[Container, ...]

    @property
    def is_over(self) -> bool:
        """Whether it will do no more; a container's state shows it seconds before the phase does."""
        return self.phase in _TERMINAL or (self.step is not None and self.step.state == "terminated")

    @property
    def has_run(self) -> bool:
        """Whether the step's process ever began."""
        return self.step is not None and self.step.state in ("running", "terminated")

    def told_at(self, grace_s: float) -> datetime | None:
        """Return when it was asked to end, by the API server's clock; None: it was not.

        Args:
            grace_s: how long it has to end, where it does not say itself.
        """
        own_s = grace_s if self.grace_s is None else self.grace_s
        return self.ends_by - timedelta(seconds=own_s) if self.ends_by else None

    def condition(self, kind: str) -> Condition:
        """Return a condition; an empty one when it is not shown."""
        return next((each for each in self.conditions if each.kind == kind), Condition())


@dataclass(frozen=True, kw_only=True)
class Node:
    """A pod's node as the API shows it; `is_gone`: it answers 404."""

    is_gone: bool
    labels: Mapping[str, str]
    ready: Condition
    conditions: tuple[Condition, ...]
    taints: tuple[str, ...]


def read_pod(pod: object) -> Pod:
    """Return what the API's answer holds of a pod."""
    status, phase = member(pod, "status"), text(pod, "status", "phase")
    sidecars = {text(each, "name") for each in items(pod, "spec", "initContainers") if _is_sidecar(each)}
    grace_s = member(pod, "metadata", "deletionGracePeriodSeconds")
    conditions = tuple(_conditions(pod))
    scheduled = any(each.kind == "PodScheduled" and each.status == "True" for each in conditions)
    containers = [_container(each, phase) for each in items(status, "containerStatuses")]
    asked = [each for each in items(pod, "spec", "containers") if text(each, "name") == CONTAINER]
    node = text(pod, "spec", "nodeName")
    return Pod(
        name=text(pod, "metadata", "name"),
        labels=texts(pod, "metadata", "labels"),
        annotations=texts(pod, "metadata", "annotations"),
        node=node,
        environment={text(each, "name"): text(each, "value") for own in asked for each in items(own, "env")},
        phase=phase,
        reason=text(status, "reason"),
        message=text(status, "message"),
        has_node=bool(node or member(status, "startTime") or containers or scheduled or phase == "Running"),
        created_at=instant(member(pod, "metadata", "creationTimestamp")),
        ends_by=instant(member(pod, "metadata", "deletionTimestamp")),
        grace_s=grace_s if isinstance(grace_s, int | float) else None,
        conditions=conditions,
        step=_step(containers),
        init=tuple(
            _container(each, phase, is_sidecar=text(each, "name") in sidecars)
            for each in items(status, "initContainerStatuses")
        ),
    )


def read_node(node: object) -> Node:
    """Return what the API's answer holds of a node; None: it has no such node."""
    conditions = tuple(_conditions(node))
    return Node(
        is_gone=not node,
        labels=texts(node, "metadata", "labels"),
        ready=next((each for each in conditions if each.kind == "Ready"), Condition()),
        conditions=conditions,
        taints=tuple(text(each, "key") for each in items(node, "spec", "taints")),
    )


def read_event(event: object) -> tuple[str, str]:
    """Return reason and message of an event."""
    return text(event, "reason"), text(event, "message")


def instant(value: object) -> datetime | None:
    """Return an RFC 3339 time; None where there is none, also for the zero times that kubelets write."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found.astimezone(UTC) if found.year > 1970 else None


def one_line(message: str) -> str:
    """Return a message as part of one sentence: no line breaks, no full stop, at most 400 characters."""
    line = " ".join(message.split()).rstrip(". ")
    return line if len(line) <= SAID_CHARACTERS else f"{line[: SAID_CHARACTERS - 4].rstrip()} ..."


def _step(containers: list[Container]) -> Container | None:
    """Return the step's container by name; an only container whose name is not shown must be it."""
    named = [each for each in containers if each.name == CONTAINER]
    if named:
        return named[0]
    return containers[0] if len(containers) == 1 else None


def _is_sidecar(container: object) -> bool:
    return text(container, "restartPolicy") == "Always"


def _container(status: object, phase: str, *, is_sidecar: bool = False) -> Container:
    state, name = member(status, "state"), text(status, "name")
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


def _conditions(shown: object) -> Iterator[Condition]:
    for each in items(shown, "status", "conditions"):
        yield Condition(
            kind=text(each, "type"),
            status=text(each, "status"),
            reason=text(each, "reason"),
            message=text(each, "message"),
            since=instant(member(each, "lastTransitionTime")),
        )
