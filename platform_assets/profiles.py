"""Name the sizes in which a step may run, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """A named step size.

    Attributes:
        cores: processors the step may use; also the thread count unless the spec fixes fewer.
        memory_gb: memory the step may use, in 10^9 bytes.
        accelerators: how many GPUs.
        is_spot: whether the node may be taken away.
        usd_per_hour: list price of the node share, for cost records.
        priced_on: the date of that price, ISO.
    """

    name: str
    cores: int
    memory_gb: float
    accelerators: int = 0
    is_spot: bool = False
    usd_per_hour: float
    priced_on: str

    def __post_init__(self) -> None:
        if self.cores < 1 or self.memory_gb <= 0 or self.accelerators < 0 or self.usd_per_hour < 0:
            raise ValueError(
                f"profile {self.name!r} has cores={self.cores}, memory_gb={self.memory_gb}, "
                f"accelerators={self.accelerators}, usd_per_hour={self.usd_per_hour}; none may be negative, "
                "and cores and memory must be positive."
            )


PROFILES = {
    profile.name: profile
    for profile in (
        StepProfile(name="cpu_small", cores=2, memory_gb=4, usd_per_hour=0.08, priced_on="2026-11-01"),
        StepProfile(name="gpu", cores=8, memory_gb=32, accelerators=1, usd_per_hour=2.49, priced_on="2026-11-01"),
        StepProfile(
            name="gpu_spot",
            cores=8,
            memory_gb=32,
            accelerators=1,
            is_spot=True,
            usd_per_hour=0.99,
            priced_on="2026-11-01",
        ),
    )
}


def profile(name: str) -> StepProfile:
    """Return a profile by name; raise `ValueError` listing the known ones."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(f"profile is {name!r}; expected one of {', '.join(PROFILES)}.") from None
