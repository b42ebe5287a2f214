"""Build the pod of a try: profile and work in, a manifest out, as one pure function.

The pod is a plain Pod, not a Job, with `restartPolicy: Never`, so only the launcher retries. No run owns it: it
outlives its run, and the next run finds it by its name and labels. It meets the Pod Security Standards' level
"restricted".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from platform_assets.base import accounts
from platform_assets.base.settings import AUTHORITIES, Settings
from platform_assets.engine.outside import Work
from platform_assets.launch.attempt import Prepared
from platform_assets.launch.endings import Try
from platform_assets.launch.image import SCRATCH, USER, environment, trainer_image
from platform_assets.launch.step_profile import ZONE
from platform_assets.store.records.attempts import Launch

CONTAINER = "step"
FACTS = "driftline-attempt"
"""The annotation with the attempt's facts, for a run that takes the pod over."""
UNREACHABLE_S = 60
"""Seconds until pods on an unreachable node are evicted. The default is 300 s, and an accelerator is paid meanwhile."""
PAGE = 1 << 16
"""Bytes of the largest page of a kernel that nodes run; those of amd64 have 4,096."""

Spec = dict[str, Any]
"""What a pod requests, or a part of that: Kubernetes' field names. A test validates all of them, strictly."""


class Metadata(TypedDict):
    """An object's name, labels and annotations."""

    name: str
    namespace: str
    labels: dict[str, str]
    annotations: dict[str, str]
    ownerReferences: NotRequired[list[dict[str, str]]]


class Manifest(TypedDict):
    """A pod, or another object that belongs to an attempt."""

    apiVersion: str
    kind: str
    metadata: Metadata
    spec: Spec


def launch_of(annotations: Mapping[str, str]) -> Launch | None:
    """Return the facts of the attempt whose pod has these annotations; None for a pod that no launcher created."""
    text = annotations.get(FACTS)
    return Launch.read(json.loads(text)) if text else None


def pod(
    settings: Settings, module: str, plan: Try, prepared: Prepared, pipes: Mapping[str, str], *, is_shared: bool = False
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
    # Linux rounds a tmpfs up to a page, and a kubelet evicts a pod whose volume is above its limit: round down.
    pages = math.floor(round(profile.shm_gb * 1e9, 3)) // PAGE
    spec = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": math.ceil(profile.deadline_s),  # holds while no launcher watches, too
        "terminationGracePeriodSeconds": math.ceil(profile.grace_s),
        "automountServiceAccountToken": False,  # a step asks Kubernetes for nothing
        # Each Service of the namespace would add seven variables.
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(settings, profile.arguments(module, is_shared=is_shared), plan, work, pipes)],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{pages * (PAGE // 1024)}Ki"}},
            # Without the config map the step says so, and starts.
            *([{"name": "ca", "configMap": {"name": "driftline-ca", "optional": True}}] * settings.has_authorities),
        ],
        **_place(plan),
    }
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
        "image": profile.image or trainer_image(settings),
        "imagePullPolicy": "IfNotPresent",  # a digest is never another image
        "command": ["python", *command],
        "env": [{"name": key, "value": value} for key, value in sorted(variables.items())],
        # Without a CPU limit, which only throttles, unless a quota names `limits.cpu` and so asks for one.
        "resources": {"requests": {"cpu": str(profile.cores), **fixed}, "limits": {**fixed, **throttled}},
        "terminationMessagePolicy": "FallbackToLogsOnError",  # the status keeps a log's end that its node may lose
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
            *([{"name": "ca", "mountPath": AUTHORITIES}] * settings.has_authorities),
        ],
    }
    if secret := accounts.of_product(settings.step_secret, work.product):
        container["envFrom"] = [{"secretRef": {"name": secret}}]
    return container


def _place(plan: Try) -> Spec:
    """Return where the pod may run, and what keeps it there.

    The data's zone is only preferred unless the profile says more: waiting costs too. The API takes one name of a node
    per requirement.
    """
    profile = plan.profile
    zone = [{"key": ZONE, "operator": "In", "values": [profile.data_zone]}] if profile.data_zone else []
    avoided, forbidden = (
        [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in names]
        for names in (plan.avoided_nodes, plan.forbidden_nodes)
    )
    in_zone, required = {"matchExpressions": zone} if zone else {}, {"matchFields": forbidden} if forbidden else {}
    if profile.data_zone_only:
        in_zone, required = {}, {**in_zone, **required}
    preferred = [term for term in (in_zone, {"matchFields": avoided} if avoided else {}) if term]
    terms = [{"weight": 100, "preference": term} for term in preferred]
    affinity = {
        **({"preferredDuringSchedulingIgnoredDuringExecution": terms} if terms else {}),
        **({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [required]}} if required else {}),
    }
    own: list[dict[str, str | int]] = [
        {
            "key": toleration.key,
            "operator": "Exists" if toleration.value is None else "Equal",
            **({} if toleration.value is None else {"value": toleration.value}),
            **({} if toleration.effect is None else {"effect": toleration.effect}),
        }
        for toleration in profile.tolerations
    ]
    tolerated = {toleration.key for toleration in profile.tolerations}
    own += [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": UNREACHABLE_S}
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        if key not in tolerated
    ]
    return {
        "tolerations": own,
        **({"nodeSelector": dict(profile.node_selector)} if profile.node_selector else {}),
        **({"runtimeClassName": profile.runtime_class} if profile.runtime_class else {}),
        **({"affinity": {"nodeAffinity": affinity}} if affinity else {}),
    }


def _bytes(gigabytes: float) -> str:
    """Return 10^9 bytes as a quantity in whole 10^6 bytes, rounded up."""
    return f"{math.ceil(round(gigabytes * 1000, 3))}M"
