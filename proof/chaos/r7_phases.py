"""The phases of row R7, each under open-loop load."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from proof.chaos.r7_calls import Counts, seconds_above
from proof.chaos.r7_figures import Idle, Lost, Spike, work_ms
from proof.chaos.r7_world import NAME, REPLICAS, World
from tests.cluster import loop
from tests.doubles import models

ROUNDS = 5
TIMES, BASE_SHARE, IDLE_SHARE = 3.0, 0.6, 0.2
"""The spike; the ordinary load as a share of what one of the replicas can answer; the load when it is idle."""
CALM_S, SPIKE_S, SETTLED_S = 30.0, 200.0, 60.0
CALLERS, WARM_S = 4, 8.0
LOST, LOST_S = 4, 60.0
WINDOW_S = 300.0
"""In which the autoscaler takes nothing away; then one replica per minute."""
SLACK_S = 60.0
"""Beyond the window: metrics are up to 30 s old, and a replica takes 10 s to leave."""


def calm(world: World) -> None:
    """Send the ordinary load, or less of it, as far as the machine is slower now than when a replica was measured."""
    world.bases.append(world.ordinary * min(1.0, world.work_ms / work_ms()))
    world.load.set(world.address, world.bases[-1])


def capacity(world: World) -> float:
    """Return how many requests per second one replica answers to callers who wait for each answer."""
    pod = world.pods()[0]
    address, until_s = f"http://{pod.status.pod_ip}:3000", time.monotonic() + WARM_S

    def call() -> int:
        answered = 0
        with world.platform.cluster.network():
            while time.monotonic() < until_s:
                answered += loop.ask(address, models.row())[0] == 200
        return answered

    with ThreadPoolExecutor(CALLERS) as pool:
        return sum(pool.map(lambda _: call(), range(CALLERS))) / WARM_S


def spike(world: World, limit_ms: float) -> Spike:
    """Send three times the load, until more replicas are ready and a while longer."""
    begin = time.time()
    world.load.set(world.address, TIMES * world.base)
    time.sleep(SPIKE_S)
    end = time.time()
    calls, looks = world.load.calls(begin, end), world.between(begin, end)
    desired = max(look.desired for look in looks)
    first = next((look.at - begin for look in looks if look.desired > REPLICAS), None)
    needed = math.ceil(TIMES * BASE_SHARE / world.product.spec.pods.scales_at)
    ready = next((look.at - begin for look in looks if look.ready >= needed), None)
    return Spike(
        scale_up_s=first,
        ready_s=ready,
        desired=desired,
        needed=needed,
        late_s=seconds_above(calls, limit_ms),
        counts=world.counts(begin, end),
        settled=world.counts(end - SETTLED_S, end),
    )


def idle(world: World, meanwhile: Callable[[], None]) -> Idle:
    """Send little, and wait until the replicas are the minimum again."""
    begin = time.time()
    more = max(look.desired for look in world.between(begin - 10, begin)) - REPLICAS
    window_s = WINDOW_S + 60.0 * more + SLACK_S
    world.load.set(world.address, IDLE_SHARE * world.base)
    meanwhile()
    world.wait(
        lambda: world.seen[-1].desired == world.seen[-1].ready == REPLICAS,
        "the replicas are the minimum",
        max(0.0, begin + window_s + 60.0 - time.time()),
    )
    at = next(look.at for look in world.between(begin, time.time()) if look.desired == look.ready == REPLICAS)
    return Idle(at - begin, window_s, world.counts(begin, time.time()))


def rounds(world: World, change: Callable[[World, int], None]) -> list[Counts]:
    """Change something five times under the ordinary load; return the requests of each round."""
    results = []
    for number in range(ROUNDS):
        calm(world)
        begin = time.time()
        change(world, number)
        results.append(world.counts(begin, time.time()))
        took_s = time.time() - begin
        print(f"round {number + 1}, {took_s:.0f} s, {world.base:.0f}/s: {results[-1]}", flush=True)
    return results


def roll(world: World, _: int) -> None:
    world.platform.kubectl("rollout", "restart", f"deployment/{world.name}")
    world.platform.wait_for(world.name)
    world.wait(world.is_settled, "the new replicas serve alone")


def drain(world: World, number: int) -> None:
    """Drain a node, the other one each time, until the replicas serve elsewhere."""
    nodes = world.platform.cluster.nodes
    node, kubectl = nodes[number % len(nodes)].name, world.platform.cluster.kubectl
    flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s")
    try:
        kubectl("drain", node, *flags, f"--pod-selector=app.kubernetes.io/component=service,driftline/product={NAME}")
        world.wait(world.is_settled, "all run on the other node")
    finally:
        kubectl("uncordon", node)


def scale_down(world: World, _: int) -> None:
    scale(world, LOST)
    scale(world, REPLICAS)


def scale(world: World, count: int) -> None:
    world.platform.kubectl("scale", f"deployment/{world.name}", f"--replicas={count}")
    world.wait(lambda: world.is_settled(count), f"{count} replicas serve alone")


def another_contract(world: World, number: int) -> None:
    """Release a model of the other contract, and apply its manifests."""
    contract = world.contracts[(number + 1) % 2]
    world.release(contract)
    world.apply()
    world.platform.wait_for(world.name)
    world.wait(lambda: world.is_settled(digest=contract.digest), "all replicas serve the other contract")


def lose(world: World, address: str, settle: float = 0.0) -> Lost:
    """Cut the power of the node that runs half of the replicas.

    Args:
        address: whom callers ask.
        settle: seconds from the first request to this address to the cut.
    """
    scale(world, REPLICAS)
    scale(world, LOST)
    victim = world.platform.cluster.nodes[-1]
    world.load.set(address, world.base)
    time.sleep(max(CALM_S, settle))
    before = world.seen[-1]
    begin = time.time()
    victim.power_off()
    try:
        time.sleep(LOST_S)
        looks = world.between(begin, time.time())
        left = next((look.at for look in looks if victim.name not in look.nodes), None)
        routed_until = left if left is not None else time.time()
        return Lost(
            share=before.nodes.count(victim.name) / max(1, len(before.nodes)),
            known_s=left and left - begin,
            until=world.counts(begin, routed_until),
            after=world.counts(routed_until, begin + LOST_S),
        )
    finally:
        victim.power_on()
        world.platform.cluster.wait_for_node(victim.name)
        world.wait(lambda: world.is_settled(LOST), "all replicas are back")
