"""A session that holds a cluster with a running pod until it is killed: test_killed_session.py runs it."""

import json
import os
import signal
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.pods import Pods, manifest


def test_hold_the_cluster(cluster: Cluster, pods: Pods, shell: str) -> None:
    pods.create(manifest("step", shell, "sleep 1000"))
    pods.wait_until_running("step")
    assert cluster.control is not None
    file = Path(os.environ["HELD_CLUSTER_FILE"])
    file.with_suffix(".new").write_text(json.dumps(cluster.control.folder.name), encoding="ascii")
    file.with_suffix(".new").rename(file)
    signal.pause()
