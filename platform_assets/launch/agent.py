"""Run the processes of one node by torch's agent, and end them also when those of another node have ended."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from signal import SIGKILL, SIGTERM
from typing import Any

from torch.distributed.elastic.agent.server import WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import LogsSpecs, SignalException
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from platform_assets.launch.peers import SILENT_S, Peers, Place
from platform_assets.training.steps.process import PeerLost

ENDED_BY_AGENT_S = 20
"""A process that ends so long after another one failed was ended for that."""


class PeerEnded(SignalException):
    """The agent of another node has ended or is silent, so the processes of this node are ended."""


class Agent(LocalElasticAgent):
    """Torch's agent of one node.

    Args:
        peers: the agents of the other nodes; None if there are none.
    """

    def __init__(self, *arguments: Any, peers: Peers | None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._peers = peers

    def _monitor_workers(self, *arguments: Any, **more: Any) -> Any:
        """Look at the processes, as torch's does ten times per second, and then at the peers.

        Raises:
            PeerEnded: the processes are all at work, and a peer is not. Those of one that was asked to stop save
                together; otherwise there is nothing that they could still do.
        """
        result = super()._monitor_workers(*arguments, **more)
        if not result.failures and self._peers is not None and self._peers.is_lost:
            raise PeerEnded(self._peers.ending, sigval=SIGTERM if self._peers.is_asked else SIGKILL)
        return result


def run(
    arguments: Sequence[str], processes: int, place: Place, peers: Peers | None, logs: LogsSpecs, *, grace_s: int
) -> dict[int, int]:
    """Run Python with the arguments in so many processes until all have ended; return exit codes of those that failed.

    The rendezvous is static: torch's others unpickle what peers write. The first node's store is served already.

    Args:
        grace_s: what the processes have after this one is asked to stop.

    Returns:
        Exit codes by rank, negative for a signal, without those that the agent had to kill because another failed.

    Raises:
        SignalException: this process was asked to stop; the others have ended.
        PeerEnded: an agent of another node has ended or is silent.
        PeerLost: one was lost while processes were started.
    """
    # It would log each end last, after the error that explains it.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"  # torch's agent would give up at a second SIGTERM
    rendezvous = StaticTCPRendezvous(place.address, place.port, place.rank, place.nodes, "step", int(SILENT_S))
    spec = WorkerSpec(
        role="default",
        local_world_size=processes,
        rdzv_handler=rendezvous,
        entrypoint=sys.executable,
        args=tuple(arguments),
        max_restarts=0,  # retries are the launcher's
        master_addr=place.address,
        master_port=place.port,
    )
    agent = Agent(spec, logs, peers=peers, shutdown_timeout=grace_s)  # by default torch kills at 30 s
    try:
        result = agent.run()
    except RuntimeError as problem:  # torch.distributed's errors, of its store
        if peers is None:
            raise
        raise PeerLost(f"the rendezvous of {place.nodes} nodes failed: {str(problem).splitlines()[0]}") from None
    # Once one has failed torch's agent ends the others by SIGTERM, and by SIGKILL 30 s later.
    until_s = min((failure.timestamp for failure in result.failures.values()), default=0) + ENDED_BY_AGENT_S
    return {rank: failure.exitcode for rank, failure in result.failures.items() if failure.timestamp < until_s}
