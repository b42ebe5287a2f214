"""The API server, its watches and the registry in trouble under a step."""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from platform_assets.kubernetes.api import Api
from platform_assets.kubernetes.responses import ApiTrouble
from platform_assets.kubernetes.watching import PodWatch
from tests.cluster.cluster import Cluster
from tests.cluster.launching import Launching
from tests.cluster.node import Node
from tests.cluster.pods import Pods, manifest
from tests.cluster.registry import Registry
from tests.cluster.spaces import HOST
from tests.cluster.step_runs import StepRuns
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.long

AWAY_S = 15.0


def test_a_step_goes_on_under_an_api_server_that_is_killed(
    cluster: Cluster, machines: list[Node], launches: Launching
) -> None:
    assert cluster.control is not None
    run = launches.start("say 50 0.5; report")
    run.wait_for("line 3")
    server = next(service for service in reversed(cluster.control.space.services) if service.name == "kube-apiserver")
    server.kill()
    time.sleep(AWAY_S)
    cluster.control.start_api_server()
    ended = run.ended()
    assert not ended.error
    assert ended.reasons == ["finished"]
    assert [line for line in ended.lines if line.startswith("line ")] == [f"line {number}" for number in range(50)]
    assert any("retrying in" in line for line in ended.lines)


def test_a_watch_whose_version_has_expired_starts_again(
    cluster: Cluster, pods: Pods, runs: StepRuns, shell: str
) -> None:
    api, only = Api(pods.namespace, runs.configuration), {"field_selector": "metadata.name=step"}
    pods.create(manifest("step", shell, "sleep 1000"))
    pods.wait_until_running("step")

    def has_expired() -> bool:
        try:
            next(api.changes(only, "1", timeout_s=1), None)
        except ApiTrouble as trouble:
            return trouble.status == 410
        return False

    wait_until(has_expired, 120, "the first version is compacted away", lambda: cluster.kubectl("get", "pods", "-A"))
    watch = PodWatch(api, only, version="1")
    with watch:
        wait_until(lambda: "step" in watch.statuses, 30, "the watch has started again")
        pods.api.delete_namespaced_pod("step", pods.namespace)
        pods.wait_until_gone("step")
        last = watch.last("step")
    assert last is not None
    assert last.step is not None
    assert last.step.exit_code == 137


class Proxy(ThreadingHTTPServer):
    """Stands before the registry, and answers with a status of its own until it is told to pass requests on."""

    def __init__(self, registry: str, status: int) -> None:
        self.registry, self.status = registry, status
        super().__init__((HOST, 0), _Handler)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        if self.server.status == 0:
            time.sleep(1)
            self.close_connection = True  # without an answer
            return
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        accepted = {"Accept": self.headers.get("Accept", "*/*")}
        request = urllib.request.Request(
            f"http://{self.server.registry}{self.path}", headers=accepted, method=self.command
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request) as answer:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    while chunk := answer.read(1 << 20):
                        self.wfile.write(chunk)
        except urllib.error.HTTPError as error:
            self.send_error(error.code)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def before_the_registry(cluster: Cluster, status: int) -> Iterator[Proxy]:
    """Run a proxy that the nodes pull from by HTTP."""
    with Proxy(cluster.registry.address, status) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        for node in cluster.nodes:
            node.pull_from(Registry(proxy.address, is_plain=True))
        yield proxy
        proxy.shutdown()


@pytest.mark.parametrize("status", [502, 429, 0])
def test_a_registry_that_is_away_for_half_a_minute_only_delays_the_step(
    cluster: Cluster, machines: list[Node], launches: Launching, status: int
) -> None:
    with before_the_registry(cluster, status) as proxy:
        image = launches.steps.environment["DRIFTLINE_TRAINER_IMAGE"].replace(cluster.registry.address, proxy.address)
        run = launches.start("report", DRIFTLINE_TRAINER_IMAGE=image)
        run.wait_for("runs as pod")
        time.sleep(30)
        proxy.status = 200
        ended = run.ended()
    assert not ended.error
    assert ended.reasons == ["finished"]
