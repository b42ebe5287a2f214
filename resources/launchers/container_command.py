"""Build the command that runs a step in a container: profile and work in, arguments of podman or docker out.

The container is as restricted as a pod (`manifest.py`): no capabilities, no new privileges, a read-only root, a user
that is not root. From the machine it sees only the store, where that is a folder, and the folder of saves.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from platform_assets.profiles import StepProfile
from resources.launchers.manifest import SCRATCH, USER

Engine = Literal["podman", "docker"]
PROCESSES = 4096
"""Limit of processes and threads; an engine's own default may be unlimited."""
MAPPED_FROM, MAPPED = 1_000_000, 65_536
"""Users of the machine that the image's users are mapped to when root starts the run: above those of people and
services."""


def run(
    *,
    engine: Engine,
    name: str,
    image: str,
    module: str,
    profile: StepProfile,
    memory_gb: float,
    labels: Mapping[str, str],
    environment: Mapping[str, str],
    secrets: Sequence[str],
    folders: Mapping[Path, str],
    caller: tuple[int, int],
    network: str | None,
) -> list[str]:
    """Return the command that runs `python -m {module}` once, in the foreground.

    Args:
        name: of the container, and its host name.
        image: of the trainer, by digest; it must be there already.
        module: such as `platform_assets.steps.train`.
        profile: its size and grace.
        memory_gb: in 10^9 bytes; the profile's, or its `larger_memory_gb` after out of memory.
        labels: by which the container is identified.
        environment: the step's variables; no secrets, because a process list shows them.
        secrets: names of variables inherited from the command's own environment.
        folders: writable folders of this machine, with their paths in the container.
        caller: user and group of this process.
        network: `none`, `host`, or None for the engine's default.

    Raises:
        ValueError: the memory cannot hold `/dev/shm`.
    """
    profile.check_fits(memory_gb)
    memory = _bytes(memory_gb)
    return [
        *(engine, "run", "--name", name, "--hostname", name, "--pull", "never", "--log-driver", "none"),
        *("--cpus", str(profile.cores), "--memory", memory, "--memory-swap", memory),
        *("--shm-size", _bytes(profile.shm_gb), "--pids-limit", str(PROCESSES)),
        *("--stop-timeout", str(math.ceil(profile.grace_s))),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"),
        *("--tmpfs", "/tmp:rw,mode=1777", "--tmpfs", f"{SCRATCH}:rw,mode=1777"),
        *_accelerators(engine, profile),
        *_user(engine, caller, has_folders=bool(folders)),
        *(("--network", network) if network else ()),
        *(argument for folder, inside in folders.items() for argument in ("--volume", f"{folder}:{inside}:rw")),
        *(argument for key, value in sorted(labels.items()) for argument in ("--label", f"{key}={value}")),
        *(argument for key, value in sorted(environment.items()) for argument in ("--env", f"{key}={value}")),
        *(argument for key in sorted(secrets) for argument in ("--env", key)),
        *(image, "python", "-m", module),
    ]


def network_of(root: str, store_environment: Mapping[str, str]) -> str | None:
    """Return the network that a store needs: none for a folder, the host's for a server on this machine."""
    if "://" not in root:
        return "none"
    host = urlsplit(store_environment.get("AWS_ENDPOINT_URL", "")).hostname or ""
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    return "host" if is_here else None


def _user(engine: Engine, caller: tuple[int, int], *, has_folders: bool) -> Iterator[str]:
    """Yield the options that set the user: the pod's, mapped to the user who started the run if folders are mounted.

    The folders belong to that user, and nobody else may write to them. podman maps users: inside it is the pod's user,
    and even where root started the run it has none of root's capabilities. docker cannot map users for one container,
    so there the step has the user's own number.
    """
    uid, gid = caller
    if has_folders and engine == "docker":
        yield from ("--user", f"{uid}:{gid}")
        return
    yield from ("--user", f"{USER}:{USER}")
    if has_folders and uid:
        yield from ("--userns", f"keep-id:uid={USER},gid={USER}")
    elif has_folders:
        for option, number in (("--uidmap", uid), ("--gidmap", gid)):
            yield from (option, f"0:{MAPPED_FROM}:{USER}", option, f"{USER}:{number}:1")
            yield from (option, f"{USER + 1}:{MAPPED_FROM + USER + 1}:{MAPPED - USER - 1}")


def _accelerators(engine: Engine, profile: StepProfile) -> Iterator[str]:
    """Yield the options for devices, by the Container Device Interface's names, as a cluster counts them."""
    if profile.accelerators and engine == "docker":
        yield from ("--gpus", "1")
    elif profile.accelerators:
        yield from ("--device", f"{profile.accelerator_resource}=0")


def _bytes(gigabytes: float) -> str:
    """Return 10^9 bytes as whole bytes, rounded up."""
    return f"{math.ceil(round(gigabytes * 1e9, 3))}b"
