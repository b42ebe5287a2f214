"""Nodes that a cable joins end by name when it is cut, and a process that was cut off writes nothing afterwards."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_assets.store.objects import open_store
from platform_assets.store.records.trainings import CHECKPOINTS
from platform_assets.training.steps.process import EXIT_PEER_LOST
from tests.doubles.shared_training import Shared, ends, wait

pytestmark = pytest.mark.slow

LONG = {"epochs": 20_000}


class Network:
    """Two nodes, each with a network of its own, and a cable between them."""

    addresses = ("10.77.0.1", "10.77.0.2")

    def __init__(self) -> None:
        self.names = [f"driftline-{os.getpid()}-{node}" for node in range(2)]

    def make(self) -> None:
        one, other = self.names
        for name in self.names:
            self._ip("netns", "add", name)
            self._ip("-n", name, "link", "set", "lo", "up")
        self._ip("-n", one, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", other)
        for name, address in zip(self.names, self.addresses, strict=True):
            self._ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            self._ip("-n", name, "link", "set", "cable", "up")

    def cut(self) -> None:
        self._ip("-n", self.names[1], "link", "set", "cable", "down")

    def remove(self) -> None:
        for name in self.names:
            self._ip("netns", "delete", name)

    @property
    def nodes(self) -> list[list[str]]:
        """What commands on each node begin with."""
        return [["ip", "netns", "exec", name] for name in self.names]

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root: to make a network of two nodes")
    made = Network()
    try:
        made.make()
        yield made
    finally:
        made.remove()


def listening(pid: int) -> set[str]:
    """Return the IPv4 addresses at which somebody listens in a process's network."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    sockets = [line.split()[1].partition(":")[0] for line in lines if line.split()[3] == "0A"]
    return {".".join(str(byte) for byte in reversed(bytes.fromhex(address))) for address in sockets}


@pytest.mark.costly
def test_nodes_of_which_one_is_cut_off_end_by_name(tmp_path: Path, network: Network) -> None:
    shared = Shared(tmp_path / "shared")
    losses = shared.folder / "losses"
    with shared.on_nodes(network.nodes, address=network.addresses[0], training=LONG) as agents:
        wait(lambda: losses.exists() and losses.read_bytes().count(b"\n") > 20)
        assert [listening(agent.pid) for agent in agents] == [{address} for address in network.addresses]
        network.cut()
        ended = ends(agents)
    assert [code for code, _ in ended] == [EXIT_PEER_LOST] * 2, ended
    assert "node 1 of 2 has been silent for 25 s" in shared.node_end(0).said[0]
    assert "of node 0 of 2 has been silent for 25 s" in shared.node_end(1).said[0]
    assert shared.at_work() == []


@pytest.mark.thorough
def test_a_process_that_was_away_while_another_attempt_took_its_lease_saves_and_reports_nothing(
    tmp_path: Path, s3_root: str
) -> None:
    shared = Shared(tmp_path / "shared", s3_root)
    with shared.on_nodes([[], []], dies={"0": (20, signal.SIGSTOP)}, least_s=600.0) as away:
        wait(lambda: bool(stopped := shared.at_work("RANK=0")) and _is_stopped(stopped[0]))
        (first,) = shared.at_work("RANK=0")
        with shared.on_nodes([[], []]) as others:
            assert [code for code, _ in ends(others)] == [0, 0]
        result, records = shared.checkpoint(), list(shared.ledgers.of(CHECKPOINTS).records())
        os.kill(first, signal.SIGCONT)
        ended = ends(away)
    assert [code for code, _ in ended] == [1, EXIT_PEER_LOST], ended
    assert "LeaseLost: " in ended[0][1]
    assert (shared.checkpoint(), list(shared.ledgers.of(CHECKPOINTS).records())) == (result, records)
    assert [entry["path"] for batch in open_store(s3_root).list("saves") for entry in batch] == []


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] == "T"


@pytest.mark.thorough
def test_a_disk_that_is_full_while_the_first_process_saves_is_one_error_of_the_step(tmp_path: Path) -> None:
    shared = Shared(tmp_path / "shared")
    scratch = shared.settings.scratch
    scratch.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", scratch], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        ended = shared.run_on(2)
    finally:
        subprocess.run(["umount", "--lazy", scratch], check=True)
    assert [code for code, _ in ended] == [1, EXIT_PEER_LOST], ended
    assert "OSError: [Errno 28] No space left on device" in ended[0][1]
    assert shared.reasons() == ["code"]
