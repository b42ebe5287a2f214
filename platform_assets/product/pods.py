"""Configure the pods of a product's service: `Pods`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from platform_assets import kinds


@dataclass(frozen=True, kw_only=True)
class Pods:
    """What the product's service gets on Kubernetes; `driftline manifests` writes it.

    Attributes:
        replicas (pods): the fewest, so that one may end while another answers.
        replicas_max (pods): the most under load; the same as `replicas` for a fixed number.
        cores (cores): reserved for each pod, which may use more. At `cpu_target` of them on average, pods are added.
        memory_gb (GiB): reserved for each pod, which may not use more.
        cpu_target (share): of `cores`: above it on average pods are added, below it some end. The rest is for
            the work of a pod that ends.
    """

    replicas: int = 2
    replicas_max: int = 6
    cores: float = 0.2
    memory_gb: float = 1.0
    cpu_target: float = 0.7

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
        if not 0 < self.cpu_target <= 1:
            raise ValueError(f"Pods.cpu_target is {self.cpu_target!r}; expected a share above 0 and at most 1.")
