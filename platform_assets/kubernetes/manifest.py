"""Build the pod of a try: profile and work in, a manifest out, as one pure function.

The pod is a plain Pod, not a Job, with `restartPolicy: Never`, so only the launcher retries. No run owns it: it
outlives its run, and the next run finds it by its name and labels. It meets the Pod Security Standards' level
"restricted".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from platform_assets.base import accounts
from platform_assets.base.settings import AUTHORITIES, Settings
from platform_assets.engine.outside import Work
from platform_assets.launch.attempt import Prepared
from platform_assets.launch.endings import Try
from platform_assets.launch.image import SCRATCH, USER, environment, step_image
from platform_assets.launch.profiles import StepProfile
from platform_assets.launch.step_profile import ZONE
from platform_assets.store.records.attempts import Launch

CONTAINER = "step"
FACTS = "driftline-attempt"
"""The annotation with the attempt's facts, for a run that takes the pod over."""
UNREACHABLE_S = 60
"""Seconds until pods on an unreachable node are evicted. The default is 300 s, and an accelerator is paid meanwhile."""
PAGE = 1 << 16
"""Bytes of the largest page of a kernel that nodes run; those of amd64 have 4,096."""
_LOST_NODES = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")

Spec = dict[str, Any]
"""What a pod requests, or a part of that: Kubernetes' field names. A test validates all of them, strictly."""


class Metadata(TypedDict):
    """A pod's name, labels and annotations."""

    name: str
    namespace: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Manifest(TypedDict):
    """A pod."""

    apiVersion: str
    kind: str
    metadata: Metadata
    spec: Spec


def launch_of(annotations: Mapping[str, str]) -> Launch | None:
    """Return the facts of the attempt whose pod has these annotations; None for a pod that no launcher created."""
    text = annotations.get(FACTS)
    return Launch.read(json.loads(text)) if text else None


def pod(
    settings: Settings,
    module: str,
    plan: Try,
    prepared: Prepared,
    pipes: Mapping[str, str],
    *,
    is_shared: bool = False,
) -> Manifest:
    """Return the manifest of an attempt's pod, which runs `python -m {module}` once.

    Args:
        module: such as `platform_assets.launch.train`.
        plan: its size, node selection and limits; memory and storage may differ from the profile's.
        pipes: Dagster Pipes' variables, which name the step's input and messages.
        is_shared: whether the profile's processes share it.

    Raises:
        SettingsProblem: no image is set, or it is a tag.
        ValueError: the memory cannot hold `/dev/shm`.
    """
    profile, work, facts, short = plan.profile, prepared.work, prepared.facts, prepared.labels
    profile.check_fits(plan.memory_gb)
    whole = {key: value for key, value in facts.items() if short[key] != value}
    spec = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": math.ceil(profile.deadline_s),
        "terminationGracePeriodSeconds": math.ceil(profile.grace_s),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": list(_tolerations(profile)),
        "containers": [_container(settings, profile.arguments(module, is_shared=is_shared), plan, work, pipes)],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _pages(profile.shm_gb)}},
        ],
    }
    _set_place(spec, plan)
    if settings.has_authorities:
        _mount_authorities(spec)
    if account := accounts.of_product(settings.step_service_account, work.product):
        spec["serviceAccountName"] = account
    priority_class = settings.spot_priority_class if profile.is_spot else settings.step_priority_class
    if priority := profile.priority_class or priority_class:
        spec["priorityClassName"] = priority
    launch = json.dumps(prepared.launch.document(), sort_keys=True)
    metadata: Metadata = {
        "name": prepared.name,
        "namespace": settings.namespace,
        "labels": {**dict(profile.labels), **short},
        "annotations": {**dict(profile.annotations), **whole, FACTS: launch},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _container(settings: Settings, command: Sequence[str], plan: Try, work: Work, pipes: Mapping[str, str]) -> Spec:
    profile = plan.profile
    fixed = {"memory": _bytes(plan.memory_gb)}
    if plan.storage_gb is not None:
        fixed["ephemeral-storage"] = _bytes(plan.storage_gb)
    if profile.accelerators:
        fixed[profile.accelerator_resource] = str(profile.accelerators)
    throttled = {} if profile.cpu_limit is None else {"cpu": f"{profile.cpu_limit:g}"}
    variables = {"HOME": SCRATCH, **environment(settings, pipes, profile)}
    container = {
        "name": CONTAINER,
        "image": step_image(settings, profile),
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", *command],
        "env": [{"name": key, "value": value} for key, value in sorted(variables.items())],
        "resources": {"requests": {"cpu": str(profile.cores), **fixed}, "limits": {**fixed, **throttled}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": USER,
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    if secret := accounts.of_product(settings.step_secret, work.product):
        container["envFrom"] = [{"secretRef": {"name": secret}}]
    return container


def _mount_authorities(spec: Spec) -> None:
    """Mount the config map that the variables of private authorities name; without it the step says so, and starts."""
    spec["volumes"].append({"name": "ca", "configMap": {"name": "driftline-ca", "optional": True}})
    spec["containers"][0]["volumeMounts"].append({"name": "ca", "mountPath": AUTHORITIES})


def _set_place(spec: Spec, plan: Try) -> None:
    """Set where the pod may run. The data's zone is only preferred unless the profile says more: waiting costs too."""
    profile = plan.profile
    if profile.node_selector:
        spec["nodeSelector"] = dict(profile.node_selector)
    if profile.runtime_class:
        spec["runtimeClassName"] = profile.runtime_class
    preferences: list[Spec] = []
    required: Spec = {}
    if profile.data_zone:
        zone = {"key": ZONE, "operator": "In", "values": [profile.data_zone]}
        if profile.data_zone_only:
            required["matchExpressions"] = [zone]
        else:
            preferences.append({"weight": 100, "preference": {"matchExpressions": [zone]}})
    if plan.avoided_nodes:
        preferences.append({"weight": 100, "preference": {"matchFields": _other_nodes(plan.avoided_nodes)}})
    affinity = dict[str, object]()
    if preferences:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = preferences
    if plan.forbidden_nodes:
        required["matchFields"] = _other_nodes(plan.forbidden_nodes)
    if required:
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [required]}
    if affinity:
        spec["affinity"] = {"nodeAffinity": affinity}


def _other_nodes(names: Sequence[str]) -> list[Spec]:
    """Return requirements for any node but these; the API takes one name per requirement."""
    return [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in names]


def _tolerations(profile: StepProfile) -> Iterator[Spec]:
    for toleration in profile.tolerations:
        entry = {"key": toleration.key, "operator": "Exists" if toleration.value is None else "Equal"}
        if toleration.value is not None:
            entry["value"] = toleration.value
        if toleration.effect is not None:
            entry["effect"] = toleration.effect
        yield entry
    tolerated = {toleration.key for toleration in profile.tolerations}
    for key in _LOST_NODES:
        if key not in tolerated:
            yield {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": UNREACHABLE_S}


def _pages(gigabytes: float) -> str:
    """Return 10^9 bytes as a quantity in whole pages, rounded down.

    Linux rounds a tmpfs up to a page. A kubelet evicts a pod whose volume is above its limit, so a full one would be.
    """
    return f"{math.floor(round(gigabytes * 1e9, 3)) // PAGE * (PAGE // 1024)}Ki"


def _bytes(gigabytes: float) -> str:
    """Return 10^9 bytes as a quantity in whole 10^6 bytes, rounded up."""
    return f"{math.ceil(round(gigabytes * 1000, 3))}M"
