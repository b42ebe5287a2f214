"""Debian's Prometheus and Alertmanager as a pod of the cluster, with the files of deploy/monitoring as they are."""

import http.client
import json
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from tests.cluster import images
from tests.cluster.cluster import Cluster
from tests.cluster.pods import Pods
from tests.cluster.waiting import wait_until
from tests.doubles import promql
from tests.doubles.webhook import Webhook

NAMESPACE, NAME = "monitoring", "prometheus"
"""Which the network policies let in: the defaults of DRIFTLINE_SCRAPER_NAMESPACE and DRIFTLINE_SCRAPER_LABEL."""
LABELS = {"app.kubernetes.io/name": NAME}
SHARED = Path("/usr/share/prometheus")
"""Their pages and templates."""
RECEIVERS = ("pages", "tickets", "tickets-of-example", "dead-man")
PROMETHEUS_YML = {
    "rule_files": ["/etc/prometheus/rules.yaml"],
    "scrape_config_files": ["/etc/prometheus/scrape.yaml"],
    "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["localhost:9093"]}]}]},
}
COMMANDS = {
    "prometheus": (9090, ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/data/prometheus"]),
    "prometheus-alertmanager": (
        9093,
        [
            "--config.file=/etc/alertmanager/alertmanager.yaml",
            "--storage.path=/data/alertmanager",
            "--cluster.listen-address=",
        ],
    ),
}
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Monitoring:
    """Both, in one pod.

    Attributes:
        address: of the pod.
    """

    address: str

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an expression, as of now."""
        return list(self._get(9090, f"/api/v1/query?query={quote(expr)}")["data"]["result"])

    def firing(self) -> list[dict[str, str]]:
        """Return the labels of all alerts that fire."""
        alerts = self._get(9090, "/api/v1/alerts")["data"]["alerts"]
        return [alert["labels"] for alert in alerts if alert["state"] == "firing"]

    def targets(self) -> dict[str, str]:
        """Return the health of each target, by job and pod."""
        active = self._get(9090, "/api/v1/targets")["data"]["activeTargets"]
        return {f"{item['labels']['job']} {item['labels'].get('pod')}": item["health"] for item in active}

    def _get(self, port: int, path: str) -> Any:
        with closing(http.client.HTTPConnection(self.address, port, timeout=30)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse().read()
        return json.loads(answer)


@contextmanager
def at_work(cluster: Cluster, folder: Path, webhook: Webhook, watched: str) -> Iterator[Monitoring]:
    """Run both until the end of the context.

    Args:
        watched: the namespace whose pods Prometheus may list.
    """
    image = cluster.registry.push("monitoring", write_image, folder)
    path = folder / "monitoring.yaml"
    path.write_text(yaml.safe_dump_all(_objects(image, webhook, watched)), encoding="utf-8")
    cluster.kubectl("apply", "--filename", str(path))
    try:
        Pods(cluster.core, NAMESPACE).wait_until_ready(NAME)
        monitoring = Monitoring(str(cluster.core.read_namespaced_pod(NAME, NAMESPACE).status.pod_ip))
        # The Watchdog fires from the first evaluation on.
        wait_until(lambda: bool(monitoring.firing()), PATIENCE_S, "Prometheus evaluates its rules")
        yield monitoring
    finally:
        cluster.kubectl("delete", "--filename", str(path), "--ignore-not-found", "--timeout=120s")


def write_image(path: Path) -> None:
    """Write an image with both programs, and the pages, templates and libraries that they load on this machine."""
    programs = {f"bin/{name}": images.program(name) for name in COMMANDS}
    # Debian's links to folders of other packages are followed.
    folders = os.walk(SHARED, followlinks=True)
    files = [Path(folder, name) for folder, _, names in folders for name in names]
    shared = {f"{file}".lstrip("/"): file for file in files}
    images.write_archive(path, [], programs | shared | images.libraries(*programs.values()))


def _objects(image: str, webhook: Webhook, watched: str) -> list[dict[str, Any]]:
    shipped = {name: (promql.FOLDER / name).read_text(encoding="utf-8") for name in FILES["prometheus"][1:]}
    shipped |= {name: (promql.FOLDER / name).read_text(encoding="utf-8") for name in FILES["alertmanager"]}
    data = {"prometheus.yml": yaml.safe_dump(PROMETHEUS_YML), **shipped}
    data |= {name: f"{webhook.address}{name}" for name in RECEIVERS}
    here = {"name": NAME, "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": here, "data": data},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": NAME, "namespace": watched},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": NAME, "namespace": watched},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", **here}],
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**here, "labels": LABELS}, "spec": _pod(image)},
    ]


FILES = {"prometheus": ("prometheus.yml", "rules.yaml", "scrape.yaml"), "alertmanager": ("alertmanager.yaml",)}


def _pod(image: str) -> dict[str, Any]:
    containers = [
        {
            "name": name,
            "image": image,
            "command": [f"/bin/{name}", *options],
            "ports": [{"containerPort": port}],
            "readinessProbe": {"httpGet": {"path": "/-/ready", "port": port}, "periodSeconds": 1},
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
            "workingDir": "/data",
            "volumeMounts": [
                {"name": "prometheus", "mountPath": "/etc/prometheus"},
                {"name": "alertmanager", "mountPath": "/etc/alertmanager"},
                {"name": "data", "mountPath": "/data"},
            ],
        }
        for name, (port, options) in COMMANDS.items()
    ]
    places = {
        "prometheus": {name: name for name in FILES["prometheus"]},
        "alertmanager": {name: name for name in FILES["alertmanager"]}
        | {name: f"receivers/{name}" for name in RECEIVERS},
    }
    volumes: list[dict[str, Any]] = [
        {
            "name": name,
            "configMap": {"name": NAME, "items": [{"key": key, "path": path} for key, path in items.items()]},
        }
        for name, items in places.items()
    ]
    return {
        "serviceAccountName": NAME,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532},
        "terminationGracePeriodSeconds": 2,
        "containers": containers,
        "volumes": [*volumes, {"name": "data", "emptyDir": {}}],
    }


def minutes(since_s: float, until_s: float | None = None) -> float:
    """Return how long ago a moment was, or how long before another."""
    return ((time.time() if until_s is None else until_s) - since_s) / 60
