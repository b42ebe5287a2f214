"""The shipped haproxy configuration as a Deployment in front of a product's service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.chaos.r7_world import NAME, World
from tests.cluster import images
from tests.cluster.platform import NAMESPACE
from tests.cluster.pods import SECURITY
from tests.cluster.spaces import CABLES
from tests.doubles import haproxy

PROXY = "driftline-haproxy"
LABELS = {"app": PROXY}
PORT, SERVING = 8080, 3000


def run(world: World, node: str) -> str:
    """Run the proxy on a node, wait until it answers, and return its URL."""
    cluster, program = world.platform.cluster, Path(haproxy.program()).resolve()

    def write(path: Path) -> None:
        files = {"haproxy": program, **images.libraries(program)}
        images.write_archive(path, ["/haproxy", "-db", "-f", "/config/haproxy.cfg"], files)

    image = cluster.registry.push("haproxy", write, world.folder)
    world.platform.apply(yaml.safe_dump_all(objects(world.name, image, node)), "haproxy")
    world.platform.wait_for(PROXY)
    return world.platform.address(PROXY)


def objects(service: str, image: str, node: str) -> list[dict[str, Any]]:
    """Return the objects: configuration, a Service with an address per replica, the proxy and who may connect."""
    replicas = f"{service}-replicas"
    environment = {
        "DRIFTLINE_LISTEN": f"0.0.0.0:{PORT}",
        "DRIFTLINE_REPLICAS": f"{replicas}.{NAMESPACE}.svc.cluster.local:{SERVING}",
        # The public port says too whether a replica is ready; the other one is closed to pods.
        "DRIFTLINE_PROBES_PORT_1": str(SERVING),
        # All callers of this row have one address.
        "DRIFTLINE_CONNECTIONS": "100000",
        "DRIFTLINE_REQUESTS_PER_S": "100000",
    }
    container = {
        "name": "haproxy",
        "image": image,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": SECURITY,
        "volumeMounts": [{"name": "config", "mountPath": "/config"}],
    }
    pod = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": PROXY}}],
    }
    product = {"driftline/product": NAME, "app.kubernetes.io/component": "service"}
    policy = {
        "podSelector": {"matchLabels": LABELS},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"ipBlock": {"cidr": CABLES}}]}],
        "egress": [{"to": [{"podSelector": {"matchLabels": product}}], "ports": [{"port": SERVING}]}],
    }
    return [
        _object("v1", "ConfigMap", PROXY, data={"haproxy.cfg": haproxy.FILE.read_text(encoding="utf-8")}),
        _object("v1", "Service", replicas, {"clusterIP": "None", "selector": product, "ports": [{"port": SERVING}]}),
        _object(
            "apps/v1",
            "Deployment",
            PROXY,
            {
                "selector": {"matchLabels": LABELS},
                "template": {"metadata": {"labels": LABELS | {"driftline/caller": "true"}}, "spec": pod},
            },
        ),
        _object("v1", "Service", PROXY, {"selector": LABELS, "ports": [{"port": 80, "targetPort": PORT}]}),
        _object("networking.k8s.io/v1", "NetworkPolicy", PROXY, policy),
    ]


def _object(version: str, kind: str, name: str, spec: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    body = {"spec": spec} if spec else more
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}} | body
