"""From zero: seconds from the creation of a first replica to its first answer, and where they go."""

import time
from typing import Any

from platform_assets.kubernetes import service_manifests
from proof.chaos.r7_figures import Start
from proof.chaos.r7_world import NAME, PATIENCE_S, World
from tests.cluster import loop
from tests.doubles import models

LOOK_S = 0.1
MOMENTS = ("scheduled", "fetching", "fetched", "started", "ready", "answered")


def measure(world: World, cpu: str) -> Start:
    """Start another Deployment of the product from nothing, with a limit of CPU, and remove it."""
    name = f"{world.name}-zero"
    # Labels of its own: the Service, the disruption budget and the autoscaler do not count it.
    text = service_manifests.manifests(world.product, 1).replace(f"'{NAME}'", f"'{NAME}_zero'")
    parts = text.replace(f"  name: {world.name}\n", f"  name: {name}\n").split("\n---\n")
    world.apply_limited(f"{parts[0]}\n---\n{parts[-1]}", world.folder / "zero", cpu)
    try:
        # By this machine's clock, until the first replica has answered.
        until_s = time.monotonic() + PATIENCE_S
        while not _pods(world):
            if time.monotonic() > until_s:
                raise TimeoutError(f"no first replica was created\n{world.described()}")
            time.sleep(LOOK_S / 2)
        begun_s = time.monotonic()
        seen: dict[str, float] = {}
        while "answered" not in seen or "ready" not in seen:
            if time.monotonic() - begun_s > PATIENCE_S:
                raise TimeoutError(f"no answer of a first replica; reached {seen}\n{world.described()}")
            pod = _pods(world)[0]
            (fetch,) = pod.status.init_container_statuses or [None]
            (main,) = pod.status.container_statuses or [None]
            reached = {
                "scheduled": bool(pod.spec.node_name),
                "fetching": bool(fetch and (fetch.state.running or fetch.state.terminated)),
                "fetched": bool(fetch and fetch.state.terminated),
                "started": bool(main and main.state.running),
                "ready": bool(main and main.ready),
            }
            for moment in [moment for moment, is_reached in reached.items() if is_reached]:
                seen.setdefault(moment, time.monotonic() - begun_s)
            if (
                "started" in seen
                and "answered" not in seen
                and loop.ask(f"http://{pod.status.pod_ip}:3000", models.row(), 1.0)[0] == 200
            ):
                seen["answered"] = time.monotonic() - begun_s
            time.sleep(LOOK_S)
        return Start(cpu, **{moment: seen[moment] for moment in MOMENTS})
    finally:
        world.platform.kubectl("delete", "deployment", name, "--ignore-not-found", "--wait=false")
        world.wait(lambda: not _pods(world), f"{name} is gone")


def _pods(world: World) -> list[Any]:
    return world.platform.pods(f"app.kubernetes.io/component=service,driftline/product={NAME}_zero")
