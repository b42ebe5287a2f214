"""Run a step in a container of the trainer image on this machine, by podman, or docker where that is not there.

Belongs here: the course of one try, and what its end means. Does not belong here: the command (`container_command.py`),
how a child is started, heard and ended (`foreground.py`), or trying again (`tries.py`).

The container is watched by its engine's program in the foreground, which hands signals on. When this process dies the
kernel tells that program to stop, so the step saves its work and ends; the next try goes on from there. Should it not
hear (docker's client was killed, or the step was still loading), it goes on alone: the lease of a training lets one
work at a time, and whoever comes later finds the result.
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
from resources.launchers.evidence import NEVER_AN_IMAGE
from resources.launchers.image import environment, trainer_image
from resources.launchers.pod_status import instant, one_line
from resources.launchers.tries import TryingLauncher

PATIENCE_S = 120.0
"""How long an engine may take for an answer that starts and loads nothing."""
NEVER_BEGAN = (125, 126, 127)
"""Exit codes of podman and docker of their own: no container, a command that cannot be run, one that is not there."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What an engine shows of a container.

    Attributes:
        started_at: None: its process never began.
        error: what the engine says of that.
    """

    is_running: bool = False
    exit_code: int = 0
    is_out_of_memory: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str = ""


class ContainerLauncher(TryingLauncher):
    """Runs a step in a container on this machine, within the profile's size.

    A store that is a folder appears in the container under its own path, and the step has no network. One on S3 is
    reached by the variables of this process; keys among them are inherited by name, and so in no list of processes.
    When the run is cancelled the step gets SIGTERM and the profile's `grace_s` to save its work.
    """

    name = "container"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.image = trainer_image(settings)
        self.engine = engine()

    def libraries(self) -> dict[str, str]:
        """Return what the image's label says of its libraries; of an image without one, which image it is."""
        shown = self._ask("image", "inspect", "--format={{json .Labels}}", self.image)
        labels = json.loads(shown.stdout) if shown.returncode == 0 and shown.stdout.startswith("{") else {}
        return libraries.from_text(labels.get(libraries.LABEL, "")) or {libraries.IMAGE: self.image}

    @contextmanager
    def sessions(self, context: dg.AssetExecutionContext, extras: object, launch: Launch) -> Iterator[dg.PipesSession]:
        """Open what a step is told and how it answers: below the store's root, the only place that both may write."""
        try:
            with pipes.session(context, extras, launch, self.settings, is_lasting=True) as session:
                yield session
        finally:
            pipes.forget(self.settings, launch.id)

    def attempt(self, this: Attempt) -> Ending:
        """Run the container to its end; on an exception, end it with time to save."""
        size, seen = this.size, this.seen
        if (lacking := self._lacking(size)) is not None:
            return lacking
        work = records.work_of(this.launch)
        name = manifest.pod_name(work, this.id)
        labels = manifest.labels(work=work, attempt=this.id, run_id=this.launch.run_id, profile=size)
        self._sweep(labels)
        command = self._command(name, this, labels)
        seen.where = ProcessLocation(host=name, node=socket.gethostname())
        this.context.log.info(f"{this.module} runs as container {name} by {self.engine} ({size.name}).")
        environment = self.settings.child_environment()
        try:
            with (
                # podman's monitor leaves a file `oom` in the folder where it was started.
                TemporaryDirectory() as folder,
                foreground.child(command, environment, grace_s=size.grace_s, folder=Path(folder)) as child,
            ):
                code = foreground.wait(child, this, timeout_s=size.deadline_s)
        finally:
            state = self._ended(name, size)
            if state is not None:
                seen.started_at, seen.ended_at = state.started_at, state.ended_at
            self._ask("rm", "--force", name)
        return ending(
            state, child.returncode, is_late=code is None, said=" ".join(seen.last_lines), deadline_s=size.deadline_s
        )

    def _command(self, name: str, this: Attempt, labels: Mapping[str, str]) -> list[str]:
        settings = self.settings
        folders = folders_of(settings)
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        return container_command.run(
            engine=self.engine,
            name=name,
            image=self.image,
            module=this.module,
            profile=this.size,
            memory_gb=this.plan.memory_gb,
            labels=labels,
            environment=environment(settings, this.session.get_bootstrap_env_vars(), manifest.SCRATCH),
            secrets=settings.store_secrets,
            folders=folders,
            caller=(os.getuid(), os.getgid()),
            network=container_command.network_of(settings.root, dict(settings.store_environment)),
        )

    def _lacking(self, size: StepProfile) -> Ending | None:
        """Fetch the image unless it is there; return why it cannot be had."""
        if self._ask("image", "inspect", self.image).returncode == 0:
            return None
        try:
            pulled = self._ask("pull", "--quiet", self.image, timeout_s=size.schedule_timeout_s)
        except subprocess.TimeoutExpired:
            said, is_final = f"{self.engine} had not pulled {self.image} after {size.schedule_timeout_s:g} s", False
        else:
            if pulled.returncode == 0:
                return None
            why = one_line(pulled.stderr)
            said, is_final = f"{self.engine} cannot pull {self.image}: {why}", bool(NEVER_AN_IMAGE.search(why))
        return Ending(failure=IMAGE, said=said, ended_at=datetime.now(UTC), is_final=is_final)

    def _sweep(self, labels: Mapping[str, str]) -> None:
        """Remove what is left of this work's containers whose launcher died before it could."""
        same = [f"--filter=label={key}={labels[key]}" for key in ("driftline/fingerprint", "driftline/step")]
        found = self._ask("ps", "--all", "--filter=status=exited", *same, "--format={{.Names}}")
        for name in found.stdout.split():
            self._ask("rm", name)

    def _ended(self, name: str, size: StepProfile) -> State | None:
        """Return how a container ended; one whose program in the foreground was killed is stopped first."""
        state = self._state(name)
        if state is not None and state.is_running:
            grace_s = int(size.grace_s)
            self._ask("stop", "--time", str(grace_s), name, timeout_s=grace_s + PATIENCE_S)
            state = self._state(name)
        return state

    def _state(self, name: str) -> State | None:
        shown = self._ask("container", "inspect", name)
        return read_state(json.loads(shown.stdout)[0]) if shown.returncode == 0 else None

    def _ask(self, *words: str, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.engine, *words],
            env=self.settings.child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )


def engine() -> Engine:
    """Return the program that runs containers here.

    Raises:
        SettingsProblem: there is none.
    """
    known: Sequence[Engine] = ("podman", "docker")
    for program in known:
        if shutil.which(program):
            return program
    raise SettingsProblem(
        "DRIFTLINE_LAUNCHER is 'container' and neither podman nor docker is on PATH; install one (on Debian: apt-get "
        "install podman), or unset DRIFTLINE_LAUNCHER."
    )


def folders_of(settings: Settings) -> dict[Path, str]:
    """Return the folders of this machine that a step needs, and where it sees them; none where the store is on S3.

    The root has one path on both sides, so that what is told by path holds; saves must outlive their container.
    """
    if "://" in settings.root:
        return {}
    inside = settings.replace(state=Path(manifest.SCRATCH))
    return {Path(settings.root): settings.root, settings.scratch: str(inside.scratch)}


def read_state(shown: object) -> State:
    """Return what `inspect` shows of a container, by podman and docker alike."""
    state, code = member(shown, "State"), member(shown, "State", "ExitCode")
    return State(
        is_running=bool(member(state, "Running")),
        exit_code=code if isinstance(code, int) else 0,
        is_out_of_memory=bool(member(state, "OOMKilled")),
        started_at=instant(member(state, "StartedAt")),
        ended_at=instant(member(state, "FinishedAt")),
        error=text(state, "Error"),
    )


def ending(state: State | None, exit_code: int, *, is_late: bool, said: str, deadline_s: float) -> Ending:
    """Say how a container ended.

    Args:
        state: what its engine showed; None when it knows no such container.
        exit_code: of the engine's program.
        is_late: the deadline had passed before it ended.
        said: what came last, the engine's own words when nothing was started.
    """
    if state is None or state.started_at is None:
        if state is not None or exit_code in NEVER_BEGAN:
            why = one_line(state.error if state and state.error else said) or "it gave no reason"
            said = f"its container could not begin: {why}"
            return Ending(failure=INIT, said=said, exit_code=exit_code, ended_at=datetime.now(UTC))
        state = State(exit_code=exit_code, ended_at=datetime.now(UTC))
    failure, why = of_exit(state.exit_code, "its container", killed="not for its memory")
    if failure is not None and state.is_out_of_memory:
        failure, why = OUT_OF_MEMORY, "a process of its container was killed for its memory"
    elif failure is not None and is_late:
        failure, why = DEADLINE, f"it was still at work after the profile's {deadline_s:g} s"
    return Ending(
        failure=failure, said=why, exit_code=state.exit_code, started_at=state.started_at, ended_at=state.ended_at
    )
