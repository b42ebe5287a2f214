"""What a cluster costs: seconds until it is ready, memory and CPU of its processes."""

import psutil

from tests.cluster.cluster import Cluster
from tests.cluster.spaces import Service

MB = 1e6


def report(cluster: Cluster) -> str:
    """Return a line per space with the resident memory and the CPU seconds of each process that runs."""
    assert cluster.control is not None
    spaces = {"control plane": cluster.control.space} | {
        node.name: node.running for node in cluster.nodes if node.space
    }
    lines = [f"{len(cluster.nodes)} nodes were Ready {cluster.started_s:.1f} s after the start began."]
    for name, space in spaces.items():
        usages = [_usage(service) for service in space.services if service.is_running()]
        lines.append(f"{name}: {', '.join(usages)}")
    total = sum(_memory_mb(service) for space in spaces.values() for service in space.services if service.is_running())
    return "\n".join([*lines, f"together {total:.0f} MB, containers not counted"])


def _memory_mb(service: Service) -> float:
    return float(psutil.Process(service.pid()).memory_info().rss / MB)


def _usage(service: Service) -> str:
    times = psutil.Process(service.pid()).cpu_times()
    return f"{service.name} {_memory_mb(service):.0f} MB {times.user + times.system:.1f} CPU s"
