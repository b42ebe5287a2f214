"""Open-loop load on replicas that scale, roll, drain and lose their node.

One product's service runs on a cluster of two nodes, its replicas limited to 200m CPU as in the component
`service-cpu-limits`. A process outside of the nodes sends requests at a fixed rate whatever is answered, each with one
retry, and records what it got; all counts are from these records. This proves how the parts are wired, on one kernel
whose two cores also run the control plane and the callers; it says nothing about capacity.

Chosen after failed trials, so not tested here: the ordinary load is 60 % of what a replica answers, the pods' group
weighs 16 times a process of the machine, the autoscaler may add replicas after 15 s, and callers wait for `Retry-After`
before they repeat a request. The cluster gives a node up after 10 s without a sign of life (Kubernetes: 50 s).
"""

import subprocess
import time
from collections.abc import Callable

from kubernetes import client

from proof.benchmarks.harness import Measure
from proof.chaos import r7_phases as phases
from proof.chaos import r7_proxy, r7_world, r7_zero
from proof.chaos.r7_figures import Figures, work_ms
from proof.chaos.r7_page import measures, sentences
from proof.chaos.r7_world import World

BROKEN = (TimeoutError, RuntimeError, subprocess.CalledProcessError, client.ApiException, StopIteration, ValueError)
"""A phase that ends so could not run; the page says so, and the others run."""
STARTS = 3
CPUS = ("1", "200m")
"""Limits of the replicas that are started from nothing."""
shown: list[str] = []


def run() -> list[Measure]:
    figures = Figures()
    with r7_world.opened_world() as world:
        limit_ms = world.product.spec.service.latency_ms
        world.apply()
        world.wait(lambda: world.is_settled(r7_world.REPLICAS, world.contracts[0].digest), "two replicas serve")
        figures.capacity = phases.capacity(world)
        world.work_ms = work_ms()
        world.ordinary = phases.BASE_SHARE * figures.capacity
        figures.bases = world.bases
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
        steps["lost node"] = lambda: setattr(figures, "lost", phases.lose(world, world.address))
        for policy in r7_proxy.POLICIES:
            steps[f"lost node behind proxies, {policy}"] = lambda policy=policy: figures.lost_behind.update(
                {policy: phases.lose(world, r7_proxy.run(world, policy))}
            )
        for name, step in steps.items():
            print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
            phases.calm(world)
            if name == "scale-down":
                # From here on the number of replicas is set by hand.
                world.platform.kubectl("delete", "hpa", world.name)
            try:
                step()
            except BROKEN as problem:
                figures.failures[name] = f"{type(problem).__name__}: {str(problem).splitlines()[0][:200]}"
                print(f"{name} could not run: {problem}", flush=True)
    shown[:] = sentences(figures)
    return measures(figures)


def zero(world: World, figures: Figures) -> None:
    """Start first replicas while the autoscaler's window passes."""
    try:
        for cpu in CPUS * STARTS:
            figures.starts.append(r7_zero.measure(world, cpu))
            print(figures.starts[-1], flush=True)
    except BROKEN as problem:
        figures.failures["from zero"] = f"{type(problem).__name__}: {str(problem).splitlines()[0][:200]}"
        print(f"from zero could not run: {problem}", flush=True)
