"""Names of Services for pods: CoreDNS, in a cluster that was started here."""

from __future__ import annotations

from pathlib import Path

from tests.cluster import images
from tests.cluster.cluster import Cluster

MANIFEST = Path(__file__).with_name("coredns.yaml")


def serve_names(cluster: Cluster, folder: Path) -> None:
    """Run CoreDNS as a Deployment, and wait until it answers. A cluster of somebody else has its own."""
    if cluster.control is None:
        return
    program = cluster.control.assets / "coredns"

    def write(path: Path) -> None:
        images.write_archive(path, ["/coredns"], {"coredns": program})

    image = cluster.registry.push("coredns", write, folder)
    path = folder / "coredns.yaml"
    path.write_text(MANIFEST.read_text(encoding="utf-8").replace("image: IMAGE", f"image: {image}"), encoding="utf-8")
    cluster.kubectl("apply", "--filename", str(path))
    cluster.kubectl("rollout", "status", "--namespace=kube-system", "--timeout=120s", "deployment/coredns")
