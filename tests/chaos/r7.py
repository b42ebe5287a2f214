"""Open-loop load on replicas that scale, roll, drain and lose their node.

One product's service runs on a cluster of two nodes, its replicas limited to 200m CPU as in the component
`service-cpu-limits`. A process outside of the nodes sends requests at a fixed rate whatever is answered, each with one
retry, and records what it got; all counts are from these records. This proves how the parts are wired, on one kernel
whose two cores also run the control plane and the callers; it says nothing about capacity.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

from kubernetes import client

from tests.benchmarks.harness import Measure
from tests.chaos import r7_phases as phases
from tests.chaos import r7_proxy, r7_smallest, r7_world, r7_zero
from tests.chaos.r7_figures import Figures, Lost, watched, work_ms
from tests.chaos.r7_page import measures, sentences
from tests.chaos.r7_world import World

BROKEN = (TimeoutError, RuntimeError, subprocess.CalledProcessError, client.ApiException, StopIteration, ValueError)
"""A phase that ends so could not run; the page says so, and the others run."""
STARTS = 3
VARIANTS = (("1", "shipped"), ("200m", "shipped"), ("1", "smallest"))
"""Limits of CPU and images of the replicas that are started from nothing."""
shown: list[str] = []


def run() -> list[Measure]:
    """Run all phases on a cluster of their own."""
    figures = Figures()
    with r7_world.opened_world() as world:
        play(world, figures)
    shown[:] = sentences(figures)
    return measures(figures)


def play(world: World, figures: Figures) -> None:
    """Run the phases one after another; what one of them finds is in `figures`."""
    limit_ms = world.product.spec.service.latency_ms
    world.apply()
    world.wait(lambda: world.is_settled(r7_world.REPLICAS, world.contracts[0].digest), "two replicas serve")
    image = world.product.settings.service_image or ""
    figures.pulls_s["shipped"] = r7_zero.pulls_s(world, image)
    figures.megabytes["shipped"] = r7_smallest.megabytes(world.built)
    figures.unasked_m = phases.unasked(world)
    figures.capacity = phases.capacity(world)
    world.work_ms = work_ms()
    world.ordinary = phases.BASE_SHARE * figures.capacity
    figures.bases = world.bases
    print(f"one replica takes {figures.unasked_m:.0f}m before its first request", flush=True)
    print(f"one replica answers {figures.capacity:.0f} requests per second", flush=True)
    phases.calm(world)
    time.sleep(2 * phases.CALM_S)  # until the metrics of the measured replica are forgotten

    def at_spike() -> None:
        figures.spike = phases.spike(world, limit_ms)

    def at_idle() -> None:
        figures.idle = phases.idle(world, lambda: zero(world, figures))

    steps: dict[str, Callable[[], None]] = {"spike": at_spike, "idle": at_idle}
    for name, change in (
        ("rolling update", phases.roll),
        ("node drain", phases.drain),
        ("another contract", phases.another_contract),
        ("scale-down", phases.scale_down),
    ):
        steps[name] = lambda name=name, change=change: figures.rounds.update({name: phases.rounds(world, change)})
    steps["lost node"] = lambda: setattr(figures, "lost", lost(world))
    for policy in r7_proxy.POLICIES:
        steps[f"lost node behind proxies, {policy}"] = lambda policy=policy: figures.lost_behind.update(
            {policy: phases.lose(world, r7_proxy.run(world, policy))}
        )
    steps["overload"] = lambda: figures.overload.update(phases.overload(world))
    for name, step in steps.items():
        attempt(world, figures, name, step)


def attempt(world: World, figures: Figures, name: str, step: Callable[[], None]) -> None:
    """Run a phase under the ordinary load, and note why it could not run."""
    print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
    figures.load_averages.append(os.getloadavg()[0])
    phases.calm(world)
    if name == "scale-down":
        # From here on the number of replicas is set by hand.
        world.platform.kubectl("delete", "hpa", world.name)
    try:
        with watched(figures.machine, name):
            step()
    except BROKEN as problem:
        figures.failures[name] = f"{type(problem).__name__}: {str(problem).splitlines()[0][:200]}"
        print(f"{name} could not run: {problem}", flush=True)


def zero(world: World, figures: Figures) -> None:
    """Start first replicas while the autoscaler's window passes."""

    def starts() -> None:
        for cpu, kind in VARIANTS:
            image = smallest(world, figures) if kind == "smallest" else ""
            for number in range(STARTS):
                is_last = (cpu, kind) == ("1", "shipped") and number == STARTS - 1
                imports_s = figures.imports_s if is_last else None
                figures.starts.append(r7_zero.measure(world, cpu, image, imports_s))
                print(figures.starts[-1], flush=True)

    try:
        starts()
    except BROKEN as problem:
        figures.failures["from zero"] = f"{type(problem).__name__}: {str(problem).splitlines()[0][:200]}"
        print(f"from zero could not run: {problem}", flush=True)


def smallest(world: World, figures: Figures) -> str:
    """Build the smallest image, have it pulled by a replica that does not count, and return its name."""
    built = r7_smallest.build(world.built, world.contracts[0].path, world.folder)
    figures.megabytes["smallest"] = r7_smallest.megabytes(built)
    image = world.platform.cluster.registry.push_built("smallest", built)
    r7_zero.measure(world, "1", image=image)
    figures.pulls_s["smallest"] = r7_zero.pulls_s(world, image)
    return image


def lost(world: World) -> Lost:
    """Lose the node while callers ask the Service."""
    return phases.lose(world, world.address)
