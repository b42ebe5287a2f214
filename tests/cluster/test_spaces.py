"""Namespaces and cables of a cluster, without Kubernetes in them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster import cleanup, keeper
from tests.cluster.requirements import missing
from tests.cluster.spaces import HOST, Cable, Space, prepare_host
from tests.cluster.waiting import wait_until

PATIENCE_S = 30.0


@pytest.fixture
def name() -> str:
    if sentence := missing(os.environ):
        pytest.skip(sentence)
    return cleanup.new_name()


@pytest.fixture
def host(name: str) -> Iterator[Space]:
    with keeper.opened(name) as space:
        prepare_host(space)
        yield space


def test_a_cut_cable_loses_packets_until_it_is_plugged_again(host: Space) -> None:
    node, cable = host.open_inner("true"), Cable(host, 1)
    cable.lay(node)
    _wait_until_reached(node)
    cable.cut()
    assert not _reaches(node)
    cable.plug()
    _wait_until_reached(node)


def test_a_power_cut_ends_the_processes_of_a_node_and_its_network(host: Space, name: str) -> None:
    node, cable = host.open_inner("true"), Cable(host, 1)
    cable.lay(node)
    service = node.start("sleep", "sleep", "1000", log=cleanup.folder_of(name) / "sleep.log")
    process = psutil.Process(service.pid())
    node.end()
    assert not process.is_running()
    assert "node1" not in host.run("ip", "link")
    again = host.open_inner("true")
    cable.lay(again)
    _wait_until_reached(again)


def test_what_a_node_mounts_is_seen_in_no_other_place(host: Space, name: str) -> None:
    folder = cleanup.folder_of(name) / "disk"
    folder.mkdir()
    node = host.open_inner(f"mount -t tmpfs tmpfs /run; mount --bind {folder} /var/lib")
    assert str(folder) in node.run("cat", "/proc/self/mountinfo")
    assert name not in host.run("cat", "/proc/self/mountinfo")
    assert name not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def test_a_thread_is_back_in_its_own_network_after_a_visit(host: Space) -> None:
    before = Path("/proc/thread-self/ns/net").readlink()
    with host.network():
        assert Path("/proc/thread-self/ns/net").readlink() == Path(f"/proc/{host.init}/ns/net").readlink() != before
    assert Path("/proc/thread-self/ns/net").readlink() == before


def test_the_next_start_removes_what_a_killed_keeper_left(name: str) -> None:
    with keeper.opened(name) as space:
        init = psutil.Process(space.init)
        unshare = psutil.Process(init.ppid())
        group = cleanup.hierarchies()[0] / name / "node-1"
        group.mkdir(parents=True)
        assert name not in cleanup.sweep(), "a cluster that lives was removed"
        os.kill(unshare.ppid(), signal.SIGKILL)
        wait_until(lambda: not init.is_running(), PATIENCE_S, "the init has died with its keeper")
        assert group.exists()
        assert name in cleanup.sweep()
        assert not group.exists()
        assert not cleanup.folder_of(name).exists()


def _wait_until_reached(node: Space) -> None:
    """Wait until the node reaches the control plane: the kernel looks at links that came up once per second only."""
    wait_until(lambda: _reaches(node), PATIENCE_S, "the node reaches the control plane")


def _reaches(node: Space) -> bool:
    """Return whether the control plane answers the node, if only to say that nothing listens on the port."""
    command = node.command("timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{HOST}/9")
    return "refused" in subprocess.run(command, capture_output=True, text=True, check=False).stderr
