"""Run a step on several nodes: the launcher of pods, where one attempt is an Indexed Job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import ClassVar

from platform_assets.kubernetes.gang import manifests
from platform_assets.kubernetes.gang.objects import Gang, Gangs
from platform_assets.kubernetes.gang.watch import watch
from platform_assets.kubernetes.launcher import RIGHTS, KubernetesLauncher
from platform_assets.kubernetes.manifest import Manifest
from platform_assets.kubernetes.pod_status import Pod
from platform_assets.launch.attempt import Launched, Prepared, StepRequest
from platform_assets.launch.endings import Ending, Try


class GangLauncher(KubernetesLauncher):
    """Runs a step as the pods of an Indexed Job, with the budgets, records and endings of a single pod.

    Another engine, such as JobSet, is a subclass: `draft` returns its object, an `Api` creates, finds and deletes it,
    and `follow` watches it. It never retries by itself.
    """

    api: Gangs
    api_type = Gangs
    spans_nodes = True
    rights: ClassVar[Mapping[str, Sequence[str]]] = {
        **RIGHTS,
        "jobs.batch": ("create", "delete", "get", "list"),
        "services": ("create",),
        "networkpolicies.networking.k8s.io": ("create", "list"),
    }

    def draft(self, request: StepRequest, plan: Try, prepared: Prepared, pipes: Mapping[str, str]) -> Manifest:
        return manifests.job(super().draft(request, plan, prepared, pipes), plan.profile)

    def follow(self, launched: Launched, last: Pod | None, logs: ExitStack) -> Ending:
        if isinstance(last, Gang):  # the run that created it may have been killed before its Service was there
            variables = launched.session.get_bootstrap_env_vars()
            manifest = self.draft(launched.request, launched.request.plan, launched.prepared, variables)
            self.api.complete(manifest, last)
        return watch(self.api, launched, logs, poll_s=self.poll_s)
