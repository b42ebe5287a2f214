"""A pytest that is killed leaves nothing of its cluster."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.cluster import cleanup
from tests.cluster.requirements import missing
from tests.cluster.waiting import wait_until

STARTED_S = 480.0
REMOVED_S = 10.0
PROGRAMS = {
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "docker-registry",
    "containerd",
    "kubelet",
    "kube-proxy",
    "containerd-shim-runc-v2",
    "sleep",
    "catatonit",
}
SPACES = ("net", "pid", "mnt", "ipc", "uts")


def test_a_killed_session_leaves_no_process_namespace_mount_or_cgroup(repository: Path, tmp_path: Path) -> None:
    if sentence := missing(os.environ):
        pytest.skip(sentence)
    file = tmp_path / "name"
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/cluster/held_cluster.py"]
    session = subprocess.Popen(
        argv, cwd=repository, env={**os.environ, "HELD_CLUSTER_FILE": str(file)}, stdout=subprocess.PIPE, text=True
    )
    wait_until(lambda: file.exists() or session.poll() is not None, STARTED_S, "the session has a cluster and a pod")
    assert session.poll() is None, session.communicate()[0]
    name = json.loads(file.read_text(encoding="ascii"))
    processes = psutil.Process(session.pid).children(recursive=True)
    spaces = {space for process in processes for space in _spaces(process.pid)} - _spaces(os.getpid())
    assert {_program(process) for process in processes} >= PROGRAMS
    kinds = Counter(space.partition(":")[0] for space in spaces)
    assert min(kinds["net"], kinds["pid"], kinds["mnt"]) >= 4, "control plane, two nodes and a pod have their own"
    assert _mounts(name)
    assert cleanup.cgroups(name)

    session.kill()
    session.communicate()
    wait_until(
        lambda: not _left(name, processes, spaces),
        REMOVED_S,
        f"nothing is left of {name}",
        lambda: "\n".join(_left(name, processes, spaces)),
    )


def _left(name: str, processes: list[psutil.Process], spaces: set[str]) -> list[str]:
    """Return what there still is of a cluster."""
    left = [f"process {process}" for process in processes if _program(process)]
    left += [f"{space} of {pid}" for pid in psutil.pids() for space in spaces & _spaces(pid)]
    left += [f"mount {line}" for line in _mounts(name)]
    left += [f"named {line}" for line in _mounts("nsfs") if any(space in line for space in spaces)]
    return left + [str(path) for path in (*cleanup.cgroups(name), cleanup.folder_of(name)) if path.exists()]


def _program(process: psutil.Process) -> str:
    """Return the name of a process's program; nothing if it has ended, reaped or not."""
    try:
        return str((process.cmdline() or [""])[0]).rpartition("/")[2]
    except psutil.NoSuchProcess:
        return ""


def _spaces(pid: int) -> set[str]:
    """Return the namespaces of a process, as `net:[4026531840]`; none if it has just ended."""
    try:
        return {str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in SPACES}
    except OSError:
        return set()


def _mounts(text: str) -> set[str]:
    """Return the mounts of all processes that mention a text."""
    lines: set[str] = set()
    for pid in psutil.pids():
        try:
            mounts = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        lines |= {line for line in mounts.splitlines() if text in line}
    return lines
