"""Run one replica of a product's newest release on one core, load it in steps, and read its CPU and memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import psutil

from platform_assets import manifests
from platform_assets.capacity.load import GIVE_UP_S, Callers, Sent
from platform_assets.capacity.proposal import Measured, Step
from platform_assets.facts.service_memory import WORKERS
from platform_assets.handle import Product
from platform_assets.problems import Problem
from platform_assets.records.notes import Service
from platform_assets.records.releases import Release
from platform_assets.serving import fetch, run
from platform_assets.serving.requests import MOMENTS

SHARES = (0.1, 0.25, 0.5, 0.7, 0.85, 1.0)
"""Load levels, as shares of what the replica answers per second to callers who wait."""
WARM_S = 1.0


class CapacityProblem(Problem):
    """A replica that is never ready, or does not answer the request of its own smoke test."""


def measure(product: Product, seconds: float, note: Callable[[str], None] = lambda _: None) -> Measured:
    """Start one replica, load it, and stop it. Its answers go nowhere.

    Args:
        product: with a release.
        seconds: of each step.
        note: called with a line of progress.

    Raises:
        CapacityProblem: the replica is not ready, or does not answer.
        ValueError: the product has no release, or the store lacks its Bento.
    """
    _, release, service = manifests.released(product)
    with _replica(product, release, service) as (server, core, ready_s):
        note(f"one replica of {service.tag} was ready after {ready_s:.1f} s")
        port = int(server.url.rsplit(":", 1)[1])
        tree = _Tree(psutil.Process(server.process.pid))
        steps = asyncio.run(_steps(Callers(run.HOST, port, _body(product, service)), tree, seconds, note))
        return Measured(
            machine=_machine(core),
            ready_s=ready_s,
            memory_bytes=tree.memory_bytes(),
            bound_ms=product.spec.service.latency_ms,
            steps=steps,
        )


@contextlib.contextmanager
def _replica(product: Product, release: Release, service: Service) -> Iterator[tuple[run.Server, int | None, float]]:
    """Serve the newest release as a pod does, on one core; yield the server, the core and the seconds of its start."""
    assert service.stored is not None  # `released` refuses others
    product.settings.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=product.settings.scratch, prefix="capacity-") as name:
        folder = Path(name)
        fetch.fetch(product.artifacts, service.stored, folder / "bento")
        settings = run.unheard(product.settings, folder, release.digest, workers=WORKERS)
        begun_s = time.monotonic()
        port = run.free_port()
        server = run.start(settings, str(folder / "bento"), port, log=folder / "service.log")
        try:
            core = _bind(server.process.pid)
            try:
                server.wait_ready()
            except run.ServerProblem as problem:
                raise CapacityProblem(f"the replica of {product.name} was never ready: {problem}") from None
            yield server, core, time.monotonic() - begun_s
        finally:
            server.stop()


def _bind(pid: int) -> int | None:
    """Keep a process and those that it starts on one core; return which, or None where the system cannot."""
    process = psutil.Process(pid)
    if not hasattr(process, "cpu_affinity"):
        return None
    core = max(process.cpu_affinity())
    process.cpu_affinity([core])
    return int(core)


def _machine(core: int | None) -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    bound = "not bound to a core" if core is None else f"bound to core {core} of {cores}, without a CPU limit"
    return f"{platform.machine()}, {bound}; its callers share this machine"


def _body(product: Product, service: Service) -> bytes:
    """Return the request of the release's smoke test, without the key by which a repeated one is recognised."""
    request = {name: value for name, value in service.request.items() if name != "idempotency_key"}
    if product.spec.is_live:
        request |= dict.fromkeys(MOMENTS, product.now.isoformat())
    return msgspec.json.encode(request)


class _Tree:
    """The processes of a replica."""

    def __init__(self, parent: psutil.Process) -> None:
        self._parent = parent

    def _all(self) -> list[psutil.Process]:
        return [self._parent, *self._parent.children(recursive=True)]

    def cpu_s(self) -> float:
        """Return the CPU seconds of all processes so far."""
        times = [process.cpu_times() for process in self._all()]
        return float(sum(one.user + one.system for one in times))

    def memory_bytes(self) -> int:
        """Return the memory of all processes; pages that they share count once, where the system tells."""
        total = 0
        for process in self._all():
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
        return total


async def _steps(callers: Callers, tree: _Tree, seconds: float, note: Callable[[str], None]) -> list[Step]:
    try:
        await _check(callers)
        await callers.waiting(WARM_S)
        begun_s = time.monotonic()
        possible = await callers.waiting(seconds)
        per_second = sum(one.status == 200 for one in possible) / (time.monotonic() - begun_s)
        note(f"{per_second:.0f} requests per second to callers who wait")
        steps = []
        for share in SHARES:
            before_s, begun_s = tree.cpu_s(), time.monotonic()
            sent = await callers.at_rate(share * per_second, seconds)
            steps.append(_step(share * per_second, sent, tree.cpu_s() - before_s, time.monotonic() - begun_s))
            note(f"{steps[-1].per_second:.0f} requests per second: p99 {steps[-1].p99_ms:.1f} ms")
        return steps
    finally:
        callers.close()


async def _check(callers: Callers) -> None:
    first = await callers.ask(time.monotonic())
    if first.status != 200:
        answer = "did not answer" if not first.status else f"answered {first.status} to"
        raise CapacityProblem(f"the replica {answer} the request of its release's smoke test; expected 200.")


def _step(per_second: float, sent: Sequence[Sent], cpu_s: float, wall_s: float) -> Step:
    took_ms = [1e3 * (one.took_s if one.status == 200 else GIVE_UP_S) for one in sent]
    return Step(
        per_second=per_second,
        sent=len(sent),
        failed=sum(one.status != 200 for one in sent),
        p50_ms=statistics.median(took_ms),
        p99_ms=_p99(took_ms),
        late_ms=_p99([one.late_s * 1e3 for one in sent]),
        cores=cpu_s / wall_s,
        cpu_ms=cpu_s / len(sent) * 1e3,
    )


def _p99(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
