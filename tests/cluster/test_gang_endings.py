"""Forty ways in which a step on several nodes ends, planted on a cluster of three: are the class and the place right?

By hand, in half an hour: `RECORD_GANG_ENDINGS=FILE pytest tests/cluster/test_gang_endings.py` adds a line each to the
file, of which `python -m tests.cluster.gang_endings FILE` makes row gangs of docs/benchmarks.md.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from platform_assets.kubernetes.api import ATTEMPT
from platform_assets.store.records.attempts import LAUNCHER, UNDER_WAY
from tests.cluster import gang_endings, names
from tests.cluster.cluster import Cluster, started
from tests.cluster.containers import Recorder
from tests.cluster.gang_endings import ENDINGS, Planted
from tests.cluster.gang_faults import Scene
from tests.cluster.launching import Launching
from tests.cluster.requirements import ASSETS, missing
from tests.cluster.test_gangs import TWO, start, wait_until_gone
from tests.cluster.waiting import wait_until

RECORD = "RECORD_GANG_ENDINGS"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(RECORD not in os.environ, reason=f"it takes half an hour: by hand, with {RECORD}=FILE"),
]
NODES = 3
ENDED_S, GONE_S = 300.0, 180.0
SHORT = {"schedule_timeout_s": 45.0, "start_timeout_s": 181.0}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three nodes with DNS, whose power and cables are ours."""
    if sentence := missing(os.environ):
        pytest.skip(sentence)
    with started(Path(os.environ[ASSETS]), NODES) as own:
        with own.network():
            names.serve_names(own, tmp_path_factory.mktemp("names"))
        yield own


@pytest.fixture
def gpus(reachable: Cluster) -> None:
    """A GPU on each node, as its plugin would count it."""
    patch = [
        {"op": "add", "path": f"/status/{kind}/nvidia.com~1gpu", "value": "1"} for kind in ("capacity", "allocatable")
    ]
    for node in reachable.nodes:
        reachable.core.patch_node_status(node.name, patch)


@contextmanager
def scene(launches: Launching, cluster: Cluster, planted: Planted) -> Iterator[Scene]:
    with ExitStack() as recorded, ExitStack() as undo:
        recorders = {node.name: Recorder(node, ATTEMPT) for node in cluster.nodes}
        made = Scene(launches, cluster, undo, recorders)
        recorded.callback(lambda: [recorder.close() for recorder in made.recorders.values()])
        if planted.before is not None:
            planted.before(made)
        made.run = start(launches, planted.acts, "*:report", profile={"nodes": planted.nodes} | SHORT | planted.profile)
        yield made


@pytest.mark.parametrize("planted", ENDINGS, ids=lambda planted: planted.what)
def test_the_first_cause_is_named(planted: Planted, launches: Launching, cluster: Cluster, gpus: None) -> None:
    with scene(launches, cluster, planted) as made:
        planted_s = time.monotonic()
        if planted.plant is not None:
            made.ready()
            planted_s = time.monotonic()
            planted.plant(made)
        wait_until(lambda: _first(launches) is not None, ENDED_S, "an attempt ended", made.run.tail)
        took_s = time.monotonic() - planted_s
        record = _first(launches)
        made.undo.close()
        if made.run.process.poll() is None and gang_endings.is_loss(record["reason"]):
            made.run.process.send_signal(signal.SIGINT)  # its next attempts are not of interest
        ended = made.run.ended()
        wait_until_gone(launches, GONE_S)
        ran_s = made.node_s(record["id"])
    usd_per_node_s = TWO["usd_per_hour"] / 3600
    line = gang_endings.Line(
        what=planted.what,
        right=planted.right,
        reason=record["reason"],
        said=record["said"],
        is_right=planted.is_right(record["reason"], record["said"]),
        took_s=round(took_s, 1),
        paid_s=round(record["cost_usd"] / usd_per_node_s, 1),
        ran_s=round(ran_s, 1),
    )
    gang_endings.write(line, Path(os.environ[RECORD]))
    assert line.is_right, "\n".join([str(line), *ended.lines[-30:]])


def _first(launches: Launching) -> Any:
    """Return the first attempt whose end its launcher has recorded."""
    ended = (item for item in launches.steps.records() if (item["by"], item["reason"]) != (LAUNCHER, UNDER_WAY))
    return next((record for record in ended if record["by"] == LAUNCHER), None)
