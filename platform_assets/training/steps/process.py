"""Handle signals and usage counters of a step's process: die with the parent, stop on request. Linux first."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType

from platform_assets.base.problems import Problem

PR_SET_PDEATHSIG = 1
EXIT_PREEMPTED = 128 + signal.SIGTERM
"""Exit status of a process ended by SIGTERM, in shells and Kubernetes; launchers restart such a step at once."""
EXIT_PEER_LOST = 76
"""Of a node whose processes ended only because those of another one had, or were not to be reached."""
EXIT_HUNG = 77
"""Of a process that ended itself because no step had ended for too long, and of its node."""


class Preempted(SystemExit):
    """The step was asked to stop and has saved its work; the process ends with `EXIT_PREEMPTED`."""

    def __init__(self) -> None:
        super().__init__(EXIT_PREEMPTED)


class PeerLost(Problem, RuntimeError):
    """Another process of the same step is gone, so this one cannot go on; the cause is elsewhere."""


class Hung(Problem, RuntimeError):
    """No step of this process has ended for too long."""


class StopRequest:
    """Whether this process was asked to stop. Signals only set a flag; the step ends where it is safe."""

    def __init__(self) -> None:
        self.is_set = False

    def listen(self) -> StopRequest:
        """Treat SIGTERM and SIGINT as requests from now on, and return itself."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)
        return self

    def check(self) -> None:
        """Raise `Preempted` if there was a request."""
        if self.is_set:
            raise Preempted

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True


def exit_on_sigterm() -> None:
    """Exit on SIGTERM at once, for a step with nothing to save: a container's first process ignores it by default."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_PREEMPTED))


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when the thread that started it ends (Linux; no-op elsewhere)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def cpu_s() -> float:
    """Return the CPU seconds that this process has used, children included."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def oom_kills(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processes of this container the kernel has killed for memory; 0 where nothing counts them.

    Args:
        groups: where its control group is mounted, of version 2 or 1.
    """
    # Not every container runtime says OOMKilled when the kernel killed a child of a container's first process.
    for name in ("memory.events", "memory/memory.oom_control"):
        if (groups / name).exists():
            lines = (groups / name).read_text(encoding="ascii").splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def received_bytes(devices: Path = Path("/proc/self/net/dev")) -> int | None:
    """Return what this process's network has received since it exists, in a pod the pod's own; None where unknown.

    Args:
        devices: the kernel's table, one line per device; the loopback device does not count.
    """
    if not devices.exists():
        return None
    lines = [line.split(":", 1) for line in devices.read_text(encoding="ascii").splitlines() if ":" in line]
    return sum(int(counts.split()[0]) for name, counts in lines if name.strip() != "lo")


def peak_memory_mb() -> float:
    """Return the largest resident memory of this process in 10^6 bytes.

    Linux passes `ru_maxrss` on from the process that forked this one, so this process's own mark is read instead.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
