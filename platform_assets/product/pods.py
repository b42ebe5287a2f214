"""Configure the pods of a product's service: `Pods`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from platform_assets.base import kinds

ANSWERS_UNTIL = 0.9
"""Of the CPU that a replica gets: what it answers with in time. At more it begins to refuse (row R7)."""
CORES_MAX = 1.0
"""What a replica takes when it answers the most that it can: its event loop and its graph share one thread."""
TOLERANCE = 1.1
"""Kubernetes' autoscaler adds nothing below so many times its target."""


@dataclass(frozen=True, kw_only=True)
class Pods:
    """What the product's service gets on Kubernetes; `driftline manifests` writes it.

    Attributes:
        replicas (pods): the fewest, so that one may end while another answers.
        replicas_max (pods): the most under load; the same as `replicas` for a fixed number.
        cores (cores): reserved for each pod, which may use more. At `cpu_target` of them on average, pods are added.
        memory_gb (GiB): reserved for each pod, which may not use more.
        cpu_target (share): of `cores`: above it on average pods are added, below it some end. None: what keeps the
            rest able to answer when one of `replicas` is lost.
    """

    # With one, each drain of its node and each killed process is an outage.
    replicas: int = 2
    replicas_max: int = 6
    cores: float = 0.2
    memory_gb: float = 1.0
    cpu_target: float | None = None

    def __post_init__(self) -> None:
        kinds.check(self, "Pods.")
        if not 1 <= self.replicas <= self.replicas_max:
            raise ValueError(
                f"Pods has replicas={self.replicas} and replicas_max={self.replicas_max}; expected at least 1, and no "
                "more than replicas_max."
            )
        for name in ("cores", "memory_gb"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"Pods.{name} is {value!r}; expected a number above 0.")
        most = min(1.0, CORES_MAX / (TOLERANCE * self.cores))
        if self.cpu_target is not None and not 0 < self.cpu_target <= most:
            raise ValueError(
                f"Pods.cpu_target is {self.cpu_target!r}; expected a share above 0 and at most {most:.2f}: a pod that "
                f"answers takes {CORES_MAX:g} core at most, so with more nothing would be added."
            )

    @property
    def scales_at(self) -> float:
        """The share of `cores` above which pods are added."""
        if self.cpu_target is not None:
            return self.cpu_target
        # With one replica lost: 41 % for two. At a fixed 70 % callers got 503 before another replica was wanted.
        left = max(1, self.replicas - 1) / max(2, self.replicas)
        return ANSWERS_UNTIL * left / TOLERANCE * min(1.0, CORES_MAX / self.cores)
