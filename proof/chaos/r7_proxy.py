"""The proxy as `deploy/kubernetes/examples/proxy.yaml` deploys it, in front of a product's service: one per node."""

from pathlib import Path

import yaml

from proof.chaos.r7_world import NAME, World
from tests.cluster import images
from tests.cluster.platform import NAMESPACE
from tests.cluster.spaces import CABLES
from tests.doubles import haproxy, kustomize

FILE = kustomize.FOLDER / "examples/proxy.yaml"
PRODUCT = "parts"
PROXY = f"haproxy-{NAME}"
LIMITS = {"DRIFTLINE_CONNECTIONS": "100000", "DRIFTLINE_REQUESTS_PER_S": "100000"}
"""All callers of this row have one address."""
POLICIES = ("Cluster", "Local")
"""Which proxies the Service leads to: any, as an ordinary one does, or that of the caller's node, as in the file."""


def run(world: World, policy: str) -> str:
    """Run a proxy per node, wait until both answer, and return their Service's URL."""
    cluster, program = world.platform.cluster, Path(haproxy.program()).resolve()

    def write(path: Path) -> None:
        files = {"haproxy": program, **images.libraries(program)}
        images.write_archive(path, ["/haproxy"], files)

    image = cluster.registry.push("haproxy", write, world.folder)
    # The file's objects for this row's product, with their configuration, open to callers outside.
    text = FILE.read_text(encoding="utf-8").replace(PRODUCT, NAME)
    proxy, service, replicas, network = yaml.safe_load_all(text)
    (container,) = proxy["spec"]["template"]["spec"]["containers"]
    container["image"], container["command"][0] = image, "/haproxy"
    container["env"] += [{"name": name, "value": value} for name, value in LIMITS.items()]
    service["spec"]["internalTrafficPolicy"] = policy
    network["spec"]["ingress"][0]["from"].append({"ipBlock": {"cidr": CABLES}})
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": PROXY, "namespace": NAMESPACE},
        "data": {"haproxy.cfg": haproxy.FILE.read_text(encoding="utf-8")},
    }
    world.platform.apply(yaml.safe_dump_all([config, proxy, service, replicas, network]), "haproxy")
    world.platform.kubectl("rollout", "status", "--timeout=300s", f"daemonset/{PROXY}")
    return world.platform.address(PROXY)
