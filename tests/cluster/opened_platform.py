"""Open a cluster with the platform on it, for rows of `make chaos` that launch no step."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from tests.cluster import loop, names, opened, servers
from tests.cluster.cluster import started
from tests.cluster.loop import BUCKET
from tests.cluster.platform import Images, Platform
from tests.cluster.requirements import ASSETS, missing
from tests.doubles.postgres_server import PostgresServer


def check() -> None:
    """Raise a RuntimeError if this machine lacks what a cluster needs: before an image is built."""
    if sentence := missing(os.environ):
        raise RuntimeError(sentence)


@contextmanager
def opened_platform(image: str) -> Iterator[tuple[Platform, PostgresServer]]:
    """Start a cluster with names, a store and PostgreSQL, and the platform of an image; this thread is in its network.

    Args:
        image: of the platform, by digest, on this machine.
    """
    with tempfile.TemporaryDirectory(prefix="driftline-") as place, started(Path(os.environ[ASSETS])) as cluster:
        folder = Path(place)
        (folder / "s3").mkdir()
        with ExitStack() as stack:
            s3 = stack.enter_context(servers.s3_running(cluster, folder / "s3", BUCKET))
            postgres = stack.enter_context(servers.postgres_running(cluster))
            stack.enter_context(cluster.network())
            stack.enter_context(patch.dict(os.environ, opened.store_environment(s3), clear=True))
            pushed = cluster.registry.push_built("platform", image)
            images = Images(platform=pushed, trainer=pushed, service=pushed, libraries="")
            names.serve_names(cluster, folder)
            yield stack.enter_context(loop.at_work(cluster, images, s3, postgres, folder)), postgres
