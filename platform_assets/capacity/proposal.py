"""Propose replicas, requests and the autoscaler's target from what one replica did under load. Pure.

The autoscaler keeps the average use of the reserved CPU within a tenth of its target. The target is such that after the
loss of one replica the others use no more of their reserved CPU than the replica of the measurement used of its core
while it kept the product's bound.
"""

from __future__ import annotations

import math

import msgspec

from platform_assets.product.pods import Pods

TOLERANCE = 1.1
"""Kubernetes' autoscaler leaves the number as it is while the use is within 10 % of the target."""
GROWTH = 3
"""At the peak up to this many times the replicas run that are always there; the others are given back."""
CORES_STEP, MEMORY_STEP_GB, FEWEST_CORES, MOST_CORES = 0.05, 0.05, 0.1, 1.0
"""One core was measured, so no pod of more is proposed."""
MEMORY_ROOM = 1.25
_GIGABYTE = 1024**3


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A load of some seconds.

    Attributes:
        per_second: requests that were sent per second.
        sent: requests.
        failed: requests without an answer 200.
        p50_ms: from when a request was due until its answer; one that failed counts as 5 s.
        p99_ms: likewise.
        late_ms: 99 % of the requests were sent at most so late: what the callers of this machine add themselves.
        cores: of CPU that the replica used.
        cpu_ms: CPU per request.
    """

    per_second: float
    sent: int
    failed: int
    p50_ms: float
    p99_ms: float
    late_ms: float
    cores: float
    cpu_ms: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica did.

    Attributes:
        machine: where, and on how much of it.
        ready_s: seconds from its start until it was ready.
        memory_bytes: of all its processes after the load; shared pages count once.
        bound_ms: the product's `Service.latency_ms`.
        steps: in ascending order of requests per second.
    """

    machine: str
    ready_s: float
    memory_bytes: int
    bound_ms: float
    steps: list[Step]

    @property
    def best(self) -> Step | None:
        """The heaviest load that kept the bound, of those below the first that did not; None if none did."""
        best = None
        for step in self.steps:
            if not self.is_kept(step):
                break
            best = step
        return best

    def is_kept(self, step: Step) -> bool:
        """Return whether 99 % of the requests were answered, and within the bound."""
        return step.p99_ms <= self.bound_ms and step.failed <= 0.01 * step.sent


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """Values of `Pods` in the product's file, and what follows from them.

    Attributes:
        replicas: as `Pods.replicas`.
        replicas_max: as `Pods.replicas_max`.
        cores: as `Pods.cores`.
        memory_gb: as `Pods.memory_gb`.
        cpu_target: as `Pods.cpu_target`.
        peak_per_second: requests that `replicas_max` replicas answer at the target.
        used_after_loss: share of the reserved CPU that the others use at this peak after one replica was lost.
    """

    replicas: int
    replicas_max: int
    cores: float
    memory_gb: float
    cpu_target: float
    peak_per_second: float
    used_after_loss: float


def propose(measured: Measured, pods: Pods, needed_bytes: float, peak_per_second: float | None = None) -> Proposal:
    """Return what the pods should get.

    Args:
        measured: of one replica.
        pods: of the product's file: how many are always there, and without a peak everything but target and memory.
        needed_bytes: of a pod in which the model loads and the next one can be tried.
        peak_per_second: requests at the highest load that is expected; None for what `pods.replicas_max` carry.

    Raises:
        ValueError: the peak is not a number above 0, or no load kept the bound.
    """
    if peak_per_second is not None and not 0 < peak_per_second < math.inf:
        raise ValueError(f"the peak is {peak_per_second:g} requests per second; expected a number above 0.")
    best = measured.best
    if best is None:
        lightest = measured.steps[0]
        raise ValueError(
            f"one replica did not even answer {lightest.per_second:.0f} requests per second within "
            f"{measured.bound_ms:g} ms (p99 {lightest.p99_ms:.1f} ms, {lightest.failed} failed): nothing can be "
            "proposed. Measure on a quieter machine, make the model cheaper, or raise Service.latency_ms."
        )
    replicas, cpu_s = max(2, pods.replicas), best.cpu_ms / 1e3
    target = max(0.01, math.floor(100 * min(1.0, best.cores) * (replicas - 1) / replicas / TOLERANCE) / 100)
    if peak_per_second is None:
        cores, most = pods.cores, max(replicas, pods.replicas_max)
        peak_per_second = most * target * cores / cpu_s
    else:
        share = peak_per_second * cpu_s / (target * replicas * GROWTH)
        cores = min(MOST_CORES, max(FEWEST_CORES, _up(share, CORES_STEP)))
        most = max(replicas, math.ceil(peak_per_second * cpu_s / (target * cores) - 1e-9))
    return Proposal(
        replicas=replicas,
        replicas_max=most,
        cores=cores,
        memory_gb=_up(max(needed_bytes, MEMORY_ROOM * measured.memory_bytes) / _GIGABYTE, MEMORY_STEP_GB),
        cpu_target=target,
        peak_per_second=peak_per_second,
        used_after_loss=peak_per_second * cpu_s / ((most - 1) * cores),
    )


def _up(value: float, step: float) -> float:
    """Return the next multiple of a step."""
    return round(math.ceil(value / step - 1e-9) * step, 2)
