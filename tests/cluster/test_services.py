"""Two products' services next to each other: answered, rolled, drained, closed to strangers, and bad input by name.

Only services run in the cluster, limited to 200m of CPU. Their models are small graphs that nobody trained.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from platform_assets.kubernetes import service_manifests
from platform_assets.operations import status
from platform_assets.store.product_store import ProductStore
from tests.cluster import loop, platform_images, released
from tests.cluster.callers import Callers
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import TESTS
from tests.cluster.loop import Question
from tests.cluster.node import POLICIES
from tests.cluster.platform import NAMESPACE, Platform
from tests.cluster.pods import Pods, manifest
from tests.cluster.waiting import wait_until
from tests.doubles import models
from tests.doubles.products.live_parts import SPEC
from tests.doubles.s3_server import S3Server

pytestmark = pytest.mark.long

PATIENCE_S = 240.0
ROLLED, STEADY = "tiny", "tiny_too"
BIAS = {ROLLED: 0.25, STEADY: -0.5}


@dataclass(frozen=True)
class Running:
    """A product whose service runs.

    Attributes:
        text: its manifests.
        digest: of its model.
    """

    platform: Platform
    product: ProductStore
    text: str
    digest: str

    @property
    def name(self) -> str:
        return service_manifests.name_of(self.product.name)

    @property
    def address(self) -> str:
        return self.platform.address(self.name)

    def pods(self) -> list[Any]:
        selector = f"driftline/product={self.product.name}"
        return [pod for pod in self.platform.pods(selector) if pod.metadata.deletion_timestamp is None]

    def messages(self) -> list[str]:
        return [todo.text for todo in status.of_product(self.product).todo]


@pytest.fixture(scope="module")
def platform(
    cluster: Cluster, repository: Path, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    with cluster.network():
        image = cluster.registry.push_built("service", platform_images.built(repository, "service"))
        with loop.services_alone(cluster, image, s3, tmp_path_factory.mktemp("services")) as platform:
            yield platform


@pytest.fixture
def running(platform: Platform, reachable: Cluster, stored: None, request: Any, tmp_path: Path) -> dict[str, Running]:
    """Both products, each with a release and its service in the cluster."""
    request.config.stash.setdefault(TESTS, {})[NAMESPACE] = request.node.nodeid
    services = {}
    for name in BIAS:
        product = ProductStore(replace(SPEC, name=name), platform.settings)
        if product.history.live() is None:
            released.release(product, tmp_path, BIAS[name])
        live = product.history.live()
        assert live is not None
        services[name] = Running(platform, product, service_manifests.manifests(product), live[1].digest)
        platform.apply(services[name].text, name)
    for service in services.values():
        waiting(platform, lambda service=service: ready(service) == 2, f"two pods of {service.name} are ready")
    return services


def waiting(
    platform: Platform, condition: Callable[[], object], text: str, more: Callable[[], str] = lambda: ""
) -> None:
    def described() -> str:
        states = platform.kubectl("get", "pods,hpa", "--output=wide")
        return f"{states}\n{platform.kubectl('describe', 'pods')[-6000:]}\n{more()}"

    wait_until(lambda: bool(condition()), PATIENCE_S, text, described)


def ready(service: Running) -> int:
    """Return how many of its pods serve its model, by their own word."""
    pods = [pod for pod in service.pods() if pod.status.pod_ip and pod.status.container_statuses]
    pods = [pod for pod in pods if pod.status.container_statuses[0].ready]
    return sum(page(pod)["digest"] == service.digest for pod in pods)


def page(pod: Any) -> dict[str, Any]:
    return loop.get(f"http://{pod.status.pod_ip}:3001/readyz")


def question(entity: str) -> Question:
    return models.row(entity, idempotency_key=entity)


def test_two_products_are_served_and_one_is_rolled_and_drained_without_a_lost_answer(
    running: dict[str, Running], machines: object
) -> None:
    platform = running[ROLLED].platform
    for name, service in running.items():
        assert applied_again(service) == ["configured", *["unchanged"] * 4]
        status_, answer = loop.ask(service.address, question(f"{name}-1"))
        assert (status_, answer["digest"]) == (200, service.digest)
        assert answer["probability"] == pytest.approx(models.expected(BIAS[name]), abs=1e-6)
        assert service.messages() == []
    rolled, steady = running[ROLLED], running[STEADY]
    both = {name: Callers(service.address) for name, service in running.items()}
    before = {pod.metadata.name for pod in rolled.pods()}
    with both[ROLLED].asking([question("a")]), both[STEADY].asking([question("b")]):
        platform.kubectl("rollout", "restart", f"deployment/{rolled.name}")
        platform.wait_for(rolled.name)
        waiting(platform, lambda: ready(rolled) == 2 and len(rolled.pods()) == 2, "the new replicas serve alone")
        assert not before & {pod.metadata.name for pod in rolled.pods()}
        node = rolled.pods()[0].spec.node_name
        drain = ("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s")
        platform.cluster.kubectl(*drain, "--pod-selector=app.kubernetes.io/component=service")
        waiting(platform, lambda: ready(rolled) == ready(steady) == 2, "all run on the other node")
        assert {pod.spec.node_name for pod in [*rolled.pods(), *steady.pods()]}.isdisjoint({node})
        platform.cluster.kubectl("uncordon", node)
    for name, callers in both.items():
        print(f"{name}: {dict(callers.statuses)}, failed twice {callers.failed_twice}")
        assert callers.statuses[200] > 20
        assert callers.failed_twice == 0


def applied_again(service: Running) -> list[str]:
    """Return what an apply of the same manifests prints, sorted, and check that it changes nothing.

    kubectl's word for a PodDisruptionBudget is always `configured`: its API marks the selector as replaced by a patch.
    """
    kinds = "deployments,services,poddisruptionbudgets,horizontalpodautoscalers,networkpolicies"
    specs = ("get", kinds, f"--selector=driftline/product={service.product.name}", "--output=jsonpath={.items[*].spec}")
    before = service.platform.kubectl(*specs)
    printed = service.platform.apply(service.text, service.product.name)
    assert service.platform.kubectl(*specs) == before
    assert "poddisruptionbudget.policy/" in printed and printed.count("configured") == 1, printed
    return sorted(re.findall(r"(?m) (\w+)$", printed))


def test_callers_reach_a_service_and_strangers_do_not(
    running: dict[str, Running], pods: Pods, core: client.CoreV1Api, shell: str
) -> None:
    control = running[ROLLED].platform.cluster.control
    if control and not (control.assets / POLICIES).exists():
        pytest.skip(f"nothing enforces NetworkPolicies: the cluster's programs lack {POLICIES}")
    core.patch_namespace(pods.namespace, {"metadata": {"labels": {"driftline/callers": "true"}}})
    address = running[ROLLED].pods()[0].status.pod_ip
    for name, label, port in (
        ("caller", "driftline/caller", 3000),
        ("scraper", "driftline/caller", 3001),
        ("stranger", "driftline/stranger", 3000),
        ("named", "app.kubernetes.io/name", 3001),
    ):
        script = f"for i in 1 2 3; do timeout 2 bash -c '</dev/tcp/{address}/{port}' && exit 0; done; exit 9"
        pod = manifest(name, shell, script)
        pod["metadata"]["labels"][label] = "prometheus" if name == "named" else "true"
        pods.create(pod)
    assert pods.wait_for_end("caller").exit_code == 0
    assert pods.wait_for_end("scraper").exit_code == 9, "callers do not reach the port of metrics"
    assert pods.wait_for_end("stranger").exit_code == 9
    assert pods.wait_for_end("named").exit_code == 9, "a scraper's label counts in its namespace alone"
