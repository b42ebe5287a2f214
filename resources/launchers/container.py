"""Run a step in a container of the trainer image on this machine, by podman, or by docker if podman is not installed.

The engine's program runs in the foreground and passes signals on. When this process dies, the kernel tells that program
to stop, so the step saves its work and ends; the next try resumes from there. If the signal gets lost (docker's client
was killed, or the step was still loading), the step goes on alone: the lease of a training admits one process at a
time, and a later try finds the result.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg

from platform_assets import libraries
from platform_assets.failures import DEADLINE, IMAGE, INIT, OUT_OF_MEMORY
from platform_assets.profiles import StepProfile
from platform_assets.records.attempts import Launch, ProcessLocation
from platform_assets.records.values import member, text
from platform_assets.settings import Settings, SettingsProblem
from resources.launchers import container_command, foreground, manifest, pipes, records
from resources.launchers.attempt import Attempt
from resources.launchers.container_command import Engine
from resources.launchers.endings import Ending, of_exit
from resources.launchers.evidence import is_refusal
from resources.launchers.image import environment, step_image, step_libraries, trainer_image
from resources.launchers.pod_status import instant, one_line
from resources.launchers.readiness import NotReady
from resources.launchers.tries import StepRequest, TryingLauncher

PATIENCE_S = 120.0
"""How long the engine may take to answer a command that starts and loads nothing."""
NEVER_BEGAN = (125, 126, 127)
"""Exit codes of podman and docker themselves: no container, a command that cannot be run, one that does not exist."""


@dataclass(frozen=True, kw_only=True)
class State:
    """A container's state as its engine shows it.

    Attributes:
        started_at: None if its process never started.
        error: the engine's reason for that.
    """

    is_running: bool = False
    exit_code: int = 0
    is_out_of_memory: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str = ""


class ContainerLauncher(TryingLauncher):
    """Runs a step in a container on this machine, within the profile's size.

    A store that is a folder appears in the container under its own path, and the step has no network. A store on S3 is
    reached by the variables of this process; keys among them are inherited by name, so that no process list shows them.
    When the run is cancelled, the step gets SIGTERM and the profile's `grace_s` to save its work.
    """

    name = "container"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        trainer_image(settings)  # raises now, before anything is on record
        self.engine = engine()

    def libraries(self, size: StepProfile) -> dict[str, str]:
        """Return the library versions on the trainer image's label; without one, the image's name.

        The label of a profile's own image is that of the trainer image it was built from, so it is not read.
        """
        if size.image is not None:
            return step_libraries(self.settings, size)
        image = trainer_image(self.settings)
        result = self._ask("image", "inspect", "--format={{json .Labels}}", image)
        labels = json.loads(result.stdout) if result.returncode == 0 and result.stdout.startswith("{") else {}
        return libraries.from_text(labels.get(libraries.LABEL, "")) or {libraries.IMAGE: image}

    def check(self, request: StepRequest) -> None:
        """Refuse a part of a GPU: a container gets a whole one, at another price.

        Raises:
            NotReady: the profile has one.
        """
        size = request.plan.profile
        if size.is_part_of_gpu:
            raise NotReady(
                f"Profile {size.name} has {size.accelerator_resource}, a part of a GPU, which only a cluster gives to "
                "a step; expected one with nvidia.com/gpu."
            )

    @contextmanager
    def sessions(self, context: dg.AssetExecutionContext, extras: object, launch: Launch) -> Iterator[dg.PipesSession]:
        """Open a session with its files below the store's root, the only folder that both sides may write to."""
        try:
            with pipes.session(context, extras, launch, self.settings, is_lasting=True) as session:
                yield session
        finally:
            pipes.forget(self.settings, launch.id)

    def attempt(self, attempt: Attempt) -> Ending:
        """Run the container to its end; on an exception, stop it, with time to save."""
        size, observation = attempt.size, attempt.observation
        if (refusal := self._pull(size)) is not None:
            return refusal
        work = records.work_of(attempt.launch)
        name = manifest.pod_name(work, attempt.id)
        labels = manifest.labels(work=work, attempt=attempt.id, run_id=attempt.launch.run_id, profile=size)
        self._sweep(labels)
        command = self._command(name, attempt, labels)
        observation.location = ProcessLocation(host=name, node=socket.gethostname())
        attempt.context.log.info(f"{attempt.module} runs as container {name} by {self.engine} ({size.name}).")
        environment = self.settings.child_environment()
        try:
            with (
                # podman's monitor leaves a file `oom` in the folder where it was started.
                TemporaryDirectory() as folder,
                foreground.child(command, environment, grace_s=size.grace_s, folder=Path(folder)) as child,
            ):
                code = foreground.wait(child, attempt, timeout_s=size.deadline_s)
        finally:
            state = self._stop(name, size)
            if state is not None:
                observation.started_at, observation.ended_at = state.started_at, state.ended_at
            self._ask("rm", "--force", name)
        return ending(
            state,
            child.returncode,
            is_late=code is None,
            last_output=" ".join(observation.last_lines),
            deadline_s=size.deadline_s,
        )

    def _command(self, name: str, attempt: Attempt, labels: Mapping[str, str]) -> list[str]:
        settings = self.settings
        folders = folders_of(settings)
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        return container_command.run(
            engine=self.engine,
            name=name,
            image=step_image(settings, attempt.size),
            module=attempt.module,
            profile=attempt.size,
            memory_gb=attempt.plan.memory_gb,
            labels=labels,
            environment=environment(
                settings, attempt.session.get_bootstrap_env_vars(), manifest.SCRATCH, attempt.size.threads
            ),
            secrets=settings.store_secrets,
            folders=folders,
            caller=(os.getuid(), os.getgid()),
            network=container_command.network_of(settings.root, dict(settings.store_environment)),
        )

    def _pull(self, size: StepProfile) -> Ending | None:
        """Pull the image unless it is there; return why it cannot be had."""
        image = step_image(self.settings, size)
        if self._ask("image", "inspect", image).returncode == 0:
            return None
        try:
            pulled = self._ask("pull", "--quiet", image, timeout_s=size.schedule_timeout_s)
        except subprocess.TimeoutExpired:
            evidence = f"{self.engine} had not pulled {image} after {size.schedule_timeout_s:g} s"
            is_final = False
        else:
            if pulled.returncode == 0:
                return None
            error = one_line(pulled.stderr)
            evidence = f"{self.engine} cannot pull {image}: {error}"
            is_final = is_refusal(error)
        return Ending(failure=IMAGE, evidence=evidence, ended_at=datetime.now(UTC), is_final=is_final)

    def _sweep(self, labels: Mapping[str, str]) -> None:
        """Remove leftover containers of this work whose launcher died before it could."""
        same = [f"--filter=label={key}={labels[key]}" for key in ("driftline/fingerprint", "driftline/step")]
        exited = self._ask("ps", "--all", "--filter=status=exited", *same, "--format={{.Names}}")
        for name in exited.stdout.split():
            self._ask("rm", name)

    def _stop(self, name: str, size: StepProfile) -> State | None:
        """Return how a container ended; stop it first if it still runs because the engine's program was killed."""
        state = self._state(name)
        if state is not None and state.is_running:
            grace_s = int(size.grace_s)
            self._ask("stop", "--time", str(grace_s), name, timeout_s=grace_s + PATIENCE_S)
            state = self._state(name)
        return state

    def _state(self, name: str) -> State | None:
        result = self._ask("container", "inspect", name)
        return read_state(json.loads(result.stdout)[0]) if result.returncode == 0 else None

    def _ask(self, *arguments: str, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.engine, *arguments],
            env=self.settings.child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )


def engine() -> Engine:
    """Return the program that runs containers on this machine.

    Raises:
        SettingsProblem: there is none.
    """
    programs: Sequence[Engine] = ("podman", "docker")
    for program in programs:
        if shutil.which(program):
            return program
    raise SettingsProblem(
        "DRIFTLINE_LAUNCHER is 'container', but neither podman nor docker is on PATH; install one (on Debian: apt-get "
        "install podman), or unset DRIFTLINE_LAUNCHER."
    )


def folders_of(settings: Settings) -> dict[Path, str]:
    """Return the folders of this machine that a step needs, with their paths in the container; none for S3.

    The root has the same path on both sides, so that paths in messages are valid; saves must outlive their container.
    """
    if "://" in settings.root:
        return {}
    inside = settings.replace(state=Path(manifest.SCRATCH))
    return {Path(settings.root): settings.root, settings.scratch: str(inside.scratch)}


def read_state(document: object) -> State:
    """Return a container's state from the output of `inspect`, which podman and docker share."""
    state, code = member(document, "State"), member(document, "State", "ExitCode")
    return State(
        is_running=bool(member(state, "Running")),
        exit_code=code if isinstance(code, int) else 0,
        is_out_of_memory=bool(member(state, "OOMKilled")),
        started_at=instant(member(state, "StartedAt")),
        ended_at=instant(member(state, "FinishedAt")),
        error=text(state, "Error"),
    )


def ending(state: State | None, exit_code: int, *, is_late: bool, last_output: str, deadline_s: float) -> Ending:
    """Return how a container ended.

    Args:
        state: from its engine; None when the engine does not know the container.
        exit_code: of the engine's program.
        is_late: whether the deadline passed before it ended.
        last_output: the last lines; the engine's own message when nothing was started.
    """
    if state is None or state.started_at is None:
        if state is not None or exit_code in NEVER_BEGAN:
            error = one_line(state.error if state and state.error else last_output) or "no error message"
            evidence = f"its container could not start: {error}"
            return Ending(failure=INIT, evidence=evidence, exit_code=exit_code, ended_at=datetime.now(UTC))
        state = State(exit_code=exit_code, ended_at=datetime.now(UTC))
    failure, evidence = of_exit(state.exit_code, "its container", killed="not because of its memory")
    if failure is not None and state.is_out_of_memory:
        failure, evidence = OUT_OF_MEMORY, "a process of its container was killed because of its memory"
    elif failure is not None and is_late:
        failure, evidence = DEADLINE, f"it was still at work after the profile's {deadline_s:g} s"
    return Ending(
        failure=failure,
        evidence=evidence,
        exit_code=state.exit_code,
        started_at=state.started_at,
        ended_at=state.ended_at,
    )
