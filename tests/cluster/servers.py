"""Servers that pods reach: S3 and PostgreSQL, as processes of this machine next to the control plane."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.spaces import HOST
from tests.doubles import postgres_server, s3_server
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.s3_server import S3Server

ADDRESS = "DRIFTLINE_TEST_ADDRESS"
"""This machine's address for the pods of a cluster that `DRIFTLINE_TEST_KUBECONFIG` names."""
DIES_WITH_PYTEST = ("setpriv", "--pdeathsig=KILL", "--")


def address(cluster: Cluster) -> str:
    """Return the address at which pods reach this process's servers; skip where nobody knows one."""
    if cluster.control:
        return HOST
    if ADDRESS not in os.environ:
        pytest.skip(f"{ADDRESS} is not set: the pods of another cluster cannot reach servers of this machine")
    return os.environ[ADDRESS]


@contextmanager
def s3_running(cluster: Cluster, folder: Path, bucket: str) -> Iterator[S3Server]:
    at = address(cluster)
    with cluster.network(), s3_server.running(folder, at, DIES_WITH_PYTEST) as server:
        server.make_bucket(bucket)
        yield server


@contextmanager
def postgres_running(cluster: Cluster) -> Iterator[PostgresServer]:
    """Run a PostgreSQL server that pods reach."""
    at = address(cluster)
    with cluster.network(), postgres_server.running(at, DIES_WITH_PYTEST) as server:
        yield server
