"""Trainings of the tiny product that processes of torchrun's agents share, in a store of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from dagster_pipes import encode_param

from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.launch.last_lines import NodeEnd
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.trainings import TRAININGS
from tests.doubles import tiny_product
from tests.doubles.tiny_rank import Plan

PATIENCE_S = 600
KILLED = 128 + signal.SIGKILL


class Shared:
    """Trainings of the tiny product in a store of their own, by as many processes as each asks for."""

    def __init__(self, folder: Path, root: str | None = None) -> None:
        folder.mkdir()
        self.settings = Settings(root=root or str(folder / "store"), state=folder / "state")
        self.plan, self.folder, self.messages = folder / "plan", folder, folder / "pipes"
        self.extras = tiny_product.store(self.settings)
        self.ledgers = Ledgers(self.settings.root, "tiny")

    @contextmanager
    def started(self, processes: int = 2, **plan: Any) -> Iterator[subprocess.Popen[str]]:
        """Start the agent of a node that is alone."""
        with self.on_nodes([[]], processes, **plan) as agents:
            yield agents[0]

    @contextmanager
    def on_nodes(
        self, nodes: Sequence[Sequence[str]], processes: int = 1, *, address: str = "127.0.0.1", **plan: Any
    ) -> Iterator[list[subprocess.Popen[str]]]:
        """Start an agent of so many processes on each node.

        Args:
            nodes: what a node's command begins with, such as `ip netns exec NAME`.
            address: of the first node.
        """
        extras = {**self.extras, "world_size": len(nodes) * processes}
        self.plan.write_bytes(msgspec.json.encode(Plan(extras=extras, **plan)))
        agent = [sys.executable, "-m", "platform_assets.launch.torchrun", f"--processes={processes}", "--grace-s=30"]
        environment = {
            **os.environ,
            **self.settings.to_environment(),
            "TINY_RANK": str(self.plan),
            "DAGSTER_PIPES_CONTEXT": encode_param({}),
            "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(self.messages / "messages")}),
        }
        port = free_port()
        with ExitStack() as stack:
            agents = list[subprocess.Popen[str]]()
            for rank, node in enumerate(nodes):
                place = {"NNODES": len(nodes), "NODE_RANK": rank, "MASTER_ADDR": address, "MASTER_PORT": port}
                started = subprocess.Popen(
                    [*node, *agent, "tests.doubles.tiny_rank"],
                    cwd=REPOSITORY,
                    env=environment | {f"PET_{name}": str(value) for name, value in place.items() if len(nodes) > 1},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                agents.append(stack.enter_context(started))
                stack.callback(started.kill)
            yield agents

    def run(self, processes: int = 2, **plan: Any) -> tuple[int, str]:
        """Return exit code and output of a training on one node; nothing of it is left."""
        ((code, output),) = self.run_on(1, processes, **plan)
        return code, output

    def run_on(self, nodes: int, processes: int = 1, **plan: Any) -> list[tuple[int, str]]:
        """Return exit code and output of each node of a training; nothing of it is left."""
        with self.on_nodes([[]] * nodes, processes, **plan) as agents:
            ended = ends(agents)
        assert self.at_work() == []
        return ended

    def at_work(self, *variables: str) -> list[int]:
        """Return the processes of this training, agents included, or those with variables such as `RANK=1`."""
        signs = {f"\0{text}\0".encode() for text in (f"TINY_RANK={self.plan}", *variables)}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                is_alive = (folder / "stat").read_text(encoding="ascii").rpartition(") ")[2][0] != "Z"
                environment = b"\0" + (folder / "environ").read_bytes()
            except OSError:
                continue
            if is_alive and all(sign in environment for sign in signs):
                found.append(int(folder.name))
        return found

    def checkpoint(self) -> str:
        result: dict[str, Any] = msgspec.json.decode((self.folder / "result").read_bytes())
        return str(result["checkpoint"])

    def node_end(self, node: int = 0) -> NodeEnd:
        """Return what the agent of a node stored of its end."""
        return msgspec.json.decode((self.messages / f"node-{node}.json").read_bytes(), type=NodeEnd)

    def losses(self) -> dict[int, float]:
        lines = (self.folder / "losses").read_text(encoding="utf-8").splitlines()
        return {int(step): float(loss) for step, loss in (line.split() for line in lines)}

    def log_losses(self) -> list[float]:
        return [float(record.quality["log_loss"] or 0) for _, record in self.ledgers.of(TRAININGS).records()]

    def reasons(self) -> list[str]:
        return [record["reason"] for _, record in self.ledgers.records("attempts")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ends(agents: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    outputs = [agent.communicate(timeout=PATIENCE_S)[0] for agent in agents]
    return [(agent.returncode, output) for agent, output in zip(agents, outputs, strict=True)]


def wait(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def handles(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)
