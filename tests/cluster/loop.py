"""A live product's loop on a cluster and on a laptop: what both need, and what must be equal."""

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import TableStore
from tests.cluster import created_pods
from tests.cluster.cluster import Cluster
from tests.cluster.platform import NAMESPACE, PART_OF, Images, Platform, deployed
from tests.doubles import cluster_environment, documents
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.products.live_parts import LEARNED, SPEC
from tests.doubles.s3_server import S3Server

LOGS, BUCKET = "driftline-logs", "driftline"
REPLICAS = 3
TRAINING_S = 420.0
SMALL = {f"DRIFTLINE_PROFILE__{name}__CORES": "1" for name in ("CPU_SMALL", "CPU_SPOT")}
"""A training leaves room for everything else on nodes of two cores."""
CHANGED = range(LEARNED, LEARNED + 4)
OWN = f"app.kubernetes.io/component=service,driftline/product={SPEC.name}"
"""The label of the service's pods."""
KEPT_NOTHING = {"emptyDir", "configMap", "secret", "projected", "downwardAPI"}
"""Kinds of volumes that hold nothing which another pod can see."""
Question = Mapping[str, Any]


@contextmanager
def at_work(
    cluster: Cluster, images: Images, s3: S3Server, postgres: PostgresServer, folder: Path
) -> Iterator[Platform]:
    """Run the platform in the cluster, with an empty store whose name is the folder's, and a bucket for logs."""
    environment = {"DRIFTLINE_LOGS_BUCKET": LOGS, **SMALL, **postgres.environment(), **s3.environment()}
    s3.make_bucket(LOGS)
    with _deployed(cluster, images, environment, folder) as platform:
        yield platform
    s3.remove_bucket(LOGS)


@contextmanager
def services_alone(cluster: Cluster, image: str, s3: S3Server, folder: Path) -> Iterator[Platform]:
    """Run the base without any of the platform's own pods, and a store; the image of services is the only one."""
    images = Images(platform=image, trainer=image, service=image, libraries="")
    with _deployed(cluster, images, s3.environment(), folder, parts=()) as platform:
        yield platform


def _deployed(
    cluster: Cluster, images: Images, environment: Mapping[str, str], folder: Path, **parts: Sequence[str]
) -> AbstractContextManager[Platform]:
    secrets: dict[str, dict[str, str]] = {"driftline-postgres": {}, "driftline-store": {}}
    variables = {"DRIFTLINE_ROOT": f"s3://{BUCKET}/{folder.name}"}
    for name, text in environment.items():
        if name in ("DAGSTER_PG_USER", "DAGSTER_PG_PASSWORD"):
            secrets["driftline-postgres"][name] = text
        elif "KEY" in name:
            secrets["driftline-store"][name] = text
        else:
            variables[name] = text
    overlay = folder / "overlay"
    overlay.mkdir()
    return deployed(cluster, images, variables, secrets, overlay, **parts)


def ask(address: str, question: Question, timeout_s: float = 30.0) -> tuple[int, Any]:
    """Ask on a new connection, so that each replica gets its share; return status, 0 for a broken one, and answer."""
    place = urlsplit(address)
    with closing(http.client.HTTPConnection(str(place.hostname), place.port, timeout=timeout_s)) as connection:
        try:
            connection.request("POST", "/predict", json.dumps(question))
            with connection.getresponse() as response:
                return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException) as problem:
            return 0, problem


def get(address: str) -> dict[str, Any]:
    place = urlsplit(address)
    with closing(http.client.HTTPConnection(str(place.hostname), place.port, timeout=5)) as connection:
        connection.request("GET", place.path)
        return dict(json.loads(connection.getresponse().read()))


def land(places: tuple[Settings, ...], files: dict[str, str]) -> None:
    for settings in places:
        cluster_environment.land(settings.root, files)


def decision(settings: Settings, key: str) -> dict[str, Any] | None:
    return Ledgers(settings.root, SPEC.name).read(naming.DECISIONS, key)


def newest_release(settings: Settings) -> tuple[int, dict[str, Any]]:
    return Ledgers(settings.root, SPEC.name).latest(naming.RELEASES) or (0, {})


def replicas(platform: Platform) -> list[Any]:
    """Return the service's pods, without those that are asked to end: they answer no probe any more."""
    return [pod for pod in platform.pods(OWN) if pod.metadata.deletion_timestamp is None]


def served(platform: Platform) -> list[Any]:
    """Return the number of the release that each replica serves, None of one that serves none."""
    return [get(f"http://{pod.status.pod_ip}:3001/readyz").get("release") for pod in replicas(platform)]


def content(settings: Settings) -> dict[str, Mapping[str, Any]]:
    """Return what must be equal, by kind and then by key, number or id."""
    ledgers, tables = Ledgers(settings.root, SPEC.name), TableStore(settings.root, SPEC.name)
    keys = [SPEC.grain.key_at(index) for index in range(CHANGED[-1] + 1)]
    decisions = {key: ledgers.read(naming.DECISIONS, key) or {} for key in keys}
    number, _ = newest_release(settings)
    releases = {index: ledgers.at(naming.RELEASES, index) or {} for index in range(1, number + 1)}
    digests = {documents.live_digest(release) for release in releases.values()}
    verdicts = {digest: ledgers.read(naming.VERDICTS, digest) or {} for digest in digests}
    answers = tables.read("predictions", keys, columns=["key", "prediction_id", "digest"])
    return {
        "decisions": {key: _chosen(record, "action", "reasons", "cutoff") for key, record in decisions.items()},
        "verdicts": {digest: _chosen(record, "passed", "reasons") for digest, record in verdicts.items()},
        "releases": {
            index: (documents.live_digest(record), *_chosen(record, "outcome", "cutoff"))
            for index, record in releases.items()
        },
        "answers": {identity: (key, digest) for key, identity, digest in answers.iter_rows()},
    }


def _chosen(record: Mapping[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in names)


def shared(platform: Platform) -> list[str]:
    """Return what a pod could see of another: a volume of any pod that was ever created, or a file of one that stays.

    Prints the volumes of each kind of pod. Each pod that stays gets a canary file in the folders that it may write.
    """
    problems = []
    for name, kinds in sorted(created_pods.volumes(platform.cluster, NAMESPACE).items()):
        print(f"{name}: {', '.join(sorted(kinds))}")
        problems += [f"{name} has a volume of the kind {kind}" for kind in sorted(kinds - KEPT_NOTHING)]
    # Pods of runs and steps may end at any moment.
    places = {pod.metadata.name: ("/state", "/tmp", "/dev/shm") for pod in platform.pods(PART_OF)}
    for name, folders in places.items():
        for folder in folders:
            _in(platform, name, f"open('{folder}/canary-{name}', 'w').close()")
    for name, folders in places.items():
        seen = _in(
            platform, name, f"import os; print([n for f in {folders!r} for n in os.listdir(f) if 'canary' in n])"
        )
        if seen.strip() != str([f"canary-{name}"] * len(folders)):
            problems.append(f"{name} sees {seen.strip()}")
    return problems


def _in(platform: Platform, pod: str, code: str) -> str:
    return platform.kubectl("exec", pod, "--", "python", "-c", code)
