"""Linux namespaces for a cluster and its nodes, processes inside of them, and cables between them.

A space is a network, process and mount namespace with one init process. Killing the init ends every process of the
space and unmounts everything that was mounted in it: the kernel does both, whatever the processes were doing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.cluster.waiting import wait_until

STARTED_S = 30.0
HOST = "10.244.255.1"
"""Address of the control plane, and of whatever else a test runs next to it, for nodes and pods."""
CABLES = "172.30.0.0/16"
"""Addresses of the nodes, and of the control plane at its ends of the cables: as which pods see callers outside."""
CLONE_NEWNET = 0x40000000
UNSHARE = ("unshare", "--pid", "--mount", "--net", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-euc")
# Mounts of the space do not reach the machine; below the space they propagate, which the kubelet expects of /.
INIT = "mount --make-rshared /; ip link set lo up; echo 1 >/proc/sys/net/ipv4/ip_forward; echo ready; exec catatonit -P"


@dataclass
class Service:
    """A process that runs in a space, and its log."""

    name: str
    argv: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes]

    def is_running(self) -> bool:
        return self.process.poll() is None

    def pid(self) -> int:
        """Return the process id as the machine counts; nsenter, which started it, waits as its parent."""
        nsenter = psutil.Process(self.process.pid)
        wait_until(lambda: bool(nsenter.children()), STARTED_S, f"{self.name} has started", self.tail)
        return int(nsenter.children()[0].pid)

    def send(self, number: int) -> None:
        os.kill(self.pid(), number)
        if number == signal.SIGCONT:
            os.kill(self.process.pid, number)  # nsenter stops with its child, and does not go on with it

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.is_running():
            os.kill(self.pid(), number)
        self.process.wait(30)

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


@dataclass
class Space:
    """Namespaces that exist as long as their init.

    Attributes:
        init: process id of the init, as the machine counts.
        opener: the process whose descendant the init is; None for the cluster's, whose parent is its keeper.
    """

    init: int
    opener: subprocess.Popen[str] | None = None
    services: list[Service] = field(default_factory=list)
    inner: list[Space] = field(default_factory=list)

    def command(self, *argv: str) -> list[str]:
        """Return the command that runs `argv` in this space. Its working directory is /."""
        return ["nsenter", f"--target={self.init}", "--pid", "--mount", "--net", "--", *argv]

    def run(self, *argv: str, text: str | None = None) -> str:
        """Run a command to its end and return what it printed; raise with its errors if it fails."""
        ended = subprocess.run(
            self.command(*argv), input=text, capture_output=True, text=True, env=environment(), check=False
        )
        if ended.returncode:
            raise RuntimeError(f"{' '.join(argv)} ended with {ended.returncode}: {ended.stderr or ended.stdout}")
        return ended.stdout

    def shell(self, script: str) -> str:
        """Run a shell script that stops at its first error."""
        return self.run("sh", "-euc", script)

    def start(self, name: str, *argv: str, log: Path) -> Service:
        """Start a process that runs until it is killed or the space ends."""
        with log.open("ab") as output:
            # A session of its own: Ctrl-C in the terminal is for pytest, which then stops the cluster.
            process = subprocess.Popen(
                self.command(*argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(),
                start_new_session=True,
            )
        service = Service(name, argv, log, process)
        self.services.append(service)
        return service

    def open_inner(self, prepare: str) -> Space:
        """Open a space inside of this one, in which the shell commands `prepare` have run."""
        opener = subprocess.Popen(
            self.command(*UNSHARE, f"{prepare}; {INIT}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        space = Space(wait_for_init(opener), opener)
        self.inner.append(space)
        return space

    def end(self) -> None:
        """Kill the init, and with it everything in the space, in no order: a power cut."""
        os.kill(self.init, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        """Wait until the space, whose init was killed, has ended with all that is in it."""
        for space in self.inner:
            space.wait()
        for service in self.services:
            service.process.wait(30)
        if self.opener:
            self.opener.communicate(timeout=30)

    @contextmanager
    def network(self) -> Iterator[None]:
        """Move this thread, and what it starts, into the space's network; connections stay where they were opened."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        inside = os.open(f"/proc/{self.init}/ns/net", os.O_RDONLY)
        try:
            _set_network(inside)
            yield
        finally:
            _set_network(before)
            os.close(before)
            os.close(inside)


def environment() -> dict[str, str]:
    """Return this process's environment without proxies, none of which can be reached from a space."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def wait_for_init(opener: subprocess.Popen[str]) -> int:
    """Return the process id of the init that `opener` starts, once it is ready."""
    assert opener.stdout is not None
    if opener.stdout.readline().strip() != "ready":
        raise RuntimeError(f"no namespaces could be opened: {opener.communicate()[1]}")
    # nsenter and unshare fork, and wait for what they start: the init is the last of a chain.
    return int(psutil.Process(opener.pid).children(recursive=True)[-1].pid)


def prepare_host(space: Space) -> None:
    """Give the control plane's network its address, on a cable that ends at itself."""
    space.shell(
        "ip link add host0 type veth peer name host1; ip link set host1 up; ip link set host0 up;"
        f"ip address add {HOST}/24 dev host0; ip route add default dev host0"
    )


@dataclass(frozen=True)
class Cable:
    """The cable from the control plane to one node, and the routes to the node's pods.

    Attributes:
        number: of the node: its addresses are 172.30.NUMBER.2 and, for pods, 10.244.NUMBER.0/24.
    """

    host: Space
    number: int

    @property
    def address(self) -> str:
        """The node's address."""
        return f"172.30.{self.number}.2"

    @property
    def pods(self) -> str:
        """Addresses of the node's pods."""
        return f"10.244.{self.number}.0/24"

    def lay(self, node: Space) -> None:
        """Connect the node."""
        gateway = f"172.30.{self.number}.1"
        # In the network namespace alone: `ip` finds the other end by the machine's process id.
        add = f"ip link add node{self.number} type veth peer name up0 netns {node.init}"
        subprocess.run(["nsenter", f"--target={self.host.init}", "--net", *add.split()], check=True)
        self.host.shell(f"ip address add {gateway}/30 dev node{self.number}")
        node.shell(f"ip address add {self.address}/30 dev up0; ip link set up0 up; ip route add default via {gateway}")
        self.plug()

    def plug(self) -> None:
        """Connect the end at the control plane, and set the routes that the kernel dropped when it was cut."""
        routes = [self.pods, "10.96.0.0/16"] if self.number == 1 else [self.pods]  # one node serves Services outside
        self.host.shell(
            f"ip link set node{self.number} up;"
            + ";".join(f"ip route add {route} via {self.address}" for route in routes)
        )

    def cut(self) -> None:
        """Cut it: packets are lost in silence on both sides, processes go on."""
        self.host.shell(f"ip link set node{self.number} down")


def _set_network(descriptor: int) -> None:
    """Call setns(2), which `os` offers from Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
