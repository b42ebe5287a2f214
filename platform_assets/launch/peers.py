"""Meet the agents of a step's other nodes in torch's store, which the first one serves, and notice when one ends."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from platform_assets.base.problems import Problem
from platform_assets.training.steps import process
from platform_assets.training.steps.process import PeerLost

if TYPE_CHECKING:
    from torch.distributed import Store

BEAT_S = 0.5
SILENT_S = 25.0
"""How long an agent may be silent: a node that is cut off closes no connection. Below the watchdog's 30 s."""
NOTICE_S = 10.0
"""How long processes have, after another node's agent ended, to notice it themselves and leave their records."""
LOOPBACK = "127.0.0.1"
GET_ADDRESS = 0x8915
"""Linux's request SIOCGIFADDR, for the IPv4 address of a network device."""


class Misplaced(Problem):
    """An agent's variables do not give it a place among the step's nodes, or its network does not lead to them."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an agent is among those of a step's nodes.

    Attributes:
        nodes: how many there are.
        rank: the number of this one; the first serves the store.
        address: IPv4 address of the first.
        port: of the store; 0 takes a free one.
    """

    nodes: int = 1
    rank: int = 0
    address: str = LOOPBACK
    port: int = 0

    def device(self) -> str:
        """Return the network device of the route to the first node; on that one, of its own address.

        Raises:
            Misplaced: there is none.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
            route.connect((self.address, self.port))  # sends nothing
            own, names = route.getsockname()[0], [name for _, name in socket.if_nameindex()]
            for name in names:
                with suppress(OSError):  # a device without an address
                    request = struct.pack("256s", name.encode())
                    if socket.inet_ntoa(fcntl.ioctl(route.fileno(), GET_ADDRESS, request)[20:24]) == own:
                        return name
        raise Misplaced(
            f"none of the network devices {', '.join(names)} has {own}, this node's address on the way to "
            f"{self.address}; expected one. Look at the pod's network."
        )

    def serve(self) -> Store:
        """Serve torch's store at this place; an agent's own store of the same port here becomes a client of it.

        Raises:
            Misplaced: this is not the address's machine, or another process has the port.
        """
        from torch.distributed import TCPStore

        try:
            # torch's own server would listen at all addresses.
            listener = socket.create_server((self.address, self.port))
        except OSError as problem:
            reason = os.strerror(problem.errno or 0)  # its own text repeats the address
            raise Misplaced(
                f"node 0 cannot listen at {self.address}:{self.port} ({reason}); expected an address of its own and a "
                "free port. Look at PET_MASTER_ADDR, PET_MASTER_PORT and the Service that names the node."
            ) from None
        address, port = listener.getsockname()
        return TCPStore(
            address, port, is_master=True, wait_for_workers=False, multi_tenant=True, master_listen_fd=listener.detach()
        )

    def connect(self) -> Store:
        """Return the first node's store; raise `OSError` until it answers."""
        from torch.distributed import TCPStore

        with socket.create_connection((self.address, self.port), timeout=BEAT_S):
            return TCPStore(self.address, self.port, wait_for_workers=False, timeout=timedelta(seconds=SILENT_S))


def find(nodes: int, rank: int, host: str, port: int, *, join_s: float) -> Place:
    """Return an agent's place once the first one's name has an address, which a pod's has when it is scheduled.

    Args:
        join_s: how long to wait for it.

    Raises:
        Misplaced: the numbers contradict each other.
        PeerLost: the name has no address in time.
    """
    if not (0 <= rank < nodes and host and 0 < port < 2**16):
        raise Misplaced(
            f"PET_NNODES is {nodes}, PET_NODE_RANK {rank}, PET_MASTER_ADDR {host!r} and PET_MASTER_PORT {port}; "
            "expected a rank below the number of nodes, and name and port of the first one. Whoever starts the step "
            "sets them."
        )
    until_s = time.monotonic() + join_s
    while True:
        try:
            return Place(nodes=nodes, rank=rank, address=socket.gethostbyname(host), port=port)
        except socket.gaierror as problem:
            if time.monotonic() > until_s:
                raise PeerLost(
                    f"node {rank} of {nodes} found no address of {host} within {join_s:g} s ({problem.strerror}); "
                    "expected that of the first node. Look at its pod, and at the Service that names it."
                ) from None
            time.sleep(BEAT_S)


class Peers:
    """The agents of a step's other nodes. Each raises a counter in the store while it lives, then leaves its exit code.

    Attributes:
        ending: how a peer ended, in a sentence; empty while nothing is known of it.
        code: its exit code; None where it was only silent.
    """

    def __init__(self, place: Place) -> None:
        self.ending = ""
        self.code: int | None = None
        self._place = place
        self._store: Store | None = None
        self._others = [rank for rank in range(place.nodes) if rank != place.rank]
        self._beats, self._beat_at_s = dict.fromkeys(self._others, 0), dict[int, float]()
        self._heard_at_s = self._ended_at_s = 0.0
        self._met, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch the other nodes", daemon=True)

    def join(self, join_s: float) -> None:
        """Wait until all agents have met; on the first node, serve the store in which they do.

        Raises:
            Misplaced: the first node's address is not its own.
            PeerLost: one is missing after so many seconds, or has ended.
        """
        place, until_s = self._place, time.monotonic() + join_s
        while self._store is None:
            try:
                self._store = place.serve() if place.rank == 0 else place.connect()
            except OSError as problem:
                # Torch, which would wait for the first node's store too, does not end on SIGTERM.
                if time.monotonic() > until_s:
                    raise PeerLost(
                        f"node {place.rank} of {place.nodes} waited {join_s:g} s for the first one at {place.address}:"
                        f"{place.port} ({problem}); expected its store. Look at what its pod waits for."
                    ) from None
                time.sleep(BEAT_S)
        self._thread.start()
        while not (self._met.wait(BEAT_S) or self.ending or time.monotonic() > until_s):
            pass
        if not self._met.is_set():
            missing = ", ".join(str(rank) for rank, count in self._beats.items() if not count)
            raise PeerLost(
                self.ending
                or f"node {place.rank} of {place.nodes} waited {join_s:g} s for node {missing}; expected all nodes. "
                "Look at what their pods wait for."
            )
        self._heard_at_s = time.monotonic()

    @property
    def is_asked(self) -> bool:
        """Whether a peer ended because it was asked to."""
        return self.code == process.EXIT_PREEMPTED

    @property
    def is_lost(self) -> bool:
        """Whether a peer has ended, and processes have had the time to notice it, or is silent."""
        now_s = time.monotonic()
        if not self.ending and now_s - self._heard_at_s > SILENT_S:
            self.ending = f"the store of node 0 of {self._place.nodes} has been silent for {SILENT_S:g} s"
        return bool(self.ending) and now_s > self._ended_at_s

    def leave(self, code: int, *, linger_s: float) -> None:
        """Tell the others how this agent ends; on the first node, serve the store until they have ended too.

        Args:
            linger_s: how long at most.
        """
        self._over.set()
        if self._store is None:
            return
        self._thread.join(2 * BEAT_S)
        if self._thread.is_alive():
            return  # the store does not answer
        until_s = time.monotonic() + linger_s
        with suppress(RuntimeError):  # the store is gone
            self._store.add(f"ended/{self._place.rank}", code + 1)  # 0 is what is read of one at work
            while self._place.rank == 0 and time.monotonic() < until_s:
                if all(self._store.add(f"ended/{rank}", 0) for rank in self._others):
                    return
                time.sleep(BEAT_S / 5)

    def _watch(self) -> None:
        """Count, and look at the others' counts and exit codes, until one has ended."""
        nodes, store = self._place.nodes, self._store
        assert store is not None
        while not (self._over.wait(BEAT_S) or self.ending):
            try:
                store.add(f"beats/{self._place.rank}", 1)
                # Adding nothing reads: `get` would wait for a counter that is not there yet.
                beats = {rank: store.add(f"beats/{rank}", 0) for rank in self._others}
                codes = {rank: store.add(f"ended/{rank}", 0) - 1 for rank in self._others}
            except RuntimeError:
                self._end(f"node 0 of {nodes} is gone, and the store with it", NOTICE_S)
                return
            now_s = self._heard_at_s = time.monotonic()
            for rank in self._others:
                if beats[rank] != self._beats[rank] or codes[rank] == 0:
                    self._beats[rank], self._beat_at_s[rank] = beats[rank], now_s
            if len(self._beat_at_s) == len(self._others):
                self._met.set()
            ended = {rank: code for rank, code in codes.items() if code > 0}
            silent = [rank for rank, beat_at_s in self._beat_at_s.items() if now_s - beat_at_s > SILENT_S]
            if ended:
                is_asked, rank, self.code = min(
                    (code == process.EXIT_PREEMPTED, rank, code) for rank, code in ended.items()
                )
                self._end(f"node {rank} of {nodes} ended with exit code {self.code}", 0.0 if is_asked else NOTICE_S)
            elif silent:
                self._end(f"node {silent[0]} of {nodes} has been silent for {SILENT_S:g} s", 0.0)

    def _end(self, ending: str, after_s: float) -> None:
        self._ended_at_s, self.ending = time.monotonic() + after_s, ending
