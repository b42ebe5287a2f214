"""The three commands of docs/operate.md that say why pods do not start, and what keeps a service from scaling."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from platform_assets.kubernetes import service_manifests
from platform_assets.store.product_store import ProductStore
from tests.cluster import loop, platform_images
from tests.cluster.callers import Callers
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import TESTS
from tests.cluster.node import Node
from tests.cluster.platform import NAMESPACE
from tests.cluster.released import release
from tests.cluster.test_services import ROLLED, Running, question, ready, waiting
from tests.doubles.products.live_parts import SPEC
from tests.doubles.s3_server import S3Server

pytestmark = pytest.mark.long

PAGE = re.compile(r"^<!-- run by tests/cluster/test_kubectl_page.py -->\n```bash\n(.*?)^```$", re.M | re.S)
PRODUCT = "flight_delays"
ABSENT = f"127.0.0.1:5000/service@sha256:{'0' * 64}"
ROOT = "valueFrom: {configMapKeyRef: {name: driftline, key: DRIFTLINE_ROOT}}"


@pytest.fixture
def service(
    reachable: Cluster, repository: Path, s3: S3Server, stored: None, request: Any, tmp_path: Path
) -> Iterator[Running]:
    """Two replicas of a small model with an autoscaler, on a cluster without metrics-server."""
    request.config.stash.setdefault(TESTS, {})[NAMESPACE] = request.node.nodeid
    image = reachable.registry.push_built("service", platform_images.built(repository, "service"))
    with loop.services_alone(reachable, image, s3, tmp_path) as platform:
        product = ProductStore(replace(SPEC, name=ROLLED), platform.settings)
        release(product, tmp_path)
        live = product.history.live()
        assert live is not None
        running = Running(platform, product, service_manifests.manifests(product), live[1].digest)
        platform.apply(running.text, running.name)
        waiting(platform, lambda: ready(running) == 2, "two pods are ready")
        yield running


@pytest.fixture
def commands(repository: Path) -> list[list[str]]:
    """The arguments of the page's commands, about the product that runs here."""
    (block,) = PAGE.findall((repository / "docs/operate.md").read_text(encoding="utf-8"))
    lines = [shlex.split(line) for line in block.replace(PRODUCT, ROLLED).splitlines()]
    assert [name for name, *_ in lines] == ["kubectl"] * 3
    return [arguments for _, *arguments in lines]


def wrong(service: Running) -> dict[str, str]:
    """Return Deployments of the product that cannot serve, by name."""
    name, image = service.name, service.platform.settings.service_image or ""
    text = service_manifests.manifests(service.product, 1).partition("\n---\n")[0]
    result = {
        "bucket": text.replace(ROOT, "value: s3://driftline-absent/store"),
        "secret": text.replace("name: driftline-store", "name: absent"),
        "image": text.replace(image, ABSENT),
        "large": text.replace("memory: 1Gi", "memory: 900Gi"),
        "never": text.replace("path: /healthz", "path: /nowhere", 1),
        "refused": text.replace("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
    }
    return {
        f"{name}-{kind}": other.replace(f"  name: {name}\n", f"  name: {name}-{kind}\n", 1)
        for kind, other in result.items()
    }


def test_the_commands_show_what_is_wrong_with_each_deployment_and_answers_go_on(
    service: Running, commands: list[list[str]]
) -> None:
    platform, name, callers, others = service.platform, service.name, Callers(service.address), wrong(service)
    signs = [
        (0, rf"{name}-never +0/1 "),
        (0, r"cpu: <unknown>/\d+%"),
        (0, r"ErrImagePull|ImagePullBackOff"),
        (0, r"resourcequota/"),
        (1, r"Message:.*the bucket s3://driftline-absent does not exist"),
        (1, r"Message:.*no key for s3://"),
        (1, r"FailedScheduling .*Insufficient memory"),
        (2, rf"FailedCreate +replicaset/{name}-refused"),
    ]
    missing = set(signs)

    def shows_all() -> bool:
        output = [platform.cluster.kubectl(*arguments) for arguments in commands]
        missing.difference_update({(number, sign) for number, sign in missing if re.search(sign, output[number])})
        return not missing

    try:
        with callers.asking([question(f"page-{number}") for number in range(20)]):
            for other, text in others.items():
                platform.apply(text, other)
            waiting(platform, shows_all, "the commands show each", lambda: str(missing))
    finally:
        for other in others:
            platform.kubectl("delete", "deployment", other, "--ignore-not-found", "--wait=false")
    print(f"next to them: {dict(callers.statuses)}, failed twice {callers.failed_twice}")
    assert callers.statuses[200] > 20
    assert callers.failed_twice == 0


def test_a_node_that_was_given_up_is_among_the_events(
    reachable: Cluster, machines: list[Node], commands: list[list[str]]
) -> None:
    node = machines[1]
    node.cable.cut()
    try:
        reachable.wait_for_node(node.name, is_ready=False)
    finally:
        node.cable.plug()
    reachable.wait_for_node(node.name)
    assert re.search(rf"NodeNotReady +node/{node.name} ", reachable.kubectl(*commands[2]))
