"""What other clusters bring along, in one that was started here: names of Services for pods, and metrics of pods."""

from __future__ import annotations

from pathlib import Path

from tests.cluster import images
from tests.cluster.cluster import Cluster

PLACE = Path(__file__).parent


def serve_names(cluster: Cluster, folder: Path, port: int = 53) -> None:
    """Run CoreDNS as a Deployment, and wait until it answers. A cluster of somebody else has its own.

    Args:
        port: on which its pods listen, behind a Service on port 53.
    """
    if cluster.control is not None:  # `apply` mixes up two ports of one number
        cluster.kubectl("delete", "service", "kube-dns", "--namespace=kube-system", "--ignore-not-found")
    _run(cluster, folder, "coredns", PLACE / "coredns.yaml", port)


def serve_metrics(cluster: Cluster, folder: Path) -> None:
    """Run metrics-server as a Deployment, and wait until it answers. A cluster of somebody else has its own."""
    _run(cluster, folder, "metrics-server", PLACE / "metrics.yaml")


def _run(cluster: Cluster, folder: Path, name: str, manifest: Path, port: int = 0) -> None:
    if cluster.control is None:
        return
    program = cluster.control.assets / name

    def write(path: Path) -> None:
        images.write_archive(path, [f"/{name}"], {name: program})

    image = cluster.registry.push(name, write, folder)
    path = folder / manifest.name
    text = manifest.read_text(encoding="utf-8").replace("image: IMAGE", f"image: {image}").replace("PORT", str(port))
    path.write_text(text, encoding="utf-8")
    cluster.kubectl("apply", "--filename", str(path))
    cluster.kubectl("rollout", "status", "--namespace=kube-system", "--timeout=120s", f"deployment/{name}")
