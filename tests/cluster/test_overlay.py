"""The overlays on a cluster: what is applied again does not change."""

from pathlib import Path

import yaml

from tests.cluster import guards
from tests.cluster.cluster import Cluster
from tests.doubles import kustomize


def test_applied_twice_nothing_changes(reachable: Cluster, tmp_path: Path) -> None:
    """One overlay after the other in the same namespace, without pods: their images are nowhere."""
    local, production = (_without_pods(name) for name in ("local", "production"))
    with guards.applied(reachable, tmp_path, local):
        assert _changed_by(reachable, tmp_path, local) == []
        assert len(_changed_by(reachable, tmp_path, production)) > 5
        assert _changed_by(reachable, tmp_path, production) == []


def _without_pods(overlay: str) -> list[guards.Object]:
    objects = kustomize.rendered(kustomize.FOLDER / "overlays" / overlay)
    for item in objects:
        if item["kind"] == "Deployment":
            item["spec"]["replicas"] = 0
    return objects


def _changed_by(cluster: Cluster, folder: Path, objects: list[guards.Object]) -> list[str]:
    """Apply objects, and return what kubectl prints of those that it changed."""
    path = folder / "again.yaml"
    path.write_text(yaml.safe_dump_all(objects), encoding="utf-8")
    lines = cluster.kubectl("apply", "--filename", str(path)).splitlines()
    assert len(lines) == len(objects)
    return [line for line in lines if not line.endswith(" unchanged")]
