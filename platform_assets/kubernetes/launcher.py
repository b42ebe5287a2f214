"""Run a step as a pod: create it, follow it, record why it ended, and delete it.

A pod outlives the run that created it: a replacement run finds it by its labels and goes on watching it. Its record is
written before it is deleted. A cancelled run stops its pod, with time to save its work.

`find` and then `run_to_end` are the way of every pod, from top to bottom; `watching.py` has the part between.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

import dagster as dg
import msgspec
from dagster_pipes import DAGSTER_PIPES_MESSAGES_ENV_VAR, PipesParams, decode_param

from platform_assets.base.failures import ADMISSION, NODE_LOST
from platform_assets.base.settings import Settings
from platform_assets.base.wording import one_line
from platform_assets.kubernetes import manifest, watching
from platform_assets.kubernetes.api import ATTEMPT, INDEX, Api
from platform_assets.kubernetes.manifest import Manifest, launch_of
from platform_assets.kubernetes.pod_status import Pod
from platform_assets.kubernetes.responses import ApiTrouble
from platform_assets.kubernetes.step_log import StepLog
from platform_assets.launch import pipes, profiles, records
from platform_assets.launch.attempt import Launched, Prepared, StepRequest, new, prepare
from platform_assets.launch.endings import Ending, Try
from platform_assets.launch.image import step_libraries, trainer_image, trainer_libraries
from platform_assets.launch.profiles import StepProfile
from platform_assets.launch.tries import NotReady, TryingLauncher, Unattended
from platform_assets.store.records.attempts import ProcessLocation

if TYPE_CHECKING:
    from kubernetes.client import Configuration

POLL_S = 2.0  # an end is known within two polls; a watch may be silent for other reasons
QUOTA_POLL_S = 5.0
OURS = {"app.kubernetes.io/managed-by": "driftline"}
OLDEST = (1, 32)
"""The oldest Kubernetes whose statuses the classes of failure were checked against."""
RIGHTS: Mapping[str, Sequence[str]] = {"pods": ("create", "delete", "get", "list", "watch"), "pods/log": ("get",)}
GRANT = "deploy/kubernetes/base/rights.yaml grants them"


@dataclass(frozen=True, kw_only=True)
class AtWork(Prepared):
    """An attempt whose pod outlived the run that created it.

    Attributes:
        pod: as it was found.
    """

    pod: Pod

    @property
    def messages(self) -> PipesParams:
        """Where its step writes messages already, by its environment."""
        return decode_param(self.pod.environment[DAGSTER_PIPES_MESSAGES_ENV_VAR])


class KubernetesLauncher(TryingLauncher):
    """Runs a step as a pod of the trainer image in the settings' namespace.

    Attributes:
        rights: what its account needs, by resource.
        api: creates, finds and deletes the object that is one attempt.

    Args:
        configuration: address and credentials; None for those of the pod that this runs in, otherwise `KUBECONFIG`.
        poll_s: seconds between two looks at a pod.
        patience_s: how long the API may be unavailable.
    """

    name = "kubernetes"
    outlives_runs = True
    rights: ClassVar[Mapping[str, Sequence[str]]] = RIGHTS
    api_type: ClassVar[type[Api]] = Api

    def __init__(
        self,
        settings: Settings,
        *,
        configuration: Configuration | None = None,
        poll_s: float = POLL_S,
        patience_s: float = 300.0,
    ) -> None:
        super().__init__(settings)
        trainer_image(settings), trainer_libraries(settings)  # raises now, before anything is on record
        self.poll_s = poll_s
        self.api = self.api_type(settings.namespace, configuration, patience_s=patience_s)

    def libraries(self, size: StepProfile) -> dict[str, str]:
        """Return the image's library versions from settings or profile: its label cannot be read from here."""
        return step_libraries(self.settings, size)

    def find(self, request: StepRequest, prepared: Prepared) -> tuple[StepRequest, Prepared]:
        """Find an attempt whose pod is there already; otherwise check whether the cluster can run the step.

        Raises:
            NotReady: it cannot, in this size or in the one on demand that may follow.
            Unattended: nobody can say whether there is a pod; another must not start.
        """
        self.api.log = request.context.log.warning
        size, at_work = request.plan.profile, self._at_work(request, prepared)
        if at_work is not None:
            name = at_work.launch.profile
            if name != size.name:
                other = profiles.profile(name).replace(nodes=size.nodes)
                # What follows a loss computes with the request's number of processes.
                size = other if other.world_size == size.world_size else size
            return replace(request, plan=Try(profile=size, memory_gb=at_work.launch.memory_gb)), at_work
        drafts = {size.name: self.draft(request, request.plan, prepared, {})}
        if size.on_demand is not None:
            plan = replace(request.plan, profile=profiles.profile(size.on_demand))
            later = new(self.settings.root, replace(request, plan=plan), self.name)
            drafts[size.on_demand] = self.draft(request, plan, later, {})
        check_cluster(self.api, drafts, self.rights)
        return request, prepared

    def _at_work(self, request: StepRequest, fresh: Prepared) -> AtWork | None:
        """Return an attempt whose pod is there already, and settle those that have lost theirs.

        Args:
            fresh: the attempt that would start otherwise.

        Raises:
            Unattended: nobody can say whether there is one; another must not start.
        """
        context, work = request.context, request.work
        if work is None:
            return None
        try:
            existing = self.api.pods(fresh.selector)
            existing_ids = {pod.labels.get(ATTEMPT) for pod in existing}
            for attempt in records.open_attempts(self.settings, work):
                if attempt.id in existing_ids:
                    continue
                is_other = attempt.run_id and attempt.run_id != context.run.run_id
                run = context.instance.get_run_by_id(attempt.run_id) if is_other else None
                # Another run in progress may be about to create its pod, and records its end.
                if run is None or run.is_finished:
                    watching.settle(self.api, prepare(self.settings.root, attempt.launch()))
        except ApiTrouble as trouble:
            if trouble.meaning == "again":
                raise Unattended(
                    f"{one_line(str(trouble))}. No pod was started, because one may already be at this step in "
                    f"namespace {self.api.namespace}: run this asset again when the API answers.",
                    allow_retries=False,
                ) from trouble
            # Without permission to list pods, creating one will be refused too, and that has a failure class.
            context.log.warning(f"could not look for a pod that is already at this step: {trouble}")
            return None
        for pod in existing:
            launch = launch_of(pod.annotations)
            if launch is None or launch.fingerprint != work.fingerprint:
                continue
            if (INDEX in pod.labels or type(pod) is not Pod) != self.spans_nodes:  # a Job's pod, or a Job
                context.log.info(
                    f"{pod.name} of run {launch.run_id} is at this step on another number of nodes. This attempt waits "
                    "until that one has ended, and goes on from its newest save."
                )
                continue
            context.log.info(
                f"{self.api.suffix} {pod.name} of run {launch.run_id} is already at this step; watching it from now on."
            )
            prepared = prepare(self.settings.root, msgspec.structs.replace(launch, run_id=context.run.run_id))
            return AtWork(root=prepared.root, launch=prepared.launch, work=prepared.work, name=pod.name, pod=pod)
        return None

    def draft(self, request: StepRequest, plan: Try, prepared: Prepared, pipes: Mapping[str, str]) -> Manifest:
        """Return the manifest of the object that is one attempt."""
        return manifest.pod(self.settings, request.module, plan, prepared, pipes, is_shared=request.is_shared)

    @contextmanager
    def run_to_end(self, launched: Launched) -> Iterator[Ending]:
        """Create the pod unless it is there, watch it to its end; on an exception, stop it, with time to save.

        Once its end is on record it is deleted, at once when its node does not answer.
        """
        request, prepared, observation = launched.request, launched.prepared, launched.observation
        pod = prepared.pod if isinstance(prepared, AtWork) else None
        variables = launched.session.get_bootstrap_env_vars()
        draft = None if pod else self.draft(request, request.plan, prepared, variables)
        observation.location = ProcessLocation(host=prepared.name)
        # The pod is stopped on any exception but those below, also where Dagster's storage does not answer, and its
        # lines are read until it has ended.
        with ExitStack() as logs, ExitStack() as stop:
            stop.callback(self._stop, launched)
            try:
                ending = None if draft is None else self._create(draft, launched)
                if pod and pod.step:
                    observation.started_at = pod.step.started_at
                ending = ending or self.follow(launched, pod, logs)
            except ApiTrouble as trouble:
                stop.pop_all()
                raise Unattended(
                    f"{one_line(str(trouble))}. {self.api.kind} {prepared.name} in namespace {self.api.namespace} may "
                    "be at work and is left alone: run this asset again to go on watching it; otherwise the sensor "
                    "orphaned_pods stops it.",
                    allow_retries=False,
                ) from trouble
            except dg.DagsterExecutionInterruptedError as interruption:
                # Elsewhere it is Ctrl-C. Dagster notes that a run is being cancelled before it ends its pod.
                is_on_cluster, context = self.settings.environment == "cluster", request.context
                run = context.instance.get_run_by_id(context.run.run_id) if is_on_cluster else None
                if run is None or run.status is not dg.DagsterRunStatus.STARTED:
                    raise
                stop.pop_all()
                raise Unattended(
                    "This run got SIGTERM, and nobody cancelled it: its node is drained, or its pod was deleted. "
                    f"{self.api.kind} {prepared.name} goes on; the next run of this training watches it, "
                    "otherwise the sensor orphaned_pods stops it.",
                    allow_retries=False,
                ) from interruption
            stop.pop_all()
        yield ending
        if ending.failure is ADMISSION and ending.exit_code is None and ending.is_final:
            return
        try:
            self.api.delete(prepared.name, grace_s=0 if ending.failure is NODE_LOST else None)
        except ApiTrouble as trouble:
            launched.log.warning(
                f"{self.api.suffix} {prepared.name} could not be deleted: {one_line(str(trouble))}. The sensor "
                "orphaned_pods will delete it."
            )
        pipes.forget(self.settings, prepared.launch.id)  # only now: a pod left alone may not have read its input

    def follow(self, launched: Launched, last: Pod | None, logs: ExitStack) -> Ending:
        """Watch an attempt to its end, and forward its lines.

        Args:
            last: its pod, if a run before this created it.
            logs: takes what reads lines: that goes on until the attempt is stopped.
        """
        logs.enter_context(StepLog(self.api, launched, is_new=last is None))
        return watching.watch(self.api, launched, last, poll_s=self.poll_s)

    def _create(self, draft: Manifest, launched: Launched) -> Ending | None:
        """Create the pod; return an ending when it was rejected, and raise when the result is unknown.

        A full quota is waited for as long as a full cluster is.
        """
        size, log = launched.size, launched.log
        until_s = time.monotonic() + size.schedule_timeout_s
        is_waiting = False
        while True:
            try:
                self.api.create(draft)
                break
            except ApiTrouble as trouble:
                left_s = until_s - time.monotonic()
                if trouble.may_be_done:
                    raise
                if trouble.meaning != "full" or left_s <= 0:
                    waited = f" for {size.schedule_timeout_s:g} s" if trouble.meaning == "full" else ""
                    return Ending(
                        failure=ADMISSION,
                        evidence=f"the Kubernetes API did not create it{waited}: {trouble}",
                        ended_at=datetime.now(UTC),
                        is_final=trouble.meaning != "again",  # what may pass is tried again
                    )
                if not is_waiting:
                    log.warning(f"{trouble}; waiting at most {size.schedule_timeout_s:g} s for the quota.")
                is_waiting = True
                launched.request.pause(min(QUOTA_POLL_S, left_s))
        name, module = launched.prepared.name, launched.request.module
        log.info(f"{module} runs as {self.api.suffix} {name} in {self.api.namespace} ({size.name}).")
        return None

    def _stop(self, launched: Launched) -> None:
        """Delete the pod and wait until it is gone, as long as its grace lasts."""
        name = launched.prepared.name
        until_s = time.monotonic() + launched.size.grace_s + 3 * self.poll_s
        try:
            self.api.delete(name)
            while time.monotonic() < until_s:
                answer = self.api.pod(name)
                launched.observation.ended_at = answer.now
                if answer.pod is None:
                    return
                time.sleep(self.poll_s)
        except ApiTrouble as trouble:
            launched.log.error(
                f"{self.api.suffix} {name} could not be stopped: {one_line(str(trouble))}. The sensor orphaned_pods "
                "stops it."
            )


def check_cluster(api: Api, pods: Mapping[str, Manifest], rights: Mapping[str, Sequence[str]] = RIGHTS) -> None:
    """Check before anything is on record or paid for that a cluster can run a step.

    It answers, is new enough, grants the rights that watching a pod needs, and takes the step's pod and the one on
    demand that may follow it: a pod that is created but cannot be watched costs money until its deadline. A namespace
    in which nothing bounds what steps take is warned of.

    Args:
        pods: that the step may need, by the name of their profile.

    Raises:
        NotReady: one sentence about what came and what to do.
    """
    try:
        if (version := api.version()) is None:
            pods, rights = {}, {}  # no API server that could be asked about them either
        elif version < OLDEST:
            oldest, answer = (".".join(map(str, numbers)) for numbers in (OLDEST, version))
            raise NotReady(
                f"The cluster runs Kubernetes {answer}; expected {oldest} or newer: update it, or name another cluster."
            )
        missing = [
            f"{verb} {resource}" for resource, verbs in rights.items() for verb in verbs if not api.may(verb, resource)
        ]
        if missing:
            raise NotReady(
                f"The account of this run may not {', '.join(missing)} in namespace {api.namespace}; {GRANT}."
            )
        for profile, pod in pods.items():
            if refusal := api.refusal(pod):
                raise NotReady(
                    f"The cluster refuses a {api.suffix} of profile {profile}: {refusal}. Change the profile, or what "
                    "refuses it."
                )
        if not api.has_quota():
            api.log(
                f"Namespace {api.namespace} has no ResourceQuota, so steps may take all that its services need to "
                "start again: apply one, such as those of deploy/kubernetes/base/quotas.yaml."
            )
    except ApiTrouble as trouble:
        raise NotReady(
            f"{trouble}: check DRIFTLINE_NAMESPACE and the cluster that KUBECONFIG names, and run this again."
        ) from None
