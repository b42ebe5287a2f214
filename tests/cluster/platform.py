"""The platform on a cluster: the overlay `local` of deploy/kubernetes with values as a team would write them."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes import client

from platform_assets.base.settings import Settings
from tests.cluster import proxy
from tests.cluster.cluster import Cluster
from tests.cluster.servers import ADDRESS
from tests.cluster.spaces import CABLES
from tests.doubles.kustomize import FOLDER

NAMESPACE = "driftline"
LIMITS = FOLDER / "components/service-cpu-limits"
PARTS = ("code", "daemon", "webserver")
ALL_PARTS = (*PARTS, "webserver-read-only", "exporter")
NOBODY = "192.0.2.1"
NOT_APPLIED = {"disableNameSuffixHash": True, "annotations": {"config.kubernetes.io/local-config": "true"}}
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

    def apply_all(self) -> str:
        """Apply the overlay, and return what kubectl prints."""
        return self.cluster.kubectl("apply", "--kustomize", str(self.folder))

    def apply(self, text: str, name: str) -> str:
        """Apply manifests, services with the limit of CPU that belongs to the overlay `local`; return the output."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "objects.yaml").write_text(text, encoding="utf-8")
        top = {"resources": ["objects.yaml"], "components": [os.path.relpath(LIMITS, folder)]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(top), encoding="utf-8")
        return self.cluster.kubectl("apply", "--kustomize", str(folder))

    def wait_for(self, deployment: str) -> None:
        """Wait until all pods of a Deployment are those of its newest manifest, and ready."""
        self.kubectl("rollout", "status", STARTED, f"deployment/{deployment}")

    def kubectl(self, *argv: str) -> str:
        return self.cluster.kubectl(f"--namespace={NAMESPACE}", *argv)

    def pods(self, selector: str = "") -> list[Any]:
        """Return the pods that have not ended."""
        items = self.cluster.core.list_namespaced_pod(NAMESPACE, label_selector=selector).items
        return [pod for pod in items if pod.status.phase in ("Pending", "Running")]

    def start_read_only(self) -> str:
        """Start the read-only webserver with a user of its own, as docs/deploy.md does, and return its Deployment."""
        name, secret = "driftline-webserver-read-only", "driftline-postgres-read-only"
        printed = self.kubectl(
            "exec", "deployment/driftline-daemon", "--", "python", "-m", "platform_assets.instance.database_reader"
        )
        entries = dict(line.split("=", 1) for line in printed.splitlines() if line.startswith("DAGSTER_PG_"))
        self.cluster.core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": secret}, "stringData": entries})
        self.kubectl("scale", f"deployment/{name}", "--replicas=1")
        self.wait_for(name)
        return name

    def address(self, service: str) -> str:
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
    components: Sequence[str] = (),
) -> Iterator[Platform]:
    """Apply the overlay `local` with this cluster's values and secrets; remove everything at the end.

    Args:
        variables: for the config map `driftline`.
        secrets: entries by the secret's name.
        folder: an empty one, for the overlay.
        parts: what of the platform runs; the others get no pods.
        components: of deploy/kubernetes, next to the overlay's values.
    """
    outside = {
        "DRIFTLINE_TRAINER_LIBRARIES": images.libraries,
        "DRIFTLINE_SERVICE_NETWORKS": os.environ.get(ADDRESS, CABLES),
        **variables,
    }
    _add(components, write_overlay(folder, cluster, images, outside))
    _write_top(folder, images, secrets, parts)
    environment = {**outside, **{name: text for entries in secrets.values() for name, text in entries.items()}}
    environment |= {"DRIFTLINE_TRAINER_IMAGE": images.trainer, "DRIFTLINE_SERVICE_IMAGE": images.service}
    settings = Settings.from_environment(
        {"DRIFTLINE_STATE": str(folder / "state"), **environment, "DRIFTLINE_ENV": "cluster"}
    )
    platform = Platform(cluster, settings, folder)
    try:
        platform.apply_all()
        for part in parts:
            platform.wait_for(f"driftline-{part}")
        yield platform
    finally:
        cluster.kubectl("delete", "--kustomize", str(folder), "--ignore-not-found", "--timeout=120s")


def write_overlay(folder: Path, cluster: Cluster, images: Images, variables: Mapping[str, str]) -> Path:
    """Copy deploy/kubernetes, fill in the values of its overlay `local`, and return the overlay's folder."""
    shutil.copytree(FOLDER, folder / "kubernetes")
    overlay = folder / "kubernetes/overlays/local"
    values = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "images": [
            dict(zip(("name", "newName", "digest"), (f"driftline-{name}", *image.split("@")), strict=True))
            for name, image in (("platform", images.platform), ("trainer", images.trainer), ("service", images.service))
        ],
        "configMapGenerator": [
            _literals("registries", {"allowed": cluster.registry.address}) | {"options": NOT_APPLIED},
            _literals("driftline", variables) | {"behavior": "merge"},
        ],
        "patches": _addresses(cluster, variables),
    }
    (overlay / "values/kustomization.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return overlay


def _add(components: Sequence[str], overlay: Path) -> None:
    """Add components to an overlay as a team does."""
    path = overlay / "kustomization.yaml"
    names = "".join(f"../../components/{name}, " for name in components)
    text = path.read_text(encoding="utf-8").replace("components: [values, ", f"components: [values, {names}")
    path.write_text(text, encoding="utf-8")


def _addresses(cluster: Cluster, variables: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return where pods may connect to outside of the cluster, as patches; nowhere for a server that is not named."""
    (kubernetes,) = (
        client.DiscoveryV1Api(cluster.api)
        .list_namespaced_endpoint_slice("default", label_selector="kubernetes.io/service-name=kubernetes")
        .items
    )
    store = urlsplit(variables.get("AWS_ENDPOINT_URL", f"http://{NOBODY}:443"))
    return [
        _to("kubernetes", kubernetes.endpoints[0].addresses[0], kubernetes.ports[0].port),
        _to("postgres", variables.get("DAGSTER_PG_HOST", NOBODY)),
        _to("store", str(store.hostname), store.port),
    ]


def _to(name: str, address: str, port: int | None = None) -> dict[str, Any]:
    """Return the patch of a policy, next to an address of nobody: there may be several."""
    blocks = [{"ipBlock": {"cidr": f"{item}/32"}} for item in (NOBODY, address)]
    patch: list[dict[str, Any]] = [{"op": "replace", "path": "/spec/egress/0/to", "value": blocks}]
    patch += [] if port is None else [{"op": "replace", "path": "/spec/egress/0/ports/0/port", "value": port}]
    return {"target": {"kind": "NetworkPolicy", "name": f"to-{name}"}, "patch": yaml.safe_dump(patch)}


def _literals(name: str, entries: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "literals": [f"{key}={text}" for key, text in entries.items()]}


def _write_top(folder: Path, images: Images, secrets: Mapping[str, Mapping[str, str]], parts: Sequence[str]) -> None:
    """Write what stands on top of the overlay: secrets, how many pods, and the proxy through which tests ask the UI."""
    (folder / "proxy.yaml").write_text(yaml.safe_dump_all(proxy.objects(NAMESPACE, images.platform)), encoding="utf-8")
    top = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["kubernetes/overlays/local", *(["proxy.yaml"] if "webserver" in parts else [])],
        "replicas": [{"name": f"driftline-{part}", "count": int(part in parts)} for part in ALL_PARTS],
        "secretGenerator": [_literals(secret, entries) for secret, entries in secrets.items()],
        "generatorOptions": {"disableNameSuffixHash": True},
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(top, sort_keys=False), encoding="utf-8")
