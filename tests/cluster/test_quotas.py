"""Who gets room: on a full node by priority, and in the namespace by quotas of their own for runs and for steps."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from kubernetes import client
from kubernetes.utils import parse_quantity

from tests.cluster import guards, images, run_launcher
from tests.cluster.cluster import Cluster
from tests.cluster.pods import Manifest, Pods, manifest
from tests.cluster.rights import DAEMON
from tests.cluster.step_runs import SMALL, WORK, StepRuns
from tests.cluster.waiting import wait_until
from tests.doubles import kustomize

CLASSES = ("driftline-platform", "driftline-run", "driftline-step", "driftline-step-spot")
HOSTNAME = "kubernetes.io/hostname"


@pytest.fixture
def classes(reachable: Cluster, namespace: str, tmp_path: Path) -> Iterator[None]:
    """The priority classes and quotas of the overlay `local`."""
    items = guards.objects(namespace, "PriorityClass", "ResourceQuota")
    with guards.applied(reachable, tmp_path, items):
        yield


def test_on_a_full_node_the_platform_starts_and_a_spot_step_makes_room(
    classes: None, pods: Pods, core: client.CoreV1Api, shell: str
) -> None:
    node = core.list_node().items[0].metadata.name
    requests = _requests()
    free = _free_cores(core, node)
    others = (free - sum(requests.values())) / 2
    for name, cores in (("run", others), ("step", others), ("step-spot", sum(requests.values()))):
        pods.create(_on(node, name, shell, cores, f"driftline-{name}"))
        pods.wait_until_running(name)
    for name, cores in requests.items():
        pods.create(_on(node, name, shell, cores, "driftline-platform"))
    for name in requests:
        pods.wait_until_running(name)
    pods.wait_until_gone("step-spot")
    assert {pods.read(name).status.phase for name in ("run", "step", *requests)} == {"Running"}
    events = core.list_namespaced_event(pods.namespace, field_selector="involvedObject.name=step-spot").items
    assert "Preempted" in {event.reason for event in events}


def _requests() -> dict[str, float]:
    """Return the cores that daemon and code server ask for in the overlay `local`, by name."""
    result = {}
    for item in guards.objects("any", "Deployment"):
        name = item["metadata"]["name"].removeprefix("driftline-")
        if name in ("code", "daemon"):
            (spec,) = kustomize.pod_specs(item)
            assert spec["priorityClassName"] == "driftline-platform"
            result[name] = float(parse_quantity(spec["containers"][0]["resources"]["requests"]["cpu"]))
    assert len(result) == 2
    return result


def _free_cores(core: client.CoreV1Api, node: str) -> float:
    """Return the cores of a node that no pod has asked for."""
    there = core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node}").items
    containers = [item for pod in there if pod.status.phase in ("Pending", "Running") for item in pod.spec.containers]
    used = sum(float(parse_quantity((item.resources.requests or {}).get("cpu", "0"))) for item in containers)
    return float(parse_quantity(core.read_node(node).status.allocatable["cpu"])) - used


def _on(node: str, name: str, image: str, cores: float, priority: str) -> Manifest:
    pod = manifest(name, image, "sleep 600", nodeSelector={HOSTNAME: node}, priorityClassName=priority)
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": f"{int(cores * 1000)}m", "memory": "16Mi"}}
    return pod


RUNS, ROOM_OF_RUNS, ROOM_OF_STEPS = 4, 2, 1
OVER = "/tmp/over"
STARTED_S = 240.0


@dataclass
class Jobs:
    """Runs as Dagster's launcher of runs has Kubernetes start them; each goes on until the test ends it."""

    core: client.CoreV1Api
    cluster: Cluster
    namespace: str
    launch: Callable[[], str]

    def pod(self, run: str) -> Any:
        items = self.core.list_namespaced_pod(self.namespace, label_selector=f"job-name=dagster-run-{run}").items
        return items[0] if items else None

    def is_running(self, run: str) -> bool:
        pod = self.pod(run)
        return pod is not None and pod.status.phase == "Running"

    def end(self, run: str) -> None:
        self.cluster.kubectl("exec", f"--namespace={self.namespace}", self.pod(run).metadata.name, "--", "touch", OVER)

    def at_work(self) -> int:
        selector = "app.kubernetes.io/component=run"
        items = self.core.list_namespaced_pod(self.namespace, label_selector=selector).items
        return sum(item.status.phase in ("Pending", "Running") for item in items)


@pytest.fixture
def jobs(reachable: Cluster, core: client.CoreV1Api, namespace: str, granted: None, tmp_path: Path) -> Iterator[Jobs]:
    program = tmp_path / "python-program"
    program.write_text(f"#!/bin/sh\nuntil [ -e {OVER} ]; do sleep 0.2; done\n", encoding="utf-8")
    image = reachable.registry.push("waiting", lambda path: images.write_shell(path, {"python": program}), tmp_path)
    run_launcher.prepare(core, namespace)
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        launcher = run_launcher.launcher_of(reachable, namespace, DAEMON, image, tmp_path, instance)
        yield Jobs(core, reachable, namespace, lambda: run_launcher.launch(launcher, instance).run_id)


def test_four_runs_with_room_for_three_pods_end(classes: None, jobs: Jobs, runs: StepRuns) -> None:
    """Two runs and one step fit: were it one quota for three pods, three runs would wait in it for their steps."""
    for kind, room in (("runs", ROOM_OF_RUNS), ("steps", ROOM_OF_STEPS)):
        _set_room(jobs, f"driftline-{kind}", room)
    launched = [jobs.launch() for _ in range(RUNS)]
    launcher = runs.launcher(step_priority_class="driftline-step", step_service_account="driftline-step")
    seen: list[int] = []

    def play(number: int) -> None:
        """Do what the pod of a run does: run a step, and end."""
        run = launched[number]
        wait_until(lambda: jobs.is_running(run), STARTED_S, f"run {number} has room", lambda: str(jobs.pod(run)))
        seen.append(jobs.at_work())
        work = replace(WORK, cutoff=f"{number:04}", fingerprint=str(number) * 64)
        runs.run("well", launcher=launcher, profile=SMALL.replace(schedule_timeout_s=STARTED_S), work=work)
        jobs.end(run)

    with ThreadPoolExecutor(RUNS) as pool:
        for result in [pool.submit(play, number) for number in range(RUNS)]:
            result.result()
    assert max(seen) <= ROOM_OF_RUNS
    assert runs.reasons() == ["finished"] * RUNS
    wait_until(lambda: jobs.at_work() == 0, STARTED_S, "all runs have ended")


def _set_room(jobs: Jobs, quota: str, room: int) -> None:
    jobs.core.patch_namespaced_resource_quota(quota, jobs.namespace, {"spec": {"hard": {"pods": str(room)}}})

    def counts() -> bool:
        status = jobs.core.read_namespaced_resource_quota(quota, jobs.namespace).status
        return bool(status.hard) and status.hard["pods"] == str(room)

    wait_until(counts, STARTED_S, f"{quota} counts")
