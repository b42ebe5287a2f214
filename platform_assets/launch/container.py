"""Run a step in a container of the trainer image on this machine, by podman, or by docker if podman is not installed.

The engine's program runs in the foreground and passes signals on. When this process dies, the kernel tells that program
to stop, so the step saves its work and ends; the next try resumes from there. If the signal gets lost (docker's client
was killed, or the step was still loading), the step goes on alone: the lease of a training admits one process at a
time, and a later try finds the result.

The container is as restricted as a pod (`kubernetes.manifest`): no capabilities, no new privileges, a read-only root, a
user that is not root. From the machine it sees only the store, where that is a folder, and the folder of saves.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from platform_assets.base.failures import DEADLINE, IMAGE, INIT, OUT_OF_MEMORY, may_lack_memory
from platform_assets.base.settings import AUTHORITIES, Settings, SettingsProblem
from platform_assets.base.wording import one_line
from platform_assets.launch.attempt import Launched, StepRequest, selector
from platform_assets.launch.endings import Ending, Try, of_exit
from platform_assets.launch.image import (
    SCRATCH,
    USER,
    environment,
    is_refusal,
    step_image,
    step_libraries,
    trainer_image,
)
from platform_assets.launch.local import child, wait
from platform_assets.launch.profiles import StepProfile
from platform_assets.launch.tries import NotReady, TryingLauncher
from platform_assets.store.records.attempts import ProcessLocation
from platform_assets.training import libraries

PATIENCE_S = 120.0
"""How long the engine may take to answer a command that starts and loads nothing."""
NEVER_BEGAN = (125, 126, 127)
"""Exit codes of podman and docker themselves: no container, a command that cannot be run, one that does not exist."""
MAPPED_FROM, MAPPED = 1_000_000, 65_536
"""Users of the machine that the image's users are mapped to when root starts the run: above those of people and
services."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A container's state as `inspect` of podman and docker shows it.

    Attributes:
        error: why its process never started.
    """

    exit_code: int = msgspec.field(name="ExitCode")
    is_out_of_memory: bool = msgspec.field(name="OOMKilled")
    started_at: datetime = msgspec.field(name="StartedAt")
    ended_at: datetime = msgspec.field(name="FinishedAt")
    error: str = msgspec.field(name="Error", default="")

    @property
    def began_at(self) -> datetime | None:
        """When its process started; None if it never did: engines then show the year 1."""
        return self.started_at if self.started_at.year > 1 else None


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
        self.engine = next(filter(shutil.which, ("podman", "docker")), "")
        if not self.engine:
            raise SettingsProblem(
                "DRIFTLINE_LAUNCHER is 'container', but neither podman nor docker is on PATH; install one (on Debian: "
                "apt-get install podman), or unset DRIFTLINE_LAUNCHER."
            )

    def libraries(self, size: StepProfile) -> dict[str, str]:
        """Return the library versions on the trainer image's label; without one, the image's name.

        The label of a profile's own image is that of the trainer image it was built from, so it is not read.
        """
        if size.image is not None:
            return step_libraries(self.settings, size)
        image = trainer_image(self.settings)
        label = f'--format={{{{index .Config.Labels "{libraries.LABEL}"}}}}'
        return libraries.from_text(self._ask("image", "inspect", label, image).stdout) or {libraries.IMAGE: image}

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

    def run_to_end(self, launched: Launched) -> Ending:
        """Run the container to its end; on an exception, stop it, with time to save."""
        prepared, request, size, observation = launched.prepared, launched.request, launched.size, launched.observation
        if (refusal := self._pull(size)) is not None:
            return refusal
        name, settings, scratch = prepared.name, self.settings, self.settings.scratch
        # Remove containers of this work whose launcher died before it could.
        same = [f"--filter=label={key}={value}" for key, value in selector(prepared.work).items()]
        self._ask("rm", *self._ask("ps", "--all", "--quiet", "--filter=status=exited", *same).stdout.split())
        scratch.mkdir(parents=True, exist_ok=True)
        variables = environment(settings, launched.session.get_bootstrap_env_vars(), size)
        argv = [self.engine, "run", f"--name={name}", f"--hostname={name}"]
        argv += [f"--label={key}={value}" for key, value in prepared.labels.items()]
        argv += [f"--env={key}={value}" for key, value in variables.items()]
        argv += options(self.engine, settings, request.plan, (os.getuid(), os.getgid()))
        argv += [step_image(settings, size), "python", *size.arguments(request.module, is_shared=request.is_shared)]
        observation.location = ProcessLocation(host=name, node=socket.gethostname())
        launched.log.info(f"{request.module} runs as container {name} by {self.engine} ({size.name}).")
        state = None
        try:
            # podman's monitor leaves a file `oom` in the folder where it was started.
            with child(argv, settings.child_environment(), grace_s=size.grace_s, folder=scratch) as process:
                code = wait(process, launched, timeout_s=size.deadline_s)
        finally:
            # It still runs if the engine's program was killed.
            self._ask("stop", name, timeout_s=size.grace_s + PATIENCE_S)
            inspected = self._ask("container", "inspect", "--format={{json .State}}", name)
            if inspected.returncode == 0:
                state = msgspec.json.decode(inspected.stdout, type=State)
                observation.started_at, observation.ended_at = state.began_at, state.ended_at
            self._ask("rm", "--force", name)
        late_s = size.deadline_s if code is None else None
        return ending(state, process.returncode, " ".join(observation.last_lines), late_s=late_s)

    def _pull(self, size: StepProfile) -> Ending | None:
        """Pull the image unless it is there; return why it cannot be had."""
        image = step_image(self.settings, size)
        if self._ask("image", "inspect", image).returncode == 0:
            return None
        try:
            pulled = self._ask("pull", "--quiet", image, timeout_s=size.schedule_timeout_s)
        except subprocess.TimeoutExpired:
            error = f"it was not there after {size.schedule_timeout_s:g} s"
        else:
            if pulled.returncode == 0:
                return None
            error = one_line(pulled.stderr)
        evidence = f"{self.engine} cannot pull {image}: {error}"
        return Ending(failure=IMAGE, evidence=evidence, ended_at=datetime.now(UTC), is_final=is_refusal(error))

    def _ask(self, *arguments: str, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.engine, *arguments], capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )


def options(engine: str, settings: Settings, plan: Try, caller: tuple[int, int]) -> list[str]:
    """Return the options of `run` that set a container's limits, rights, folders and network.

    The store has the same path on both sides, so that paths in messages are valid; saves must outlive their container.

    The folders belong to whoever starts the run, and nobody else may write to them. podman maps users: inside it is the
    pod's user, and even where root started the run it has none of root's capabilities. docker cannot map users for one
    container, so there the step has the user's own number. Secrets are inherited by name: a process list shows values.

    Args:
        caller: user and group of this process.

    Raises:
        ValueError: the memory cannot hold `/dev/shm`.
    """
    size, root, user, (uid, gid) = plan.profile, settings.root, USER, caller
    as_pod = f"--user={user}:{user}"
    size.check_fits(plan.memory_gb)
    memory, shm = (f"{math.ceil(round(gigabytes * 1e9, 3))}b" for gigabytes in (plan.memory_gb, size.shm_gb))
    result = [
        *("--pull=never", "--log-driver=none", f"--stop-timeout={math.ceil(size.grace_s)}"),
        # Of processes and threads; an engine's own limit may be none.
        *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=4096"),
        *("--read-only", "--tmpfs=/tmp:rw,mode=1777", f"--tmpfs={SCRATCH}:rw,mode=1777"),
        *(f"--cpus={size.cores}", f"--memory={memory}", f"--memory-swap={memory}", f"--shm-size={shm}"),
        *(f"--env={key}" for key in sorted(settings.store_secrets)),
    ]
    if settings.has_authorities:
        result.append(f"--volume={AUTHORITIES}:{AUTHORITIES}:ro")
    if size.accelerators:
        devices = [f"--device={size.accelerator_resource}={number}" for number in range(size.accelerators)]
        result += [f"--gpus={size.accelerators}"] if engine == "docker" else devices
    if "://" in root:
        host = urlsplit(dict(settings.store_environment).get("AWS_ENDPOINT_URL", "")).hostname
        return [*result, as_pod, *(["--network=host"] if host in ("localhost", "127.0.0.1", "::1") else [])]
    saves = settings.replace(state=Path(SCRATCH)).scratch
    result += ["--network=none", f"--volume={root}:{root}:rw", f"--volume={settings.scratch}:{saves}:rw"]
    if engine == "docker":
        return [*result, f"--user={uid}:{gid}"]
    result.append(as_pod)
    if uid:
        return [*result, f"--userns=keep-id:uid={user},gid={user}"]
    for option, own in (("--uidmap", uid), ("--gidmap", gid)):
        result += [f"{option}=0:{MAPPED_FROM}:{user}", f"{option}={user}:{own}:1"]
        result.append(f"{option}={user + 1}:{MAPPED_FROM + user + 1}:{MAPPED - user - 1}")
    return result


def ending(state: State | None, exit_code: int, last_output: str, *, late_s: float | None = None) -> Ending:
    """Return how a container ended.

    Args:
        state: from its engine; None when the engine does not know the container.
        exit_code: of the engine's program.
        last_output: the last lines; the engine's own message when nothing was started.
        late_s: the profile's deadline, if it passed before it ended.
    """
    now = datetime.now(UTC)
    if exit_code in NEVER_BEGAN if state is None else state.began_at is None:
        error = one_line((state and state.error) or last_output) or "no error message"
        evidence = f"its container could not start: {error}"
        return Ending(failure=INIT, evidence=evidence, exit_code=exit_code, ended_at=now)
    code = state.exit_code if state else exit_code
    failure, evidence = of_exit(code, "its container", killed="not because of its memory")
    if failure is not None and state and state.is_out_of_memory and may_lack_memory(code):
        failure, evidence = OUT_OF_MEMORY, "a process of its container was killed because of its memory"
    elif failure is not None and late_s is not None:
        failure, evidence = DEADLINE, f"it was still at work after the profile's {late_s:g} s"
    began_at, ended_at = (state.began_at, state.ended_at) if state else (None, now)
    return Ending(failure=failure, evidence=evidence, exit_code=code, started_at=began_at, ended_at=ended_at)
