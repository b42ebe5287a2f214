"""Namespaces and cables of a cluster, without Kubernetes in them."""

import os
import signal

import psutil
import pytest

from tests.cluster import cleanup, keeper
from tests.cluster.requirements import missing
from tests.cluster.waiting import wait_until

PATIENCE_S = 30.0


@pytest.fixture
def name() -> str:
    if sentence := missing(os.environ):
        pytest.skip(sentence)
    return cleanup.new_name()


def test_the_next_start_removes_what_a_killed_keeper_left(name: str) -> None:
    with keeper.opened(name) as space:
        init = psutil.Process(space.init)
        unshare = psutil.Process(init.ppid())
        group = cleanup.hierarchies()[0] / name / "node-1"
        group.mkdir(parents=True)
        assert name not in cleanup.sweep(), "a cluster that lives was removed"
        os.kill(unshare.ppid(), signal.SIGKILL)
        wait_until(lambda: not init.is_running(), PATIENCE_S, "the init has died with its keeper")
        assert group.exists()
        assert name in cleanup.sweep()
        assert not group.exists()
        assert not cleanup.folder_of(name).exists()
