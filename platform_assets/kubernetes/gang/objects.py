"""Create, find, read and delete the Jobs of attempts on several nodes, each as a whole, by the interface for pods."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from typing import ClassVar

from platform_assets.kubernetes.api import ATTEMPT, INDEX, Api
from platform_assets.kubernetes.gang import manifests
from platform_assets.kubernetes.manifest import Manifest
from platform_assets.kubernetes.pod_status import Condition, Pod, instant, read_conditions, read_pod
from platform_assets.kubernetes.responses import ApiTrouble
from platform_assets.store.records.values import items, member, text

GONE_S = 60.0
KUEUE = ("kueue.x-k8s.io", "v1beta1", "workloads")
"""Group, version and plural of Kueue's workloads; its newer versions serve this one too."""
JOB_UID = "kueue.x-k8s.io/job-uid"
"""The label by which Kueue finds the workload of a Job."""


@dataclass(frozen=True, kw_only=True)
class Gang(Pod):
    """A Job as the API shows it, with what its pods have in common.

    Attributes:
        uid: of the Job; one of the same name that was created again has another.
        is_suspended: no pod of it may run: it waits in a queue, or has lost its place.
        began_at: when it was last started or resumed; None while it is suspended.
        failed: the condition that says why it fails.
    """

    uid: str
    is_suspended: bool
    began_at: datetime | None
    failed: Condition


def read_gang(job: object) -> Gang:
    """Return a Job from the API's JSON."""
    template, metadata = member(job, "spec", "template"), member(job, "metadata")
    common = read_pod({"metadata": metadata, "spec": member(template, "spec")})
    conditions = {item.kind: item for item in read_conditions(job) if item.status == "True"}
    return Gang(
        **{field.name: getattr(common, field.name) for field in fields(Pod)},
        uid=text(metadata, "uid"),
        is_suspended=member(job, "spec", "suspend") is True,
        began_at=instant(member(job, "status", "startTime")),
        failed=conditions.get("FailureTarget") or conditions.get("Failed") or Condition(),
    )


class Gangs(Api):
    """The API of one namespace, where a Job is one attempt."""

    kind: ClassVar[str] = "Job"
    suffix: ClassVar[str] = "job"
    read: ClassVar[staticmethod[[object], Pod]] = staticmethod(read_gang)
    # By default the API deletes a Job alone, and its pods work on.
    deletion: ClassVar[Mapping[str, str]] = {"propagationPolicy": "Foreground"}
    """A Job stays until all its pods are gone, so waiting for it is waiting for them."""

    @cached_property
    def members(self) -> Api:
        """The API of its pods."""
        # `log` is replaced later, by that of a run.
        return Api(self.namespace, self._configuration, patience_s=self.patience_s, log=lambda line: self.log(line))

    def create(self, manifest: Manifest) -> Gang:
        """Create a Job with its Service and its network policy, or find what an earlier try created.

        Raises:
            ApiTrouble: one of them was not created, and the others are deleted; or the result is unknown.
        """
        gang = super().create(manifest)
        assert isinstance(gang, Gang)
        try:
            self.complete(manifest, gang)
        except ApiTrouble as trouble:
            if not trouble.may_be_done:
                self.delete(gang.name)
                until_s = time.monotonic() + GONE_S  # or the next try would find the Job that is being deleted
                while self.pod(gang.name).pod is not None and time.monotonic() < until_s:
                    time.sleep(1.0)
            raise
        return gang

    def complete(self, manifest: Manifest, gang: Gang) -> None:
        """Create the Service and the network policy of a Job, where they are missing, and a policy is needed.

        Raises:
            ApiTrouble: one of them was not created; the sentence names it.
        """
        kinds, method = ("NetworkPolicyList",), "list_namespaced_network_policy"
        policies, _ = self._json(kinds, method, self.namespace)
        self._complete("service", manifests.service(manifest, gang.uid))
        if isolated := manifests.isolated(manifest, items(policies, "items")):
            self._complete("network_policy", manifests.network_policy(manifest, gang.uid, isolated))

    def _complete(self, suffix: str, document: Manifest) -> None:
        kind, name = document["kind"], document["metadata"]["name"]
        try:
            self._json((kind,), f"create_namespaced_{suffix}", self.namespace, document)
        except ApiTrouble as trouble:
            if trouble.meaning != "exists":
                trouble.args = (f"{kind} {name} could not be created: {trouble}",)
                raise

    def pods(self, labels: Mapping[str, str]) -> list[Pod]:
        """Return the attempts that carry all of these labels: Jobs, and pods of those on one node."""
        return [*super().pods(labels), *(pod for pod in self.members.pods(labels) if INDEX not in pod.labels)]

    def delete(self, name: str, *, grace_s: float | None = None, version: str = "") -> bool:
        """Delete a Job with its pods; return False if it has another version than the given one.

        Args:
            grace_s: instead of the pods' own; 0 removes them from the API at once, even if their nodes do not answer.
        """
        answer = self.pod(name) if grace_s == 0 else None
        is_done = super().delete(name, version=version)
        if is_done and answer is not None and answer.pod is not None:
            for pod in self.members.pods({ATTEMPT: answer.pod.labels[ATTEMPT]}):
                self.members.delete(pod.name, grace_s=0)
        return is_done

    def of_queue(self, gang: Gang) -> list[Condition]:
        """Return the conditions of a Job's workload in Kueue; none without Kueue, or without the right to read it."""
        group, version, plural = KUEUE
        workloads = self._readable(
            "What their queue says of Jobs is missing from the evidence.",
            ("WorkloadList",),
            "list_namespaced_custom_object",
            *(group, version, self.namespace, plural),
            label_selector=f"{JOB_UID}={gang.uid}",
        )
        return [
            condition
            for document in workloads
            for workload in items(document, "items")
            for condition in read_conditions(workload)
        ]
