"""Write the command that runs a step in a container: profile and work in, arguments of podman or docker out.

Belongs here: everything that a step's container asks of the machine, as pure functions. Does not belong here: running
it, or what its end means (`container.py`).

The container may what a pod may (`manifest.py`): no capability, no new privilege, a root that is read-only, a user that
is not root. Nothing of the machine is in it but the store, where that is a folder, and the folder of saves.
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
"""Threads count too; an engine's own default may be none at all."""
MAPPED_FROM, MAPPED = 1_000_000, 65_536
"""Users of the machine for whom those of the image stand when root maps them: beyond what people and services have."""


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
        engine: which program.
        name: of the container, and its host name.
        image: of the trainer, by digest; it must be there already.
        module: `platform_assets.steps.train`.
        profile: its size and grace.
        memory_gb: in 10^9 bytes; the profile's, or its `larger_memory_gb` after out of memory.
        labels: by which it is found.
        environment: what the step is told; nothing secret, for whoever lists processes sees it.
        secrets: names of variables that it inherits from the command's own environment.
        folders: of this machine, writable, and where they appear.
        caller: user and group of this process.
        network: `none`, `host`, or None for the engine's own.

    Raises:
        ValueError: memory that cannot hold `/dev/shm`.
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
        *(word for place, inside in folders.items() for word in ("--volume", f"{place}:{inside}:rw")),
        *(word for key, value in sorted(labels.items()) for word in ("--label", f"{key}={value}")),
        *(word for key, value in sorted(environment.items()) for word in ("--env", f"{key}={value}")),
        *(word for key in sorted(secrets) for word in ("--env", key)),
        *(image, "python", "-m", module),
    ]


def network_of(root: str, store_environment: Mapping[str, str]) -> str | None:
    """Return the network that a store needs: none for a folder, the machine's own for a server on it."""
    if "://" not in root:
        return "none"
    host = urlsplit(store_environment.get("AWS_ENDPOINT_URL", "")).hostname or ""
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    return "host" if is_here else None


def _user(engine: Engine, caller: tuple[int, int], *, has_folders: bool) -> Iterator[str]:
    """Yield who the step is: the pod's user, who for the folders of this machine stands for whoever started the run.

    The folders belong to that user and nobody else may write them. podman maps users: inside it is the pod's, and even
    where root started the run, it has none of root's capabilities. docker maps none for a single container, so there
    the step has the user's own number.
    """
    uid, gid = caller
    if has_folders and engine == "docker":
        yield from ("--user", f"{uid}:{gid}")
        return
    yield from ("--user", f"{USER}:{USER}")
    if has_folders and uid:
        yield from ("--userns", f"keep-id:uid={USER},gid={USER}")
    elif has_folders:
        for option, own in (("--uidmap", uid), ("--gidmap", gid)):
            yield from (option, f"0:{MAPPED_FROM}:{USER}", option, f"{USER}:{own}:1")
            yield from (option, f"{USER + 1}:{MAPPED_FROM + USER + 1}:{MAPPED - USER - 1}")


def _accelerators(engine: Engine, profile: StepProfile) -> Iterator[str]:
    """Yield the devices: by the names of the Container Device Interface, which are those that a cluster counts by."""
    if profile.accelerators and engine == "docker":
        yield from ("--gpus", "1")
    elif profile.accelerators:
        yield from ("--device", f"{profile.accelerator_resource}=0")


def _bytes(gigabytes: float) -> str:
    """Return 10^9 bytes in whole bytes, never less."""
    return f"{math.ceil(round(gigabytes * 1e9, 3))}b"
