"""The platform on a cluster: deploy/kubernetes/base with an overlay as a team would write it, and a service."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client

from platform_assets.settings import REPOSITORY, Settings
from tests.cluster.cluster import Cluster
from tests.cluster.servers import ADDRESS
from tests.cluster.spaces import CABLES

BASE = REPOSITORY / "deploy/kubernetes/base"
NAMESPACE = "driftline"
PARTS = ("code", "daemon", "webserver")
STARTED = "--timeout=300s"
PART_OF = "app.kubernetes.io/part-of=driftline"


@dataclass(frozen=True)
class Images:
    """The three images, by digest in the cluster's registry, and the libraries of the trainer's."""

    platform: str
    trainer: str
    service: str
    libraries: str


@dataclass(frozen=True)
class Platform:
    """The platform's pods.

    Attributes:
        settings: for a process outside of the cluster that uses the same store.
    """

    cluster: Cluster
    settings: Settings
    folder: Path

    def apply(self, text: str, name: str) -> None:
        """Apply manifests."""
        path = self.folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        self.cluster.kubectl("apply", "--filename", str(path))

    def wait_for(self, deployment: str) -> None:
        """Wait until all pods of a Deployment are those of its newest manifest, and ready."""
        self.kubectl("rollout", "status", STARTED, f"deployment/{deployment}")

    def kubectl(self, *argv: str) -> str:
        """Run kubectl in the platform's namespace."""
        return self.cluster.kubectl(f"--namespace={NAMESPACE}", *argv)

    def pods(self, selector: str = "") -> list[Any]:
        """Return the pods that have not ended."""
        items = self.cluster.core.list_namespaced_pod(NAMESPACE, label_selector=selector).items
        return [pod for pod in items if pod.status.phase in ("Pending", "Running")]

    def address(self, service: str) -> str:
        """Return the URL of a Service."""
        spec = self.cluster.core.read_namespaced_service(service, NAMESPACE).spec
        return f"http://{spec.cluster_ip}:{spec.ports[0].port}"

    def described(self) -> str:
        """Return how all pods are, and the last lines of the platform's own."""
        states = self.kubectl("get", "pods", "--output=wide")
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp")[-4000:]
        logs = [self.kubectl("logs", f"deployment/driftline-{part}", "--tail=40") for part in PARTS]
        return "\n".join([states, events, *logs])


@contextmanager
def deployed(
    cluster: Cluster,
    images: Images,
    variables: Mapping[str, str],
    secrets: Mapping[str, Mapping[str, str]],
    folder: Path,
    parts: Sequence[str] = PARTS,
) -> Iterator[Platform]:
    """Apply the base with this cluster's addresses, images and secrets; remove everything at the end.

    Args:
        variables: for the config map `driftline`.
        secrets: entries by the secret's name.
        parts: what of the platform runs; the others get no pods.
    """
    chosen = {
        "DRIFTLINE_TRAINER_IMAGE": images.trainer,
        "DRIFTLINE_TRAINER_LIBRARIES": images.libraries,
        "DRIFTLINE_SERVICE_IMAGE": images.service,
        "DRIFTLINE_SERVICE_NETWORKS": os.environ.get(ADDRESS, CABLES),
        **variables,
    }
    _write_overlay(folder, images.platform, chosen, secrets, parts)
    environment = {**chosen, **{name: text for entries in secrets.values() for name, text in entries.items()}}
    settings = Settings.from_environment(
        {"DRIFTLINE_STATE": str(folder / "state"), **environment, "DRIFTLINE_ENV": "cluster"}
    )
    platform = Platform(cluster, settings, folder)
    try:
        cluster.kubectl("apply", "--kustomize", str(folder))
        for part in parts:
            platform.wait_for(f"driftline-{part}")
        yield platform
    finally:
        cluster.kubectl("delete", "--kustomize", str(folder), "--ignore-not-found", "--timeout=120s")


def _write_overlay(
    folder: Path,
    image: str,
    variables: Mapping[str, str],
    secrets: Mapping[str, Mapping[str, str]],
    parts: Sequence[str],
) -> None:
    """Write a kustomization on top of the base."""
    name, digest = image.split("@")
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(BASE, folder)],
        "images": [{"name": "driftline-platform", "newName": name, "digest": digest}],
        "replicas": [{"name": f"driftline-{part}", "count": int(part in parts)} for part in PARTS],
        "configMapGenerator": [
            {
                "name": "driftline",
                "namespace": NAMESPACE,
                "behavior": "merge",
                "literals": [f"{name}={text}" for name, text in variables.items()],
            }
        ],
        "secretGenerator": [
            {
                "name": secret,
                "namespace": NAMESPACE,
                "literals": [f"{name}={text}" for name, text in entries.items()],
            }
            for secret, entries in secrets.items()
        ],
        "generatorOptions": {"disableNameSuffixHash": True},
        "replacements": [
            {
                "source": {
                    "kind": "Deployment",
                    "name": "driftline-code",
                    "fieldPath": "spec.template.spec.containers.[name=code].image",
                },
                "targets": [
                    {
                        "select": {"kind": "Deployment", "name": "driftline-code"},
                        "fieldPaths": [
                            "spec.template.spec.containers.[name=code].env.[name=DAGSTER_CURRENT_IMAGE].value"
                        ],
                    }
                ],
            }
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay, sort_keys=False), encoding="utf-8")


def volumes(pod: Any) -> set[str]:
    """Return the kinds of a pod's volumes."""
    kinds = client.ApiClient().sanitize_for_serialization(pod.spec.volumes or [])
    return {next(kind for kind in volume if kind != "name") for volume in kinds}
