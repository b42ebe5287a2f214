"""Build the pod of a try: profile and work in, a manifest out, as one pure function.

The pod is a plain Pod, not a Job, with `restartPolicy: Never`, so only the launcher retries. No run owns it: it
outlives its run, and the next run finds it by its name and labels. It meets the Pod Security Standards' level
"restricted".
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from platform_assets.profiles import StepProfile
from platform_assets.step_profile import ZONE
from resources.launchers.endings import Try, Work
from resources.launchers.objects import Affinity, Container, Manifest, Metadata, NodeField, Preference, Spec, Toleration

CONTAINER = "step"
USER = 10_001
"""A number, because a kubelet cannot tell from a name whether it is root. The trainer image's folders belong to it."""
SCRATCH = "/scratch"
FINGERPRINT_IN_LABEL = 40
UNREACHABLE_S = 60
"""Seconds until pods on an unreachable node are evicted. The default is 300 s, and an accelerator is paid meanwhile."""

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LOST_NODES = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def pod_name(work: Work, attempt: str) -> str:
    """Return the name of an attempt's pod, a DNS label that starts with product and step.

    The same attempt has the same name, so creating its pod twice is a conflict instead of a second pod.
    """
    identity = "\n".join([work.product, work.step, work.cutoff, work.fingerprint, attempt])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    readable = re.sub(r"[^a-z0-9]+", "-", f"{work.product}-{work.step}".lower()).strip("-")
    return "-".join(part for part in ("driftline", readable[:36].strip("-"), digest) if part)


def label(value: str) -> str:
    """Return the nearest valid label value: at most 63 characters, invalid ones replaced by dashes."""
    allowed = re.sub(r"[^A-Za-z0-9_.-]", "-", value)
    return re.sub(r"[^A-Za-z0-9]+$", "", re.sub(r"^[^A-Za-z0-9]+", "", allowed)[:63])


def labels(*, work: Work, attempt: str, run_id: str, profile: StepProfile) -> dict[str, str]:
    """Return the labels of an attempt's pod; a selector of some of them finds it."""
    return {
        key: label(value[:FINGERPRINT_IN_LABEL] if key.endswith("/fingerprint") else value)
        for key, value in _facts(work, attempt, run_id, profile).items()
    }


def pod(
    *,
    name: str,
    namespace: str,
    image: str,
    module: str,
    environment: Mapping[str, str],
    secret: str | None,
    service_account: str | None,
    priority_class: str | None,
    plan: Try,
    work: Work,
    attempt: str,
    run_id: str,
    annotations: Mapping[str, str],
) -> Manifest:
    """Return the manifest of a pod that runs `python -m {module}` once.

    Args:
        name: a DNS label; see `pod_name`.
        image: of the trainer, by digest where possible.
        module: such as `platform_assets.steps.train`.
        environment: the step's variables, including Dagster Pipes'; no secrets.
        secret: name of a Secret whose keys become variables too (credentials of the store); None: workload identity.
        service_account: the step's identity in the cloud; None: the namespace's default.
        priority_class: where the profile names none; None: the cluster's default.
        plan: its size, node selection and limits; memory and storage may differ from the profile's.
        attempt: the id of the try's record.
        run_id: of the Dagster run that started it.
        annotations: more of them; they may not begin with `driftline/`.

    Raises:
        ValueError: the name is not a valid pod name, or the memory cannot hold `/dev/shm`.
    """
    if not _DNS_LABEL.fullmatch(name):
        raise ValueError(f"the pod's name is {name!r}; expected a DNS label: lower-case letters, digits, dashes.")
    profile = plan.profile
    profile.check_fits(plan.memory_gb)
    reserved = sorted(key for key in annotations if key.startswith("driftline/"))
    if reserved:
        raise ValueError(f"annotations contain {', '.join(reserved)}; the prefix driftline/ is reserved for launchers.")
    facts = _facts(work, attempt, run_id, profile)
    short = labels(work=work, attempt=attempt, run_id=run_id, profile=profile)
    whole = {key: value for key, value in facts.items() if short[key] != value}
    spec: Spec = {
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
        "containers": [_container(image, module, environment, secret, plan)],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _bytes(profile.shm_gb)}},
        ],
    }
    _set_place(spec, plan)
    if service_account:
        spec["serviceAccountName"] = service_account
    if priority := profile.priority_class or priority_class:
        spec["priorityClassName"] = priority
    metadata: Metadata = {
        "name": name,
        "namespace": namespace,
        "labels": {**dict(profile.labels), **short},
        "annotations": {**dict(profile.annotations), **annotations, **whole},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _facts(work: Work, attempt: str, run_id: str, profile: StepProfile) -> dict[str, str]:
    """Return the facts that the pod's labels and annotations contain, unabridged."""
    return {
        "app.kubernetes.io/name": "driftline-step",
        "app.kubernetes.io/component": "step",
        "app.kubernetes.io/managed-by": "driftline",
        "driftline/product": work.product,
        "driftline/step": work.step,
        "driftline/cutoff": work.cutoff,
        "driftline/fingerprint": work.fingerprint,
        "driftline/attempt": attempt,
        "driftline/run-id": run_id,
        "driftline/profile": profile.name,
        "driftline/spot": str(profile.is_spot).lower(),
    }


def _container(image: str, module: str, environment: Mapping[str, str], secret: str | None, plan: Try) -> Container:
    profile = plan.profile
    fixed = {"memory": _bytes(plan.memory_gb)}
    if plan.storage_gb is not None:
        fixed["ephemeral-storage"] = _bytes(plan.storage_gb)
    if profile.accelerators:
        fixed[profile.accelerator_resource] = str(profile.accelerators)
    throttled = {} if profile.cpu_limit is None else {"cpu": f"{profile.cpu_limit:g}"}
    variables = {"HOME": SCRATCH, **environment}
    container: Container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", module],
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
    if secret:
        container["envFrom"] = [{"secretRef": {"name": secret}}]
    return container


def _set_place(spec: Spec, plan: Try) -> None:
    """Set where the pod may run. The data's zone is only preferred unless the profile says more: waiting costs too."""
    profile = plan.profile
    if profile.node_selector:
        spec["nodeSelector"] = dict(profile.node_selector)
    if profile.runtime_class:
        spec["runtimeClassName"] = profile.runtime_class
    preferences: list[Preference] = []
    required: dict[str, list[NodeField]] = {}
    if profile.data_zone:
        zone: NodeField = {"key": ZONE, "operator": "In", "values": [profile.data_zone]}
        if profile.data_zone_only:
            required["matchExpressions"] = [zone]
        else:
            preferences.append({"weight": 100, "preference": {"matchExpressions": [zone]}})
    if plan.avoided_nodes:
        preferences.append({"weight": 100, "preference": {"matchFields": _other_nodes(plan.avoided_nodes)}})
    affinity: Affinity = {}
    if preferences:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = preferences
    if plan.forbidden_nodes:
        required["matchFields"] = _other_nodes(plan.forbidden_nodes)
    if required:
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [required]}
    if affinity:
        spec["affinity"] = {"nodeAffinity": affinity}


def _other_nodes(names: Sequence[str]) -> list[NodeField]:
    """Return requirements for any node but these; the API takes one name per requirement."""
    return [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in names]


def _tolerations(profile: StepProfile) -> Iterator[Toleration]:
    for toleration in profile.tolerations:
        entry: Toleration = {"key": toleration.key, "operator": "Exists" if toleration.value is None else "Equal"}
        if toleration.value is not None:
            entry["value"] = toleration.value
        if toleration.effect is not None:
            entry["effect"] = toleration.effect
        yield entry
    tolerated = {toleration.key for toleration in profile.tolerations}
    for key in _LOST_NODES:
        if key not in tolerated:
            yield {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": UNREACHABLE_S}


def _bytes(gigabytes: float) -> str:
    """Return 10^9 bytes as a quantity in whole 10^6 bytes, rounded up."""
    return f"{math.ceil(round(gigabytes * 1000, 3))}M"
