"""What other clusters bring along, in one that was started here: names of Services, metrics of pods, queues of Jobs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platform_assets.base.settings import REPOSITORY
from tests.cluster import images
from tests.cluster.cluster import Cluster

PLACE = Path(__file__).parent
QUEUES = REPOSITORY.parent / "shared/kubernetes/addons/kueue.yaml"
KUEUE_IMAGE = "10.244.255.1:5000/kueue:0.17.0"
"""The image in that file."""


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


@contextmanager
def queues_served(cluster: Cluster, folder: Path) -> Iterator[None]:
    """Run Kueue as long as the context lasts: its webhooks are asked about every Job and pod."""
    image = _push(cluster, folder, "kueue", "/manager")
    path = folder / QUEUES.name
    path.write_text(QUEUES.read_text(encoding="utf-8").replace(KUEUE_IMAGE, image), encoding="utf-8")
    cluster.kubectl("apply", "--server-side", "--filename", str(path))
    try:
        place = ("--namespace=kueue-system", "--timeout=120s", "deployment/kueue-controller-manager")
        cluster.kubectl("rollout", "status", *place)
        yield
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "--timeout=60s", "--filename", str(path))


def _push(cluster: Cluster, folder: Path, name: str, entry: str) -> str:
    """Push a program's image, and return its name by digest."""
    assert cluster.control is not None
    program = cluster.control.assets / name
    return cluster.registry.push(
        name, lambda path: images.write_archive(path, [entry], {entry.lstrip("/"): program}), folder
    )


def _run(cluster: Cluster, folder: Path, name: str, manifest: Path, port: int = 0) -> None:
    if cluster.control is None:
        return
    image = _push(cluster, folder, name, f"/{name}")
    path = folder / manifest.name
    text = manifest.read_text(encoding="utf-8").replace("image: IMAGE", f"image: {image}").replace("PORT", str(port))
    path.write_text(text, encoding="utf-8")
    cluster.kubectl("apply", "--filename", str(path))
    cluster.kubectl("rollout", "status", "--namespace=kube-system", "--timeout=120s", f"deployment/{name}")
