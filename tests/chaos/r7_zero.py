"""From zero: seconds from the creation of a first replica to its first answer, and where they go."""

from __future__ import annotations

import re
import time
from typing import Any

from platform_assets.kubernetes import service_manifests
from tests.chaos.r7_figures import Start
from tests.chaos.r7_world import NAME, PATIENCE_S, World
from tests.cluster import loop
from tests.cluster.platform import NAMESPACE
from tests.doubles import models

LOOK_S = 0.1
PULLED = re.compile(r'Successfully pulled image "([^"]+)" in ([\d.]+)s ')
MOMENTS = ("scheduled", "fetching", "fetched", "started", "ready", "answered")
OURS = "import sys; sys.path.insert(0, '/bento/src')"
ANSWERING = (
    "from platform_assets.serving.answer import middleware; "
    "from platform_assets.serving.run import assembly, metrics; import onnxruntime"
)
SMALLER = {
    "python": "pass",
    "onnxruntime": "import onnxruntime",
    "a bare ASGI server with onnxruntime": "import httptools, msgspec, onnxruntime, uvicorn, uvloop",
    "bentoml": "import bentoml",
    "the module of the Bento": f"{OURS}; import platform_assets.serving.run.service",
    "that and what answers": f"{OURS}; import platform_assets.serving.run.service; {ANSWERING}",
    "what answers alone": f"{OURS}; {ANSWERING}",
}
"""What is imported, by the name in the table."""


def measure(world: World, cpu: str, image: str = "", imports_s: dict[str, float] | None = None) -> Start:
    """Start another Deployment of the product from nothing, and remove it.

    Args:
        cpu: its limit.
        image: instead of the shipped one, by its digest in the cluster's registry.
        imports_s: gets the seconds that Python needs in the replica to import things, by the name in the table.
    """
    name = f"{world.name}-zero"
    # Labels of its own: the Service, the disruption budget and the autoscaler do not count it.
    text = service_manifests.manifests(world.product, 1).replace(f"'{NAME}'", f"'{NAME}_zero'")
    if image:
        text = text.replace(world.product.settings.service_image or "", image)
    parts = text.replace(f"  name: {world.name}\n", f"  name: {name}\n").split("\n---\n")
    world.apply_limited(f"{parts[0]}\n---\n{parts[-1]}", world.folder / "zero", cpu)
    try:
        start = _watch(world, cpu, "smallest" if image else "shipped")
        if imports_s is not None:
            imports_s.update(_imports_s(world, _pods(world)[0]))
        return start
    finally:
        world.platform.kubectl("delete", "deployment", name, "--ignore-not-found", "--wait=false")
        world.wait(lambda: not _pods(world), f"{name} is gone")


def _pods(world: World) -> list[Any]:
    return world.platform.pods(f"app.kubernetes.io/component=service,driftline/product={NAME}_zero")


def _watch(world: World, cpu: str, image: str) -> Start:
    """Look at the first replica until it has answered, by this machine's clock."""
    begun_s = _first_seen(world)
    seen: dict[str, float] = {}
    while "answered" not in seen or "ready" not in seen:
        if time.monotonic() - begun_s > PATIENCE_S:
            raise TimeoutError(f"no answer of a first replica; reached {seen}\n{world.described()}")
        pod = _pods(world)[0]
        for moment in _reached(pod):
            seen.setdefault(moment, time.monotonic() - begun_s)
        if "started" in seen and "answered" not in seen and loop.ask(_url(pod), models.row(), 1.0)[0] == 200:
            seen["answered"] = time.monotonic() - begun_s
        time.sleep(LOOK_S)
    return Start(cpu, **{moment: seen[moment] for moment in MOMENTS}, image=image)


def _first_seen(world: World) -> float:
    until_s = time.monotonic() + PATIENCE_S
    while not _pods(world):
        if time.monotonic() > until_s:
            raise TimeoutError(f"no first replica was created\n{world.described()}")
        time.sleep(LOOK_S / 2)
    return time.monotonic()


def _reached(pod: Any) -> list[str]:
    """Return the moments that a pod's status shows."""
    (fetch,) = pod.status.init_container_statuses or [None]
    (main,) = pod.status.container_statuses or [None]
    reached = {
        "scheduled": bool(pod.spec.node_name),
        "fetching": bool(fetch and (fetch.state.running or fetch.state.terminated)),
        "fetched": bool(fetch and fetch.state.terminated),
        "started": bool(main and main.state.running),
        "ready": bool(main and main.ready),
    }
    return [moment for moment, is_reached in reached.items() if is_reached]


def _url(pod: Any) -> str:
    return f"http://{pod.status.pod_ip}:3000"


def pulls_s(world: World, image: str) -> list[float]:
    """Return the seconds that kubelets say they took to pull an image, one per node."""
    events = world.platform.cluster.core.list_namespaced_event(NAMESPACE, field_selector="reason=Pulled").items
    pulled = [PULLED.search(event.message) for event in events]
    return [float(match[2]) for match in pulled if match and match[1] == image]


def _imports_s(world: World, pod: Any) -> dict[str, float]:
    result = {}
    for name, code in SMALLER.items():
        argv = ("exec", pod.metadata.name, "--container=service", "--", "python", "-c", code)
        begun_s = time.monotonic()
        world.platform.kubectl(*argv)
        result[name] = time.monotonic() - begun_s
    return result
