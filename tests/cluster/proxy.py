"""A pod that network policies let through to Dagster's UI, for requests of tests."""

from typing import Any

from tests.cluster.pods import SECURITY
from tests.cluster.spaces import CABLES

NAME = "driftline-proxy"
WEBSERVERS = {3000: "driftline-webserver", 3001: "driftline-webserver-read-only"}
"""What it forwards to, by its own port."""
LABELS = {"driftline/proxy": "true"}
FORWARD = f"""
import socket, threading

def copy(source, target):
    try:
        while block := source.recv(65536):
            target.sendall(block)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

def forward(caller, name):
    try:
        webserver = socket.create_connection((name, 3000))
    except OSError:
        caller.close()
        return
    threading.Thread(target=copy, args=(webserver, caller), daemon=True).start()
    copy(caller, webserver)

def serve(port, name):
    with socket.create_server(("0.0.0.0", port)) as server:
        while True:
            threading.Thread(target=forward, args=(server.accept()[0], name), daemon=True).start()

threads = [threading.Thread(target=serve, args=item) for item in {WEBSERVERS}.items()]
for thread in threads:
    thread.start()
"""
"""Forwards connections; without a webserver it closes them."""


def objects(namespace: str, image: str) -> list[dict[str, Any]]:
    """Return the proxy's Deployment, its Service, and the rule that lets this machine in.

    Args:
        image: with Python.
    """
    container = {
        "name": "proxy",
        "image": image,
        "command": ["python", "-c", FORWARD],
        "readinessProbe": {"tcpSocket": {"port": min(WEBSERVERS)}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": SECURITY,
    }
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    template = {"metadata": {"labels": LABELS}, "spec": pod}
    ports = [{"name": f"port-{port}", "port": port} for port in WEBSERVERS]
    metadata = {"name": NAME, "namespace": namespace}
    policy = {
        "podSelector": {"matchLabels": LABELS},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"ipBlock": {"cidr": CABLES}}]}],
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"selector": {"matchLabels": LABELS}, "template": template},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": LABELS, "ports": ports}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": policy},
    ]
