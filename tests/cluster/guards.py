"""What guards the namespace in deploy/kubernetes, for a namespace of a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cluster import Cluster
from tests.cluster.platform import NAMESPACE
from tests.doubles.kustomize import FOLDER, rendered

Object = dict[str, Any]


def objects(namespace: str, *kinds: str, overlay: Path = FOLDER / "overlays/local") -> list[Object]:
    """Return the overlay's objects of some kinds, for another namespace."""
    chosen = [item for item in rendered(overlay) if item["kind"] in kinds]
    for item in chosen:
        if item["metadata"].get("namespace") == NAMESPACE:
            item["metadata"]["namespace"] = namespace
    return chosen


@contextmanager
def applied(cluster: Cluster, folder: Path, items: list[Object]) -> Iterator[None]:
    """Apply objects, and delete them at the end: some are of the whole cluster."""
    path = folder / "guards.yaml"
    path.write_text(yaml.safe_dump_all(items), encoding="utf-8")
    cluster.kubectl("apply", "--filename", str(path))
    try:
        yield
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "--filename", str(path))
