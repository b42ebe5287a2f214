"""Open what tests of steps need, for pytest's fixtures and for rows of `make chaos`."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from kubernetes import client

from platform_assets.base.settings import REPOSITORY, Settings
from tests.cluster import accounts, servers, trainer
from tests.cluster.cluster import Cluster, started
from tests.cluster.namespaces import fresh_namespace
from tests.cluster.pods import Pods
from tests.cluster.requirements import ASSETS, missing
from tests.cluster.spaces import environment
from tests.cluster.step_runs import StepRuns
from tests.cluster.trainer import TrainerImage
from tests.doubles.s3_server import S3Server

BUCKET = "driftline"
SECRET = "driftline"


def pushed_steps(cluster: Cluster, built: TrainerImage) -> TrainerImage:
    """Return the trainer image with the steps and products of tests, by its digest in the cluster's registry."""
    image = trainer.steps_image(REPOSITORY, built)
    with cluster.network():
        return TrainerImage(cluster.registry.push_built("steps", image.name), image.libraries)


def store_environment(s3: S3Server) -> dict[str, str]:
    """Return the environment of a process in the cluster's network that reaches the S3 server."""
    return {**environment(), **s3.environment()}


def step_runs(pods: Pods, cluster: Cluster, steps: TrainerImage, s3: S3Server, state: Path) -> StepRuns:
    """Return runs of steps in a namespace whose accounts and rights are there, with a storage root of their own."""
    keys = {name: value for name, value in s3.environment().items() if "KEY" in name}
    cluster.core.create_namespaced_secret(pods.namespace, {"metadata": {"name": SECRET}, "stringData": keys})
    environment = {
        "DRIFTLINE_STATE": str(state),
        "DRIFTLINE_ROOT": f"s3://{BUCKET}/{uuid.uuid4().hex}",
        "DRIFTLINE_LAUNCHER": "kubernetes",
        "DRIFTLINE_NAMESPACE": pods.namespace,
        "DRIFTLINE_TRAINER_IMAGE": steps.name,
        "DRIFTLINE_TRAINER_LIBRARIES": steps.libraries,
        "DRIFTLINE_STEP_SECRET": SECRET,
        "DRIFTLINE_STEP_SERVICE_ACCOUNT": accounts.STEP,
        **s3.environment(),
    }
    configuration = accounts.configuration_of(cluster, accounts.RUN, pods.namespace)
    return StepRuns(pods, Settings.from_environment(environment), configuration, environment)


@dataclass(frozen=True)
class Opened:
    """A cluster of our own with a registry that has the steps' image, and an S3 server."""

    cluster: Cluster
    steps: TrainerImage
    s3: S3Server
    folder: Path

    @contextmanager
    def runs(self) -> Iterator[StepRuns]:
        with fresh_namespace(self.cluster.core) as name, accounts.granted(self.cluster, name):
            pods = Pods(client.CoreV1Api(self.cluster.api), name)
            yield step_runs(pods, self.cluster, self.steps, self.s3, self.folder / name)


@contextmanager
def opened(nodes: int = 2) -> Iterator[Opened]:
    """Start a cluster with all that steps need, with this thread in its network and its S3 in the environment.

    Raises:
        RuntimeError: this machine lacks what a cluster or the image needs.
    """
    if sentence := missing(os.environ) or trainer.missing(os.environ):
        raise RuntimeError(sentence)
    built = trainer.trainer_image(REPOSITORY)
    with tempfile.TemporaryDirectory(prefix="driftline-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        (folder / "s3").mkdir()
        with (
            started(Path(os.environ[ASSETS]), nodes) as cluster,
            servers.s3_running(cluster, folder / "s3", BUCKET) as s3,
        ):
            steps = pushed_steps(cluster, built)
            with cluster.network(), patch.dict(os.environ, store_environment(s3), clear=True):
                yield Opened(cluster, steps, s3, folder)
