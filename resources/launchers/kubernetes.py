"""Run a step as a pod: create it, follow it, say why it ended, and take it away.

Belongs here: the course of one try on a cluster. Does not belong here: how a pod looks (`manifest.py`), what its
status means (`pods.py`), requests (`api.py`), or trying again (`tries.py`).

A pod outlives the run that asked for it, so that a replaced run finds it by its labels and goes on watching it. Its
record is written before it is deleted. A cancelled run ends its pod with time to save its work.
"""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
import msgspec
from dagster_pipes import DAGSTER_PIPES_MESSAGES_ENV_VAR, PipesParams, decode_param

from platform_assets import profiles
from platform_assets.failures import ADMISSION, NODE_LOST
from platform_assets.records.attempts import Launch, ProcessLocation
from platform_assets.settings import Settings
from resources.launchers import manifest, pipes, pods, records
from resources.launchers.api import ATTEMPT, Api
from resources.launchers.attempt import Attempt
from resources.launchers.endings import Ending, Work
from resources.launchers.image import trainer_image, trainer_libraries
from resources.launchers.objects import Manifest
from resources.launchers.pod_status import Node, Pod
from resources.launchers.responses import ApiTrouble
from resources.launchers.step_pod import launch_of, pod_of
from resources.launchers.tries import TryingLauncher, Unattended

if TYPE_CHECKING:
    from kubernetes.client import Configuration

POLL_S = 2.0
FOUND_BY = ("driftline/fingerprint", "driftline/step")
OURS = {"app.kubernetes.io/managed-by": "driftline"}
LOG_DRAIN_S = 10.0


class KubernetesLauncher(TryingLauncher):
    """Runs a step as a pod of the trainer image in the settings' namespace.

    Args:
        configuration: address and credentials; None for those of the pod that this runs in, or else of `KUBECONFIG`.
        poll_s: how often a pod is looked at.
        patience_s: how long the API may be in trouble.
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
        trainer_image(settings), trainer_libraries(settings)  # or refuse now, before anything is on record
        self.poll_s = poll_s
        self.api = Api(settings.namespace, configuration, patience_s=patience_s)
        self._found: dict[str, Pod] = {}

    def libraries(self) -> dict[str, str]:
        """Return what the settings say of the image's libraries: nobody here can read its label."""
        return trainer_libraries(self.settings)

    def under_way(self, context: dg.AssetExecutionContext, work: Work) -> Launch | None:
        """Return an attempt whose pod is there already, and take it over.

        Raises:
            Unattended: nobody says whether there is one; another must not begin.
        """
        self.api.tell = context.log.warning
        labels = manifest.labels(work=work, attempt="", run_id="", profile=profiles.profile("cpu_small"))
        try:
            found = self.api.pods({name: labels[name] for name in FOUND_BY})
        except ApiTrouble as trouble:
            if trouble.meaning == "again":
                raise Unattended(
                    f"{trouble} A pod that is at this step already could not be looked for in namespace "
                    f"{self.api.namespace}, so none was begun: run this asset again when the API answers.",
                    allow_retries=False,
                ) from trouble
            # Whoever may not even look will be refused the pod too, and that has a class.
            context.log.warning(f"a pod that is at this step already could not be looked for: {trouble}")
            return None
        there_ids = {pod.labels.get(ATTEMPT) for pod in found}
        for attempt in records.abandoned(self.settings, work):
            if attempt.id not in there_ids:
                records.settle(self.settings, work, attempt.launch())
        for pod in found:
            launch = launch_of(pod)
            if launch is None or launch.fingerprint != work.fingerprint:
                continue
            context.log.info(
                f"pod {pod.name} of run {launch.run_id} is at this step already; it is watched from here on."
            )
            self._found[launch.id] = pod
            return msgspec.structs.replace(launch, run_id=context.run.run_id)
        return None

    def announce(self, work: Work, launch: Launch) -> None:
        """Put on record that a pod is asked for: this process may be killed before its end is known."""
        records.announce(self.settings, work, launch)

    def sessions(
        self, context: dg.AssetExecutionContext, extras: object, launch: Launch
    ) -> AbstractContextManager[dg.PipesSession]:
        """Open what a new pod is told, or what one that is there already was told to write to."""
        pod = self._found.get(launch.id)
        messages = None if pod is None else _messages(pod)
        return pipes.session(context, extras, launch, self.settings, is_lasting=True, messages=messages)

    def attempt(self, this: Attempt) -> Ending:
        """Create the pod unless it is there, watch it to its end; on an exception, end it with time to save."""
        self.api.tell = this.context.log.warning
        pod = self._found.pop(this.id, None)
        name = pod.name if pod else _pod_name(this.launch)
        told = this.session.get_bootstrap_env_vars()
        new = None if pod else pod_of(self.settings, name, this.module, this.plan, this.launch, told)
        this.seen.where = ProcessLocation(host=name)
        is_over = threading.Event()
        reader = threading.Thread(target=self._follow, args=(name, is_over, this), daemon=True)
        try:
            if new is not None and (ending := self._create(name, new, this)) is not None:
                return ending
            reader.start()
            return self._watch(name, this)
        except ApiTrouble as trouble:
            raise Unattended(
                f"{trouble} Pod {name} in namespace {self.api.namespace} may be at work and is left alone: run this "
                "asset again and it is found; otherwise the sensor orphaned_pods ends it.",
                allow_retries=False,
            ) from trouble
        except BaseException:  # Dagster's interruption too: whatever it was, nobody watches the pod any more
            self._stop(name, this)
            raise
        finally:
            is_over.set()
            if reader.ident is not None:
                reader.join(timeout=LOG_DRAIN_S)
            this.seen.is_over = True

    def clear(self, context: dg.AssetExecutionContext, launch: Launch, ending: Ending) -> None:
        """Take the pod of a recorded attempt away; at once when its node will not answer."""
        if ending.failure is ADMISSION and ending.exit_code is None and ending.is_final:
            return
        try:
            self.api.delete(_pod_name(launch), grace_s=0 if ending.failure is NODE_LOST else None)
        except ApiTrouble as trouble:
            context.log.warning(
                f"pod {_pod_name(launch)} could not be deleted: {trouble} The sensor orphaned_pods will."
            )
        pipes.forget(self.settings, launch.id)

    def _create(self, name: str, new: Manifest, this: Attempt) -> Ending | None:
        """Create the pod; return the ending of an attempt that has none, and raise while nobody knows."""
        try:
            self.api.create(new)
        except ApiTrouble as trouble:
            if trouble.may_be_done:
                raise
            return refused(trouble)
        this.context.log.info(f"{this.module} runs as pod {name} in {self.api.namespace} ({this.size.name}).")
        return None

    def _watch(self, name: str, this: Attempt) -> Ending:
        last: Pod | None = None
        node: Node | None = None
        while True:
            answer = self.api.pod(name)
            pod = answer.found
            shown = pod or last
            if shown and shown.node:
                node = self.api.node(shown.node)
                self._place(shown.node, node, this)
            this.seen.asked_at = shown.created_at if shown else None
            if shown and shown.step and shown.step.started_at:
                this.seen.started_at = shown.step.started_at
            judge = partial(pods.ending, pod, now=answer.now, profile=this.size, node=node, last_seen=last)
            ending = judge()
            if (ending is None and shown and shown.phase == "Pending") or (
                ending is not None and ending.failure is not None
            ):
                # Events are many and say least: they are asked for where the pod itself may say too little.
                ending = judge(events=self.api.events(name))
            if ending is not None and ending.ended_at is None:
                if this.seen.started_at or ending.failure is NODE_LOST:
                    return records.unseen(self.settings, this.launch, ending, given_up_at(node) or answer.now)
                return replace(ending, ended_at=answer.now)
            if ending is not None:
                return ending
            last = shown
            time.sleep(self.poll_s)

    def _place(self, on: str, node: Node | None, this: Attempt) -> None:
        zone = node.labels.get(manifest.ZONE) if node else None
        where, wanted = this.seen.where, this.size.data_zone
        is_new = where.node != on
        this.seen.where = msgspec.structs.replace(where, node=on, zone=zone or where.zone)
        if is_new and zone and wanted and zone != wanted:
            this.context.log.warning(
                f"the step runs in zone {zone} and its data are in {wanted} (profile {this.size.name}): every byte "
                "crosses zones and is paid for. Give the profile a node selector for the data's zone."
            )

    def _stop(self, name: str, this: Attempt) -> None:
        """Ask the pod to stop and wait until it has, as long as its grace lasts."""
        until_s = time.monotonic() + this.size.grace_s + 3 * self.poll_s
        try:
            self.api.delete(name)
            while time.monotonic() < until_s:
                answer = self.api.pod(name)
                this.seen.ended_at = answer.now
                if answer.found is None:
                    return
                time.sleep(self.poll_s)
        except ApiTrouble as trouble:
            this.context.log.error(f"pod {name} could not be stopped: {trouble} The sensor orphaned_pods ends it.")

    def _follow(self, name: str, is_over: threading.Event, this: Attempt) -> None:
        """Forward the step's lines until it is over; a stream that was cut is taken up again where it was."""
        from kubernetes import client
        from urllib3.exceptions import HTTPError

        newest, heard_s = "", time.monotonic()
        while True:
            was_over = is_over.is_set()
            since_s = int(time.monotonic() - heard_s) + 2 if newest else None
            try:
                lines = self.api.lines(name, container=manifest.CONTAINER, follow=not was_over, since_s=since_s)
                for stamp, line in lines:
                    if stamp > newest:
                        newest, heard_s = stamp, time.monotonic()
                        this.seen.wrote(line, this.context.log)
            except (client.ApiException, ApiTrouble, HTTPError, OSError):
                pass  # Not started yet, gone, or cut: what became of the pod is told by its status.
            if was_over:
                return
            is_over.wait(self.poll_s)


def _pod_name(launch: Launch) -> str:
    """Return the name of an attempt's pod: the same for a request that is repeated."""
    return manifest.pod_name(records.work_of(launch), launch.id)


def refused(trouble: ApiTrouble) -> Ending:
    """Say what it means that the API did not create a pod: for good, but for a quota, which others may free."""
    return Ending(
        failure=ADMISSION,
        said=f"the Kubernetes API did not create the pod: {trouble}",
        ended_at=datetime.now(UTC),
        is_final=trouble.meaning not in ("full", "again"),
    )


def given_up_at(node: Node | None) -> datetime | None:
    """Return since when the cluster does not hear of a node; None where it does, or never knew it."""
    return node.ready.since if node and node.ready.status == "Unknown" else None


def _messages(pod: Pod) -> PipesParams:
    """Return where a pod writes its messages."""
    params: PipesParams = decode_param(pod.environment[DAGSTER_PIPES_MESSAGES_ENV_VAR])
    return params
