"""Name the sizes in which a step may run, where, for how long, and what they cost.

Belongs here: everything that a step's place needs to know of its size, for every launcher, defined once.
Does not belong here: how a launcher carries it out (`resources/launchers`), or anything of a product.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

Effect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
Precision = Literal["float32", "bfloat16"]
GRACE_MIN_S = 30.0
"""A step needs this long to write its last checkpoint after SIGTERM."""
MOST_AT_ONCE = 1000
"""Dagster takes no more places in a pool."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_QUALIFIED = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """A taint of nodes on which a step may run all the same.

    Attributes:
        key: of the taint.
        value: of the taint; None: any.
        effect: `NoSchedule`, `PreferNoSchedule` or `NoExecute`; None: any.
    """

    key: str
    value: str | None = None
    effect: str | None = None

    def __post_init__(self) -> None:
        _check(_QUALIFIED.fullmatch(self.key), "Toleration.key", self.key, "a taint's key, such as nvidia.com/gpu")
        _check(_VALUE.fullmatch(self.value or ""), f"Toleration({self.key}).value", self.value, _VALUE_IS)
        effects = get_args(Effect)
        _check(
            self.effect in (None, *effects),
            f"Toleration({self.key}).effect",
            self.effect,
            f"one of {', '.join(effects)}, or None for any",
        )


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """A named step size.

    Attributes:
        name: what a spec says: `gpu_spot`.
        cores: processors the step may use; also the thread count unless the spec fixes fewer.
        memory_gb: memory the step may use, in 10^9 bytes; `shm_gb` is part of it.
        accelerators: GPUs, 0 or 1: a step computes on one device.
        accelerator_resource: the name by which the cluster counts them.
        precision: `float32`, or `bfloat16` for mixed precision: a network multiplies in bfloat16 while it learns; its
            weights, its loss, export and serving stay in float32.
        at_once: how many runs with steps of this size may be under way at once: the limit of its Dagster pool.
        is_spot: whether the node may be taken away.
        usd_per_hour: list price of the node share, in US dollars an hour.
        on_demand_usd_per_hour: what the same share costs where it is not taken away; None: `usd_per_hour`.
        priced_on: the date of both prices, ISO.
        schedule_timeout_s: seconds from a pod's creation after which a step without a node counts as unschedulable.
        deadline_s: seconds that a try may run.
        grace_s: seconds between SIGTERM and SIGKILL; longer than a final checkpoint takes, at least 30.
        node_selector: pairs of label and value that a node must have.
        tolerations: taints that do not keep the step away.
        priority_class: of the cluster; None: its default.
        data_zone: the zone of the data. A node there is preferred; a launch into another is warned of and recorded.
        shm_gb: size of `/dev/shm` in 10^9 bytes, through which data loaders hand over batches.
        nodes: how many nodes one step runs on; 1 until several are supported.
        on_demand: name of the profile of a spot step's last try.
        larger_memory_gb: what is asked for, once, after out of memory, in 10^9 bytes; None: twice `memory_gb`.
    """

    name: str
    cores: int
    memory_gb: float
    accelerators: int = 0
    accelerator_resource: str = "nvidia.com/gpu"
    precision: Precision = "float32"
    at_once: int = 1
    is_spot: bool = False
    usd_per_hour: float
    on_demand_usd_per_hour: float | None = None
    priced_on: str
    schedule_timeout_s: float = 600.0
    deadline_s: float = 21_600.0
    grace_s: float = 120.0
    node_selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    priority_class: str | None = None
    data_zone: str | None = None
    shm_gb: float = 1.0
    nodes: int = 1
    on_demand: str | None = None
    larger_memory_gb: float | None = None

    @property
    def device(self) -> str:
        """Where a training of this size runs, in torch's words; never anywhere else."""
        return "cuda" if self.accelerators else "cpu"

    def check_fits(self, memory_gb: float) -> None:
        """Raise `ValueError` for memory of a try, in 10^9 bytes, that cannot hold `/dev/shm`."""
        if not memory_gb > self.shm_gb:
            raise ValueError(f"memory_gb is {memory_gb!r}; expected more than the profile's shm_gb, {self.shm_gb!r}.")

    def __post_init__(self) -> None:
        self._check_size()
        self._check_price()
        self._check_times()
        self._check_place()

    def _check_size(self) -> None:
        self._expect(_NAME.fullmatch(self.name), "name", "lower-case letters, digits and underscores, at most 63")
        self._expect(self.cores >= 1, "cores", "at least 1")
        self._expect(_is_positive(self.memory_gb), "memory_gb", "a positive number of 10^9 bytes")
        one = "0 or 1, because a step computes on one device, and the others would be paid for"
        self._expect(_is_count(self.accelerators) and self.accelerators in (0, 1), "accelerators", one)
        is_count = 1 <= self.at_once <= MOST_AT_ONCE
        self._expect(is_count, "at_once", f"1 to {MOST_AT_ONCE}; to let none begin, see Queues in docs/operate.md")
        is_resource = _QUALIFIED.fullmatch(self.accelerator_resource) and "/" in self.accelerator_resource
        self._expect(is_resource, "accelerator_resource", "an extended resource, such as nvidia.com/gpu")
        known = get_args(Precision)
        self._expect(self.precision in known, "precision", f"one of {', '.join(known)}")
        fits = _is_positive(self.shm_gb) and self.shm_gb < self.memory_gb
        self._expect(fits, "shm_gb", f"a positive number of 10^9 bytes below memory_gb, {self.memory_gb!r}")
        self._expect(_is_count(self.nodes) and self.nodes == 1, "nodes", "1, because a step runs on one node")
        if self.larger_memory_gb is not None:
            is_larger = math.isfinite(self.larger_memory_gb) and self.larger_memory_gb > self.memory_gb
            self._expect(is_larger, "larger_memory_gb", f"more than memory_gb, {self.memory_gb!r}, or None")

    def _check_price(self) -> None:
        self._expect(_is_price(self.usd_per_hour), "usd_per_hour", "0 or more US dollars an hour")
        self._expect(_is_date(self.priced_on), "priced_on", "the date of the price, such as 2026-11-01")
        if self.on_demand_usd_per_hour is not None:
            self._expect(_is_price(self.on_demand_usd_per_hour), "on_demand_usd_per_hour", "0 or more, or None")
        if self.is_spot:
            self._expect(self.on_demand is not None, "on_demand", "the name of a spot profile's on-demand twin")
            self._expect(self.on_demand_usd_per_hour is not None, "on_demand_usd_per_hour", "the price of that twin")
        else:
            self._expect(self.on_demand is None, "on_demand", "None, because is_spot is False")
            same = self.on_demand_usd_per_hour in (None, self.usd_per_hour)
            self._expect(same, "on_demand_usd_per_hour", "None or usd_per_hour, because is_spot is False")

    def _check_times(self) -> None:
        for field in ("schedule_timeout_s", "deadline_s"):
            self._expect(_is_positive(getattr(self, field)), field, "a positive number of seconds")
        is_long = math.isfinite(self.grace_s) and self.grace_s >= GRACE_MIN_S
        self._expect(is_long, "grace_s", f"at least {GRACE_MIN_S:.0f} seconds, for a final checkpoint")
        self._expect(self.grace_s < self.deadline_s, "grace_s", f"less than deadline_s, {self.deadline_s!r}")

    def _check_place(self) -> None:
        for label, value in self.node_selector:
            is_label = _QUALIFIED.fullmatch(label) and _VALUE.fullmatch(value)
            self._expect(is_label, "node_selector", "pairs of a node's label and its value")
        twice = len({label for label, _ in self.node_selector}) < len(self.node_selector)
        self._expect(not twice, "node_selector", "every label once")
        if self.data_zone is not None:
            is_zone = self.data_zone and _VALUE.fullmatch(self.data_zone)
            self._expect(is_zone, "data_zone", "a zone's name, such as europe-west4-b, or None")
        if self.priority_class is not None:
            is_name = _SUBDOMAIN.fullmatch(self.priority_class)
            self._expect(is_name, "priority_class", "the name of a PriorityClass, or None")

    def _expect(self, condition: object, field: str, expected: str) -> None:
        _check(condition, f"StepProfile({self.name!r}).{field}", getattr(self, field), expected)


_VALUE_IS = "at most 63 letters, digits, dots, dashes and underscores"


def _check(condition: object, what: str, value: object, expected: str) -> None:
    if not condition:
        raise ValueError(f"{what} is {value!r}; expected {expected}. Profiles are in platform_assets/profiles.py.")


def _is_count(number: object) -> bool:
    return type(number) is int  # a bool is an int too, and a manifest would say "True"


def _is_positive(number: float) -> bool:
    return math.isfinite(number) and number > 0


def _is_price(number: float) -> bool:
    return math.isfinite(number) and number >= 0


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def named(*profiles: StepProfile) -> dict[str, StepProfile]:
    """Return the profiles by name, when they agree with each other.

    Raises:
        ValueError: a name twice, or a spot profile whose on-demand twin is unknown, of another size or precision, or
            priced otherwise.
    """
    found = {profile.name: profile for profile in profiles}
    _check(len(found) == len(profiles), "profiles", [profile.name for profile in profiles], "every name once")
    for spot in profiles:
        if spot.on_demand is None:
            continue
        what = f"StepProfile({spot.name!r}).on_demand"
        twin = found.get(spot.on_demand)
        if twin is None or twin.is_spot:
            on_demand = ", ".join(profile.name for profile in profiles if not profile.is_spot)
            _check(False, what, spot.on_demand, f"one of the profiles on demand: {on_demand or 'there are none'}")
            continue
        size, same = (
            (each.cores, each.memory_gb, each.accelerators, each.accelerator_resource, each.precision)
            for each in (twin, spot)
        )
        _check(size == same, what, spot.on_demand, f"a profile of the same size, {same}, not {size}")
        price = spot.on_demand_usd_per_hour
        _check(price == twin.usd_per_hour, f"{what}_usd_per_hour", price, f"{twin.name}'s {twin.usd_per_hour!r}")
    return found


SPOT_NODES = (("driftline/spot", "true"),)
"""The label of spot nodes; without it a spot step would land on, and be costed less than, a node on demand."""
SPOT_TAINT = Toleration(key="driftline/spot", value="true", effect="NoSchedule")
GPU_TAINT = Toleration(key="nvidia.com/gpu", effect="NoSchedule")

PROFILES = named(
    StepProfile(name="cpu_small", cores=2, memory_gb=4, at_once=4, usd_per_hour=0.08, priced_on="2026-11-01"),
    StepProfile(
        name="cpu_spot",
        cores=2,
        memory_gb=4,
        at_once=8,
        is_spot=True,
        usd_per_hour=0.03,
        on_demand_usd_per_hour=0.08,
        priced_on="2026-11-01",
        node_selector=SPOT_NODES,
        tolerations=(SPOT_TAINT,),
        on_demand="cpu_small",
    ),
    StepProfile(
        name="gpu",
        cores=8,
        memory_gb=32,
        accelerators=1,
        at_once=2,
        usd_per_hour=2.49,
        priced_on="2026-11-01",
        tolerations=(GPU_TAINT,),
        shm_gb=8,
    ),
    StepProfile(
        name="gpu_spot",
        cores=8,
        memory_gb=32,
        accelerators=1,
        at_once=4,
        is_spot=True,
        usd_per_hour=0.99,
        on_demand_usd_per_hour=2.49,
        priced_on="2026-11-01",
        node_selector=SPOT_NODES,
        tolerations=(GPU_TAINT, SPOT_TAINT),
        shm_gb=8,
        on_demand="gpu",
    ),
)


def profile(name: str) -> StepProfile:
    """Return a profile by name; raise `ValueError` listing the known ones."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(f"profile is {name!r}; expected one of {', '.join(PROFILES)}.") from None
