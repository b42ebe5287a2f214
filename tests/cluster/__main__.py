"""Start a cluster for a person, until Ctrl-C: `make cluster`."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tests.cluster.cluster import Cluster, started
from tests.cluster.requirements import ASSETS, KUBECONFIG, REGISTRY, missing


def main() -> None:
    if sentence := missing(os.environ):
        sys.exit(sentence)
    # A shell that runs this in the background makes it ignore Ctrl-C's signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("Starting a cluster; this takes about 20 seconds.", flush=True)
    with suppress(KeyboardInterrupt), started(Path(os.environ[ASSETS])) as cluster:
        print(instructions(cluster), flush=True)
        signal.pause()
    print("\nThe cluster and everything of it is removed.")


def instructions(cluster: Cluster) -> str:
    """Return the commands with which a person looks at a cluster."""
    control = cluster.control
    assert control is not None
    network = f"nsenter --target={control.space.init} --net"
    node, registry = cluster.nodes[0].running.init, cluster.registry.address
    return "\n".join(
        [
            f"{len(cluster.nodes)} nodes are Ready after {cluster.started_s:.0f} s. Look at them:",
            f"  {network} {control.assets}/kubectl --kubeconfig={cluster.kubeconfig} get nodes,pods -A -o wide",
            f"Containers of {cluster.nodes[0].name}, as its containerd knows them:",
            f"  nsenter --target={node} --pid --mount --net ctr --namespace=k8s.io containers list",
            f"Images are pushed to {registry}, in the same network:",
            f"  {network} skopeo copy --dest-tls-verify=false docker-archive:FILE docker://{registry}/NAME:TAG",
            "Run the tests against it:",
            f"  {KUBECONFIG}={cluster.kubeconfig} {REGISTRY}={registry} {network} make cluster-test",
            f"Logs and configuration: {control.folder}",
            "Ctrl-C removes it.",
        ]
    )


if __name__ == "__main__":
    main()
