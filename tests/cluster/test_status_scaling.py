"""`driftline status` names what keeps a service from scaling and from outliving a node, while its replicas answer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from platform_assets import manifests
from platform_assets.handle import Product
from tests.chaos.r7_calls import WINDOW_S, counts, sending
from tests.cluster import platform_images
from tests.cluster.callers import Callers
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import TESTS
from tests.cluster.loop import BUCKET
from tests.cluster.node import Node
from tests.cluster.platform import NAMESPACE, Images, deployed
from tests.cluster.test_services import BIAS, ROLLED, Running, question, ready, release, waiting
from tests.doubles import models
from tests.doubles.products.live_parts import SPEC
from tests.doubles.s3_server import S3Server

pytestmark = pytest.mark.long

FLAPS, FLAP_S, SHORT_S = 3, 20.0, 4.0
RATE, CALLERS_END_S = 20.0, 5.0
"""Requests per second, and until the last ones have ended: two tries of 2 s."""


@pytest.fixture
def service(
    reachable: Cluster,
    repository: Path,
    s3: S3Server,
    stored: None,
    monkeypatch: pytest.MonkeyPatch,
    request: Any,
    tmp_path: Path,
) -> Iterator[Running]:
    """Two replicas of a small model with an autoscaler, on a cluster without metrics-server."""
    request.config.stash.setdefault(TESTS, {})[NAMESPACE] = request.node.nodeid
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(reachable.kubeconfig))
    places = {**s3.environment(), "DRIFTLINE_ROOT": f"s3://{BUCKET}/scaling"}
    secret = {name: text for name, text in places.items() if "KEY" in name}
    variables = {name: text for name, text in places.items() if name not in secret}
    image = reachable.registry.push_built("service", platform_images.built(repository, "service"))
    images = Images(platform=image, trainer=image, service=image, libraries="")
    (tmp_path / "overlay").mkdir()
    secrets = {"driftline-postgres": {}, "driftline-store": secret}
    with deployed(reachable, images, variables, secrets, tmp_path / "overlay", parts=()) as platform:
        product = Product(replace(SPEC, name=ROLLED), platform.settings)
        release(product, tmp_path)
        live = product.history.live()
        assert live is not None
        running = Running(platform, product, manifests.manifests(product), live[1].digest)
        platform.apply(running.text, running.name)
        waiting(platform, lambda: ready(running) == 2, "two pods are ready")
        yield running


def wrong(product: Product, name: str) -> dict[str, str]:
    """Return Deployments of the product that cannot serve, by name."""
    text = manifests.manifests(product, 1).partition("\n---\n")[0]
    never = text.replace("  replicas: 1\n", "  replicas: 1\n  progressDeadlineSeconds: 20\n")
    never = never.replace("path: /healthz", "path: /nowhere", 1).replace("failureThreshold: 90", "failureThreshold: 3")
    return {
        f"{name}-small": text.replace("memory: 1Gi", "memory: 128Mi"),
        f"{name}-never": never,
        f"{name}-apart": text.replace("whenUnsatisfiable: ScheduleAnyway", "whenUnsatisfiable: DoNotSchedule"),
    }


def wait_for_messages(service: Running, expected: Sequence[str]) -> None:
    """Wait until `driftline status` has said a sentence that begins as each of these patterns."""
    missing = set(expected)

    def has_messages() -> bool:
        sentences = service.messages()
        missing.difference_update({one for one in missing if any(re.match(one, text) for text in sentences)})
        return not missing

    waiting(
        service.platform,
        has_messages,
        "status names it",
        lambda: "\n".join([*missing, "MESSAGES", *service.messages()]),
    )
    print("\n".join(service.messages()))


def test_each_broken_deployment_is_named_and_answers_continue(service: Running) -> None:
    platform, name, callers = service.platform, service.name, Callers(service.address)
    questions = [question(f"scaling-{number}") for number in range(20)]
    others = wrong(service.product, name)
    try:
        with callers.asking(questions):
            for other, text in others.items():
                platform.apply(text.replace(f"  name: {name}\n", f"  name: {other}\n", 1), other)
            wait_for_messages(
                service,
                [
                    rf"The autoscaler of {name} has no readings and keeps 2 replicas .*: install metrics-server",
                    rf"{name}-small limits a pod's memory to 128Mi, and the model of release 1 needs 0\.5\d GB",
                    rf"The rollout of {name}-never is stuck: no new replica became ready within 20 s",
                    r"Pods of tiny never become ready: container service was started \d times",
                    r"Pods of tiny find no node that keeps them apart: .*didn't match pod topology spread constraints",
                ],
            )
    finally:
        for other in others:
            platform.kubectl("delete", "deployment", other, "--ignore-not-found", "--wait=false")
    print(f"next to them: {dict(callers.statuses)}, failed twice {callers.failed_twice}")
    assert callers.statuses[200] > 20
    assert callers.failed_twice == 0


def test_a_flapping_node_with_a_replica_is_named_and_answers_go_on(
    service: Running, machines: list[Node], reachable: Cluster, tmp_path: Path
) -> None:
    """Callers outside come in by the other node. Kubernetes notices no loss shorter than its patience, 10 s here."""
    node, expected = machines[1], {service.digest: models.expected(BIAS[ROLLED])}
    assert node.name in nodes(service)

    def count(name: str, begin: float) -> None:
        time.sleep(CALLERS_END_S)
        replicas, calls = nodes(service), load.calls(begin, time.time() - CALLERS_END_S)
        result = counts(calls, expected)
        print(f"{name}, {replicas.count(node.name)} of {len(replicas)} replicas there: {result}")
        assert result.wrong == 0
        assert result.answered > result.sent / 2
        windows: dict[int, int] = {}
        for call in calls:
            windows.setdefault(int(call.at // WINDOW_S), 0)
            windows[int(call.at // WINDOW_S)] += call.is_answered
        assert all(windows.values()), windows

    with sending(tmp_path) as load:
        begin = time.time()
        load.set(service.address, RATE)
        node.cable.cut()
        time.sleep(SHORT_S)
        node.cable.plug()
        reachable.wait_for_node(node.name)
        count(f"away for {SHORT_S:g} s", begin)
        assert not any(node.name in sentence for sentence in service.messages())
        for number in range(FLAPS):
            begin = time.time()
            node.cable.cut()
            reachable.wait_for_node(node.name, is_ready=False)
            time.sleep(FLAP_S / 4)
            node.cable.plug()
            reachable.wait_for_node(node.name)
            count(f"flap {number + 1}", begin)
        wait_for_messages(service, [rf"Node {node.name} was lost {FLAPS} times within \d min and came back"])


def nodes(service: Running) -> list[str]:
    """Return the nodes of the pods that are ready."""
    pods = [pod for pod in service.pods() if pod.status.container_statuses]
    return [pod.spec.node_name for pod in pods if pod.status.container_statuses[0].ready]
