"""The cluster of row R7: one service, its CPU limited by the component `service-cpu-limits`, and its callers."""

import http.client
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import urllib3
import yaml
from kubernetes import client

from platform_assets.base import naming
from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.kubernetes import service_manifests
from platform_assets.product.pods import Pods
from platform_assets.serving.run import build
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from proof.chaos.busy_graph import busy
from proof.chaos.r7_calls import Counts, Load, counts, sending
from tests.cluster import cleanup, loop, names, opened, platform_images, servers
from tests.cluster.cluster import Cluster, started
from tests.cluster.loop import BUCKET
from tests.cluster.platform import NAMESPACE, Images, Platform, deployed
from tests.cluster.requirements import ASSETS, missing
from tests.cluster.waiting import wait_until
from tests.doubles import documents, models
from tests.doubles.products.live_parts import SPEC

NAME = "scaled"
REPLICAS, REPLICAS_MAX, CORES = 2, 6, 0.2
PATIENCE_S = 240.0
LONGEST_REQUEST_S = 7.0
"""Two attempts of 2 s, and the longest pause between them."""
DEPTH = 3
"""Matrices that the model multiplies only to take some CPU."""
TROUBLE = (client.ApiException, http.client.HTTPException, urllib3.exceptions.HTTPError, OSError, KeyError)


@dataclass(frozen=True)
class Seen:
    """One look at the service.

    Attributes:
        at: seconds since 1970.
        desired: replicas that the Deployment should have.
        ready: replicas behind the Service.
        nodes: of these.
    """

    at: float
    desired: int
    ready: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Contract:
    """One of two contracts, each with a model and its Bento in the store."""

    digest: str
    sha256: str
    tag: str
    bento: str
    path: Path


@dataclass
class World:
    """The service, and who watches it.

    Attributes:
        contracts: two of them; the service has the first one at the beginning.
        expected: the answer of each model to the row that callers ask about.
        seen: looks at the service, one per second.
        ordinary: requests per second, the share of a replica's capacity that the ordinary load is.
        work_ms: milliseconds of CPU of a fixed piece of work when that capacity was measured.
        bases: requests per second of the ordinary load, at the beginnings of phases and rounds.
    """

    platform: Platform
    product: ProductStore
    contracts: Sequence[Contract]
    expected: dict[str, float]
    load: Load
    folder: Path
    seen: list[Seen] = field(default_factory=list)
    ordinary: float = 0.0
    work_ms: float = 0.0
    bases: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return service_manifests.name_of(NAME)

    @property
    def address(self) -> str:
        return self.platform.address(self.name)

    @property
    def base(self) -> float:
        return self.bases[-1]

    def release(self, contract: Contract) -> None:
        settings, ledgers = self.product.settings, Ledgers(self.product.settings.root, NAME)
        number = ledgers.newest_number(naming.RELEASES) + 1
        cutoff = SPEC.grain.key_at(8 + number)
        record = models.release_record(
            number, contract.digest, product=NAME, cutoff=cutoff, contract_sha256=contract.sha256
        )
        ledgers.create_number(naming.RELEASES, number, record)
        notes = {"tag": contract.tag, "asked_rows": 1, "max_apart": 0.0, "request": {}, "cpu_s": 1.0}
        self.product.tables.record(
            "service", cutoff, content_digest="0", inputs={}, code="0", notes=notes | {"stored": contract.bento}
        )
        self.product = ProductStore(self.product.spec, settings)

    def apply(self) -> None:
        """Apply the manifests of the newest release, with the limit of CPU."""
        self.platform.apply(service_manifests.manifests(self.product), "service")

    def apply_limited(self, text: str, folder: Path, cpu: str) -> None:
        """Apply manifests with a limit of CPU other than the component's."""
        folder.mkdir(exist_ok=True)
        (folder / "service.yaml").write_text(text, encoding="utf-8")
        path = "/spec/template/spec/containers/0/resources/limits/cpu"
        patch_ = f"- {{op: add, path: {path}, value: '{cpu}'}}"
        top = {"resources": ["service.yaml"], "patches": [{"target": {"kind": "Deployment"}, "patch": patch_}]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(top), encoding="utf-8")
        self.platform.cluster.kubectl("apply", "--kustomize", str(folder))

    def pods(self) -> list[Any]:
        """Return the service's pods, without those that are asked to end."""
        pods = self.platform.pods(f"app.kubernetes.io/component=service,driftline/product={NAME}")
        return [pod for pod in pods if pod.metadata.deletion_timestamp is None]

    def is_settled(self, count: int | None = None, digest: str = "") -> bool:
        """Return whether so many pods are ready, none is left that ends, and all serve a model.

        Args:
            count: how many; None for as many as the autoscaler wants now.
        """
        pods = self.platform.pods(f"app.kubernetes.io/component=service,driftline/product={NAME}")
        wanted = self.seen[-1].desired if count is None else count
        if len(pods) != wanted or not all(is_ready(pod) for pod in pods):
            return False
        return not digest or all(served(pod) == digest for pod in pods)

    def wait(self, condition: Callable[[], object], text: str, patience_s: float = PATIENCE_S) -> None:
        wait_until(lambda: bool(condition()), patience_s, text, self.described)

    def described(self) -> str:
        states = self.platform.kubectl("get", "pods,hpa", "--output=wide")
        return f"{states}\n{self.platform.kubectl('get', 'events', '--sort-by=.lastTimestamp')[-4000:]}"

    def counts(self, begin: float, end: float) -> Counts:
        """Return what became of the requests between two moments, once all of them have ended."""
        time.sleep(max(0.0, end + LONGEST_REQUEST_S - time.time()))
        return counts(self.load.calls(begin, end), self.expected)

    def between(self, begin: float, end: float) -> list[Seen]:
        return [seen for seen in list(self.seen) if begin <= seen.at < end]


def is_ready(pod: Any) -> bool:
    statuses = pod.status.container_statuses
    return bool(pod.status.pod_ip and statuses and statuses[0].ready and pod.metadata.deletion_timestamp is None)


def served(pod: Any) -> str:
    try:
        return str(loop.get(f"http://{pod.status.pod_ip}:3001/readyz").get("digest"))
    except TROUBLE:
        return ""


@contextmanager
def opened_world() -> Iterator[World]:
    """Start the cluster with names, metrics and a store, and the service with its first contract."""
    if sentence := missing(os.environ):
        raise RuntimeError(sentence)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="driftline-", ignore_cleanup_errors=True)))
        cluster = stack.enter_context(started(Path(os.environ[ASSETS])))
        print(f"{cluster.kubeconfig} after {cluster.started_s:.0f} s", flush=True)
        # A machine's share of CPU: together the pods would weigh as much as one other process.
        for group in cleanup.cgroups(cluster.nodes[0].cluster):
            for file, weight in (("cpu.shares", "16384"), ("cpu.weight", "1600")):
                if (group / file).exists():
                    (group / file).write_text(weight, encoding="ascii")
        (folder / "s3").mkdir()
        s3 = stack.enter_context(servers.s3_running(cluster, folder / "s3", BUCKET))
        image = platform_images.built(REPOSITORY, "service")
        stack.enter_context(cluster.network())
        stack.enter_context(patch.dict(os.environ, opened.store_environment(s3), clear=True))
        pushed = cluster.registry.push_built("service", image)
        images = Images(platform=pushed, trainer=pushed, service=pushed, libraries="")
        # The node that will lose its power runs nothing but the service's replicas.
        victim = cluster.nodes[-1].name
        cluster.kubectl("cordon", victim)
        names.serve_names(cluster, folder)
        names.serve_metrics(cluster, folder)
        cluster.kubectl("uncordon", victim)
        places = {**s3.environment(), "DRIFTLINE_ROOT": f"s3://{BUCKET}/scaling"}
        secret = {name: text for name, text in places.items() if "KEY" in name}
        variables = {name: text for name, text in places.items() if name not in secret}
        secrets = {"driftline-postgres": {}, "driftline-store": secret}
        (folder / "overlay").mkdir()
        platform = stack.enter_context(deployed(cluster, images, variables, secrets, folder / "overlay", parts=()))
        spec = replace(SPEC, name=NAME, pods=Pods(replicas=REPLICAS, replicas_max=REPLICAS_MAX, cores=CORES))
        product = ProductStore(spec, platform.settings)
        contracts, expected = _contracts(product, folder)
        load = stack.enter_context(sending(folder))
        world = World(platform, product, contracts, expected, load, folder)
        world.release(contracts[0])
        stack.enter_context(_watched(world, cluster))
        yield world


def _contracts(product: ProductStore, folder: Path) -> tuple[list[Contract], dict[str, float]]:
    """Store two models whose contracts differ in the longest list that a request may hold, and their Bentos."""
    contracts, expected = [], {}
    here = Settings(root=product.settings.root, state=folder / "state")
    for number, max_rows in enumerate((16, 32)):
        document, bias = models.contract(product=NAME, max_rows=max_rows), 0.25 - number
        graph = busy(models.logistic(document, bias), DEPTH)
        golden = models.golden_of(document, graph=graph)
        digest = models.write_bundle(product.artifacts, bias=bias, document=document, graph=graph, golden=golden)
        built = build.build(here, product.artifacts, digest)
        Ledgers(product.settings.root, NAME).create(naming.VERDICTS, digest, documents.verdict(digest))
        bento = build.stored(product.artifacts, built)
        contracts.append(Contract(digest, sha256(canonical(document)), built.tag, bento, built.path))
        expected[digest] = models.expected(bias)
    return contracts, expected


@contextmanager
def _watched(world: World, cluster: Cluster) -> Iterator[None]:
    """Look at the service once a second meanwhile."""
    is_over = threading.Event()

    def look() -> None:
        with cluster.network():
            while not is_over.wait(1.0):
                try:
                    apps, discovery = client.AppsV1Api(cluster.api), client.DiscoveryV1Api(cluster.api)
                    items = apps.list_namespaced_deployment(
                        NAMESPACE, field_selector=f"metadata.name={world.name}"
                    ).items
                    slices = discovery.list_namespaced_endpoint_slice(
                        NAMESPACE, label_selector=f"kubernetes.io/service-name={world.name}"
                    ).items
                    ready = [point for one in slices for point in one.endpoints or [] if point.conditions.ready]
                    desired = items[0].spec.replicas if items else 0
                    world.seen.append(
                        Seen(time.time(), desired, len(ready), tuple(sorted(point.node_name or "" for point in ready)))
                    )
                except TROUBLE as problem:
                    print(f"a look: {problem}"[:200], flush=True)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
