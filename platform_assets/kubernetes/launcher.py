"""Run a step as a pod: create it, follow it, find out why it ended, and delete it.

A pod outlives the run that created it: a replacement run finds it by its labels and goes on watching it. Its record is
written before it is deleted. A cancelled run stops its pod, with time to save its work.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
import msgspec
from dagster_pipes import DAGSTER_PIPES_MESSAGES_ENV_VAR, decode_param

from platform_assets.base.failures import ADMISSION, NODE_LOST
from platform_assets.base.settings import Settings
from platform_assets.base.wording import one_line
from platform_assets.engine.outside import Work
from platform_assets.kubernetes import manifest, pods, readiness, unseen
from platform_assets.kubernetes.api import ATTEMPT, Answer, Api
from platform_assets.kubernetes.manifest import Manifest, launch_of
from platform_assets.kubernetes.pod_status import Node, Pod
from platform_assets.kubernetes.responses import ApiTrouble
from platform_assets.kubernetes.step_log import StepLog
from platform_assets.kubernetes.watching import PodWatch
from platform_assets.launch import names, pipes, profiles, records
from platform_assets.launch.attempt import Attempt
from platform_assets.launch.endings import Ending, Try
from platform_assets.launch.image import step_libraries, trainer_image, trainer_libraries
from platform_assets.launch.names import name_of
from platform_assets.launch.profiles import StepProfile
from platform_assets.launch.step_profile import ZONE
from platform_assets.launch.tries import StepRequest, TryingLauncher, Unattended
from platform_assets.store.records.attempts import Launch, ProcessLocation

if TYPE_CHECKING:
    from kubernetes.client import Configuration

POLL_S = 2.0
QUOTA_POLL_S = 5.0
OURS = {"app.kubernetes.io/managed-by": "driftline"}


class KubernetesLauncher(TryingLauncher):
    """Runs a step as a pod of the trainer image in the settings' namespace.

    Args:
        configuration: address and credentials; None for those of the pod that this runs in, otherwise `KUBECONFIG`.
        poll_s: seconds between two looks at a pod.
        patience_s: how long the API may be unavailable.
    """

    name = "kubernetes"

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
        self.api = Api(settings.namespace, configuration, patience_s=patience_s)
        self._adopted: dict[str, Pod] = {}

    def libraries(self, size: StepProfile) -> dict[str, str]:
        """Return the image's library versions from settings or profile: its label cannot be read from here."""
        return step_libraries(self.settings, size)

    def under_way(self, context: dg.AssetExecutionContext, work: Work) -> Launch | None:
        """Return an attempt whose pod is there already, and take it over.

        Raises:
            Unattended: nobody can say whether there is one; another must not start.
        """
        self.api.log = context.log.warning
        try:
            existing = self.api.pods(names.selector(work))
            existing_ids = {pod.labels.get(ATTEMPT) for pod in existing}
            for attempt in records.open_attempts(self.settings, work):
                if attempt.id not in existing_ids and not _is_of_another_run(context, attempt.run_id):
                    unseen.settle(self.settings, self.api, attempt.launch())
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
            context.log.info(f"pod {pod.name} of run {launch.run_id} is already at this step; watching it from now on.")
            self._adopted[launch.id] = pod
            return msgspec.structs.replace(launch, run_id=context.run.run_id)
        return None

    def check(self, request: StepRequest) -> None:
        """Ask the cluster whether it can run the step, in this size and in the one on demand that may follow.

        Raises:
            NotReady: it cannot.
        """
        self.api.log = request.context.log.warning
        sizes = [request.plan.profile]
        if sizes[0].on_demand:
            sizes.append(profiles.profile(sizes[0].on_demand))
        manifests = {size.name: self._draft(request, replace(request.plan, profile=size)) for size in sizes}
        readiness.check(self.api, manifests)

    def _draft(self, request: StepRequest, plan: Try) -> Manifest:
        launch = records.begin(request.work, plan, run_id=request.context.run.run_id, launcher=self.name)
        return manifest.pod(self.settings, request.module, plan, launch, {})

    def announce(self, launch: Launch) -> None:
        """Record that a pod is about to be created: this process may be killed before the pod ends."""
        records.announce(self.settings, launch)

    def sessions(
        self, context: dg.AssetExecutionContext, extras: object, launch: Launch
    ) -> AbstractContextManager[dg.PipesSession]:
        """Open a session for a new pod, or the session of a pod that is there already."""
        pod = self._adopted.get(launch.id)
        messages = None if pod is None else decode_param(pod.environment[DAGSTER_PIPES_MESSAGES_ENV_VAR])
        return pipes.session(context, extras, launch, self.settings, is_lasting=True, messages=messages)

    def attempt(self, attempt: Attempt) -> Ending:
        """Create the pod unless it is there, watch it to its end; on an exception, stop it, with time to save.

        Raises:
            Unattended: it goes on, because the API does not answer or only this run has to go.
        """
        self.api.log = attempt.context.log.warning
        pod = self._adopted.pop(attempt.launch.id, None)
        name = pod.name if pod else name_of(attempt.launch)
        variables = attempt.session.get_bootstrap_env_vars()
        new = None if pod else manifest.pod(self.settings, attempt.module, attempt.plan, attempt.launch, variables)
        attempt.observation.location = ProcessLocation(host=name)
        with ExitStack() as stack:
            try:
                if new is not None and (ending := self._create(name, new, attempt)) is not None:
                    return ending
                if pod and pod.step:
                    attempt.observation.started_at = pod.step.started_at
                stack.enter_context(StepLog(self.api, name, attempt, is_new=pod is None))
                return self._watch(name, attempt, pod)
            except ApiTrouble as trouble:
                raise Unattended(
                    f"{one_line(str(trouble))}. Pod {name} in namespace {self.api.namespace} may be at work and is "
                    "left alone: run this asset again to go on watching it; otherwise the sensor orphaned_pods stops "
                    "it.",
                    allow_retries=False,
                ) from trouble
            except BaseException as error:  # including Dagster's interruption
                is_drained = False
                try:
                    is_drained = isinstance(error, dg.DagsterExecutionInterruptedError) and self._is_drained(attempt)
                finally:  # also where Dagster's storage does not answer
                    if not is_drained:
                        self._stop(name, attempt)
                if is_drained:
                    raise Unattended(
                        "This run got SIGTERM, and nobody cancelled it: its node is drained, or its pod was "
                        f"deleted. Pod {name} goes on; the next run of this training watches it, otherwise the sensor "
                        "orphaned_pods stops it.",
                        allow_retries=False,
                    ) from error
                raise

    def _is_drained(self, attempt: Attempt) -> bool:
        """Return whether a run that gets SIGTERM has only lost its place: on a cluster, unless somebody cancelled it.

        Dagster notes that a run is being cancelled before it ends its pod.
        """
        if self.settings.environment != "cluster":
            return False  # Ctrl-C
        context = attempt.context
        run = context.instance.get_run_by_id(context.run.run_id)
        return run is not None and run.status is dg.DagsterRunStatus.STARTED

    def clear(self, context: dg.AssetExecutionContext, launch: Launch, ending: Ending) -> None:
        """Delete the pod of a recorded attempt; at once when its node does not answer."""
        if ending.failure is ADMISSION and ending.exit_code is None and ending.is_final:
            return
        try:
            self.api.delete(name_of(launch), grace_s=0 if ending.failure is NODE_LOST else None)
        except ApiTrouble as trouble:
            context.log.warning(
                f"pod {name_of(launch)} could not be deleted: {one_line(str(trouble))}. The sensor orphaned_pods "
                "will delete it."
            )
        pipes.forget(self.settings, launch.id)

    def _create(self, name: str, new: Manifest, attempt: Attempt) -> Ending | None:
        """Create the pod; return an ending when it was rejected, and raise when the result is unknown.

        A full quota is waited for as long as a full cluster is.
        """
        timeout_s = attempt.size.schedule_timeout_s
        until_s = time.monotonic() + timeout_s
        is_waiting = False
        while True:
            try:
                self.api.create(new)
                break
            except ApiTrouble as trouble:
                left_s = until_s - time.monotonic()
                if trouble.may_be_done:
                    raise
                if trouble.meaning != "full" or left_s <= 0:
                    return classify_rejection(trouble, timeout_s)
                if not is_waiting:
                    attempt.context.log.warning(f"{trouble}; waiting at most {timeout_s:g} s for the quota.")
                is_waiting = True
                time.sleep(min(QUOTA_POLL_S, left_s))
        attempt.context.log.info(f"{attempt.module} runs as pod {name} in {self.api.namespace} ({attempt.size.name}).")
        return None

    def _watch(self, name: str, attempt: Attempt, last: Pod | None) -> Ending:
        """Follow the pod to its end; stop it if it has failed without having ended.

        Args:
            last: the pod as it was last seen.
        """
        node: Node | None = None
        stopped: Ending | None = None
        heartbeats = unseen.Heartbeats(self.settings, attempt.launch)
        with PodWatch(self.api, name) as watch:
            while True:
                answer = self.api.pod(name)
                if (pod := answer.pod) is None:
                    last = watch.last() or last
                node = self._note(pod or last, node, attempt)
                ending = self._judge(name, answer, attempt.size, node, last)
                last = pod or last
                if _is_lost(ending) and not (pod and pod.is_over) and self._outlives(heartbeats, answer, attempt):
                    ending = None
                if stopped and attempt.observation.started_at is None and not _is_lost(ending):
                    ending = stopped  # what it looks like while it is being stopped counts only if it started meanwhile
                if ending is not None and (pod is None or pod.is_over):
                    return unseen.complete(self.settings, attempt.launch, ending, answer, last, node)
                if ending is not None and pod is not None and (stopped is None or _is_lost(ending)):
                    if not self.api.delete(name, grace_s=0 if _is_lost(ending) else None, version=pod.version):
                        continue  # it has changed since it was judged
                    if _is_lost(ending):
                        return unseen.complete(self.settings, attempt.launch, ending, answer, last, node)
                    stopped = ending
                watch.wait(self.poll_s)

    def _outlives(self, heartbeats: unseen.Heartbeats, answer: Answer, attempt: Attempt) -> bool:
        """Return whether a step goes on although its cluster has lost it, within its deadline; its lease is its own."""
        began_at = attempt.observation.started_at
        if began_at is None or (answer.now - began_at).total_seconds() > attempt.size.deadline_s:
            return False
        return heartbeats.are_fresh()

    def _judge(
        self, name: str, answer: Answer, profile: StepProfile, node: Node | None, last: Pod | None
    ) -> Ending | None:
        """Return how the try ended; None while it goes on."""
        judge = partial(pods.ending, answer.pod, now=answer.now, profile=profile, node=node, last_seen=last)
        ending, newest = judge(), answer.pod or last
        if ending is not None or (newest and newest.phase == "Pending"):
            # Events are many and weak evidence: they are read only where the pod itself may show too little.
            ending = judge(events=self.api.events(name, newest.node if newest else ""))
        return ending

    def _note(self, newest: Pod | None, node: Node | None, attempt: Attempt) -> Node | None:
        """Note what a pod shows of its attempt, and return its node."""
        if newest is None:
            return node
        attempt.observation.asked_at = newest.created_at
        if newest.step and newest.step.started_at:
            attempt.observation.started_at = newest.step.started_at
        _note_wait(newest, attempt)
        if newest.node:
            node = self.api.node(newest.node)
            self._note_node(newest.node, node, attempt)
        return node

    def _note_node(self, on: str, node: Node | None, attempt: Attempt) -> None:
        zone = node.labels.get(ZONE) if node else None
        location, data_zone = attempt.observation.location, attempt.size.data_zone
        is_new = location.node != on
        attempt.observation.location = msgspec.structs.replace(location, node=on, zone=zone or location.zone)
        if is_new and zone and data_zone and zone != data_zone:
            attempt.context.log.warning(
                f"the step runs in zone {zone} but its data is in {data_zone} (profile {attempt.size.name}): all "
                "traffic crosses zones and is charged. To wait for a node there, set data_zone_only."
            )

    def _stop(self, name: str, attempt: Attempt) -> None:
        """Delete the pod and wait until it is gone, as long as its grace lasts."""
        until_s = time.monotonic() + attempt.size.grace_s + 3 * self.poll_s
        try:
            self.api.delete(name)
            while time.monotonic() < until_s:
                answer = self.api.pod(name)
                attempt.observation.ended_at = answer.now
                if answer.pod is None:
                    return
                time.sleep(self.poll_s)
        except ApiTrouble as trouble:
            attempt.context.log.error(
                f"pod {name} could not be stopped: {one_line(str(trouble))}. The sensor orphaned_pods stops it."
            )


def _is_of_another_run(context: dg.AssetExecutionContext, run_id: str | None) -> bool:
    """Return whether another run in progress has an attempt: it may be about to create its pod, and records its end."""
    run = context.instance.get_run_by_id(run_id) if run_id and run_id != context.run.run_id else None
    return run is not None and not run.is_finished


def _note_wait(pod: Pod, attempt: Attempt) -> None:
    """Say in the run's log why a pod has no node, as often as the scheduler's reason changes."""
    scheduled, observation = pod.condition("PodScheduled"), attempt.observation
    why = "" if pod.has_node else one_line(scheduled.message)
    if why and why != observation.waits_for:
        attempt.context.log.info(f"the step waits for a node ({attempt.size.name}): {why}")
    observation.waits_for = why


def _is_lost(ending: Ending | None) -> bool:
    return ending is not None and ending.failure is NODE_LOST


def classify_rejection(trouble: ApiTrouble, timeout_s: float) -> Ending:
    """Classify a rejected pod creation. Final, except for trouble of the API that may pass.

    Args:
        timeout_s: how long a full quota was waited for.
    """
    waited = f" for {timeout_s:g} s" if trouble.meaning == "full" else ""
    return Ending(
        failure=ADMISSION,
        evidence=f"the Kubernetes API did not create the pod{waited}: {trouble}",
        ended_at=datetime.now(UTC),
        is_final=trouble.meaning != "again",
    )
