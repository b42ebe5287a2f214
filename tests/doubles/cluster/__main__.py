"""Run a double of a Kubernetes cluster for a person: `python -m tests.doubles.cluster KUBECONFIG`, a file to write."""

import signal
import sys
from pathlib import Path

from tests.doubles.cluster.cluster import Cluster
from tests.doubles.cluster.controllers import Node

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    nodes = [Node(name="cpu-1"), Node(name="gpu-1", extended={"nvidia.com/gpu": 1}, is_spot=True)]
    with Cluster(nodes, environment={"PYTHONPATH": str(Path.cwd())}) as cluster:
        path = cluster.kubeconfig(Path(sys.argv[1]))
        print(f"a double of a Kubernetes cluster listens at {cluster.address}; kubeconfig: {path}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
