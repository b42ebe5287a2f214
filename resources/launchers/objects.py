"""The shape of the pod that `manifest.py` builds: Kubernetes' field names, only those that we set."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Metadata(TypedDict):
    """A pod's name, labels and annotations."""

    name: str
    namespace: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Security(TypedDict, total=False):
    """What a pod or a container may do."""

    allowPrivilegeEscalation: bool
    capabilities: dict[str, list[str]]
    fsGroup: int
    privileged: bool
    readOnlyRootFilesystem: bool
    runAsGroup: int
    runAsNonRoot: bool
    runAsUser: int
    seccompProfile: dict[str, str]


class Toleration(TypedDict, total=False):
    """A taint that the pod tolerates."""

    key: str
    operator: str
    value: str
    effect: str
    tolerationSeconds: int


class NodeField(TypedDict):
    """A requirement for a node's label or field."""

    key: str
    operator: str
    values: list[str]


class Preference(TypedDict):
    """Which nodes are preferred, by their labels or fields."""

    weight: int
    preference: dict[str, list[NodeField]]


class Affinity(TypedDict, total=False):
    """Which nodes are preferred and which are required."""

    preferredDuringSchedulingIgnoredDuringExecution: list[Preference]
    requiredDuringSchedulingIgnoredDuringExecution: dict[str, list[dict[str, list[NodeField]]]]


class Volume(TypedDict):
    """A folder that lives as long as the pod."""

    name: str
    emptyDir: dict[str, str]


class Container(TypedDict):
    """The step's container."""

    name: str
    image: str
    imagePullPolicy: str
    command: list[str]
    env: list[dict[str, str]]
    envFrom: NotRequired[list[dict[str, dict[str, str]]]]
    resources: dict[str, dict[str, str]]
    terminationMessagePolicy: str
    securityContext: Security
    volumeMounts: list[dict[str, str]]


class Spec(TypedDict):
    """What the pod requests from a cluster."""

    restartPolicy: str
    activeDeadlineSeconds: int
    terminationGracePeriodSeconds: int
    automountServiceAccountToken: bool
    enableServiceLinks: bool
    securityContext: Security
    tolerations: list[Toleration]
    containers: list[Container]
    volumes: list[Volume]
    nodeSelector: NotRequired[dict[str, str]]
    priorityClassName: NotRequired[str]
    runtimeClassName: NotRequired[str]
    affinity: NotRequired[dict[str, Affinity]]
    serviceAccountName: NotRequired[str]


class Manifest(TypedDict):
    """A pod."""

    apiVersion: str
    kind: str
    metadata: Metadata
    spec: Spec
