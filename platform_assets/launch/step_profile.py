"""The type of a profile: a size in which a step may run, where, for how long, and what it costs, for every launcher."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WrapValidator, model_validator

from platform_assets.base.configuration import Configuration, ConfigurationProblem, Unfit, expect, one_of, unexpected

CLOUD_NOTICES = {"gke": 15.0, "aws": 120.0, "azure": 30.0}
"""Seconds that a pod has before its spot node is taken away, whatever its own grace period. Sources:

- GKE: https://docs.cloud.google.com/kubernetes-engine/docs/concepts/spot-vms (15 of 30 s are for pods; a node pool may
  extend the 30 s to 120 s from 1.35.0-gke.1171000);
- AWS: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html;
- Azure: https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events (`Preempt`).
"""
LONGEST_GKE_NOTICE_S = 120.0
GRACE_MIN_S = min(CLOUD_NOTICES.values())
"""A step needs this long to write its last checkpoint after SIGTERM; no cloud gives less."""
PULL_PATIENCE_S = 180.0
"""A registry may be busy or silent for so long, so a start takes longer."""
RESERVED = ("driftline/", "driftline-", "app.kubernetes.io/name", "app.kubernetes.io/managed-by")
"""Labels and annotations that launchers set."""
ZONE = "topology.kubernetes.io/zone"
"""The label of a node's zone."""
MOST_AT_ONCE = 1000
"""Dagster takes no more slots in a pool."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_QUALIFIED = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
IMAGE_BY_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
BUILT_IN = "Profiles are in resources/profiles.toml and platform_assets/launch/profiles.py"


class ProfileProblem(ConfigurationProblem):
    """A profile that cannot be used; the message names profile, field, value, and where to fix it."""


def _is_positive(number: float) -> bool:
    return 0 < number < math.inf


def _is_date(text: str) -> bool:
    try:
        # It reads 20261101 and 2026-W44-7, too.
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _pairs(value: object) -> object:
    """Return a table of a file as pairs."""
    return tuple(value.items()) if isinstance(value, Mapping) else value


def _are_labels(pairs: tuple[tuple[str, str], ...]) -> bool:
    return all(_QUALIFIED.fullmatch(label) and _VALUE.fullmatch(value) for label, value in pairs)


def _are_own_labels(pairs: tuple[tuple[str, str], ...]) -> bool:
    return _are_labels(pairs) and not any(label.startswith(RESERVED) for label, _ in pairs)


def _are_annotations(pairs: tuple[tuple[str, str], ...]) -> bool:
    return all(_QUALIFIED.fullmatch(name) and not name.startswith(RESERVED) for name, _ in pairs)


def _tolerations(value: object) -> object:
    """Return the tables of a file as tolerations."""
    if not isinstance(value, list):
        return value
    try:
        return tuple(Toleration(**entry) if isinstance(entry, Mapping) else entry for entry in value)
    except ProfileProblem as problem:
        # Its own text names a taint, and a reader looks for the profile.
        raise Unfit(f"has a toleration whose {problem.field} {problem.text}") from None


Gigabytes = Annotated[int | float, expect("a positive number of 10^9 bytes", _is_positive)]
Seconds = Annotated[float, expect("a positive number of seconds", _is_positive)]
Price = Annotated[int | float, expect("0 or more US dollars an hour", lambda usd: 0 <= usd < math.inf)]
OptionalPrice = Annotated[int | float | None, expect("0 or more, or None", lambda usd: 0 <= usd < math.inf)]
OptionalGigabytes = Annotated[int | float | None, expect("a positive number of 10^9 bytes, or None", _is_positive)]
Flag = Annotated[bool, expect("true or false")]


def _name_of_a(kind: str) -> WrapValidator:
    """Return a validator for the name of an object of the cluster, or None."""
    return expect(f"the name of a {kind}, or None", _SUBDOMAIN.fullmatch)


class _Table(Configuration):
    """What a table of `profiles.toml` holds."""

    # A variable's "2" is a text and true is not a number of nodes: neither is guessed into what was meant.
    model_config = ConfigDict(strict=True)
    problem: ClassVar[type[ConfigurationProblem]] = ProfileProblem
    advice: ClassVar[str] = f" {BUILT_IN}."


class Toleration(_Table):
    """A taint of nodes that does not keep a step away."""

    named_by: ClassVar[str] = "key"

    key: Annotated[str, expect("a taint's key, such as nvidia.com/gpu", _QUALIFIED.fullmatch)] = Field(
        description="key of the taint"
    )
    value: Annotated[
        str | None, expect("at most 63 letters, digits, dots, dashes and underscores", _VALUE.fullmatch)
    ] = Field(default=None, description="value of the taint; None for any")
    effect: Annotated[
        Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None,
        expect("one of NoSchedule, PreferNoSchedule, NoExecute, or None for any"),
    ] = Field(default=None, description="effect of the taint; None for any")


class StepProfile(_Table):
    """A named step size."""

    named_by: ClassVar[str] = "name"

    name: Annotated[str, expect("lower-case letters, digits and underscores, at most 63", _NAME.fullmatch)] = Field(
        description="the name in a product's file, such as `gpu_spot`"
    )
    cores: Annotated[int, expect("at least 1", lambda count: count >= 1)] = Field(
        description="processors that the step is guaranteed; its thread pools follow `cpu_limit`, or this without one"
    )
    memory_gb: Gigabytes = Field(description="memory that the step may use, in 10^9 bytes; `shm_gb` is part of it")
    cpu_limit: Annotated[
        int | float | None, expect("a number of processors of at least cores, or None", _is_positive)
    ] = Field(
        default=None,
        description="processors that the step is throttled to; None for no limit. A namespace whose quota names "
        "`limits.cpu` admits no pod without one",
    )
    storage_gb: OptionalGigabytes = Field(
        default=None,
        description="ephemeral storage in 10^9 bytes, requested and limited: logs, `/tmp`, scratch; None for neither",
    )
    accelerators: Annotated[int, expect("0 or more", lambda count: count >= 0)] = Field(
        default=0, description="GPUs per node"
    )
    accelerator_resource: Annotated[
        str,
        expect("an extended resource, such as nvidia.com/gpu", lambda text: "/" in text and _QUALIFIED.fullmatch(text)),
    ] = Field(
        default="nvidia.com/gpu",
        description="the name under which the cluster counts them: `nvidia.com/gpu` for whole ones, "
        "`nvidia.com/mig-1g.10gb` for slices by MIG, `nvidia.com/gpu.shared` for shares of a time-sliced one, whose "
        "memory only `gpu_memory_gb` divides",
    )
    gpu_memory_gb: OptionalGigabytes = Field(
        default=None,
        description="what each process may take of its GPU's memory, in 10^9 bytes, such as its part of a shared one: "
        "torch allocates no more, and the driver's own is on top; None for all of it",
    )
    processes: Annotated[int | None, expect("at least 1, or None", lambda count: count >= 1)] = Field(
        default=None, description="processes per node that share a training; None for one per accelerator"
    )
    nodes: Annotated[int, expect("at least 1", lambda count: count >= 1)] = Field(
        default=1, description="nodes of one step, each of this size; only the launcher `kubernetes` has several"
    )
    precision: Annotated[Literal["float32", "bfloat16"], one_of("float32", "bfloat16")] = Field(
        default="float32",
        description="`float32`, or `bfloat16` for mixed precision: a network multiplies in bfloat16 while it learns; "
        "its weights, its loss, export and serving stay in float32",
    )
    at_once: Annotated[
        int,
        expect(
            f"1 to {MOST_AT_ONCE}; to let none begin, see Queues in docs/operate.md",
            lambda count: 1 <= count <= MOST_AT_ONCE,
        ),
    ] = Field(
        default=1, description="how many runs with steps of this size may be in progress: the limit of its Dagster pool"
    )
    is_spot: Flag = Field(default=False, description="whether the node may be taken away")
    usd_per_hour: Price = Field(description="list price of the share of one node, in US dollars per hour")
    on_demand_usd_per_hour: OptionalPrice = Field(
        default=None, description="price of the same share on demand; None for `usd_per_hour`"
    )
    priced_on: Annotated[str, expect("the date of the price, such as 2026-11-01", _is_date)] = Field(
        description="the date of both prices, ISO"
    )
    schedule_timeout_s: Seconds = Field(
        default=600.0, description="seconds from a pod's creation until a step without a node counts as unschedulable"
    )
    start_timeout_s: Annotated[
        float,
        expect(
            f"more than {PULL_PATIENCE_S:.0f} seconds, which a registry may take",
            lambda value: PULL_PATIENCE_S < value < math.inf,
        ),
    ] = Field(
        default=900.0,
        description="seconds from a pod's node until its process must run: image, devices, network, volumes",
    )
    queue_timeout_s: Seconds = Field(
        default=86_400.0, description="seconds that a queue may hold a pod back by a scheduling gate"
    )
    deadline_s: Seconds = Field(default=21_600.0, description="seconds that one try may run")
    grace_s: Annotated[
        float,
        expect(
            f"at least {GRACE_MIN_S:.0f} seconds, for a final checkpoint", lambda value: GRACE_MIN_S <= value < math.inf
        ),
    ] = Field(default=120.0, description="seconds between SIGTERM and SIGKILL; longer than a final checkpoint takes")
    cloud: Annotated[Literal["gke", "aws", "azure"] | None, expect("one of gke, aws, azure, or None")] = Field(
        default=None,
        description="whose spot nodes these are; tells how long before the end a step has notice: "
        + ", ".join(f"{name} {seconds:g} s" for name, seconds in CLOUD_NOTICES.items()),
    )
    notice_s: Annotated[float | None, expect("a positive number of seconds, or None", _is_positive)] = Field(
        default=None,
        description="seconds of notice on a spot node; None for the cloud's. A GKE node pool may extend them to 120 s "
        "from 1.35",
    )
    labels: Annotated[
        tuple[tuple[str, str], ...],
        expect("pairs of a label and its value, none of them driftline's own", _are_own_labels),
        BeforeValidator(_pairs),
    ] = Field(default=(), description="further labels of the pod, such as a queue's name")
    annotations: Annotated[
        tuple[tuple[str, str], ...],
        expect("pairs of an annotation's name and a text, none of them driftline's own", _are_annotations),
        BeforeValidator(_pairs),
    ] = Field(default=(), description="further annotations of the pod, such as `karpenter.sh/do-not-disrupt`")
    runtime_class: Annotated[str | None, _name_of_a("RuntimeClass")] = Field(
        default=None, description="RuntimeClass of the cluster; None for its default"
    )
    node_selector: Annotated[
        tuple[tuple[str, str], ...],
        expect("pairs of a node's label and its value", _are_labels),
        BeforeValidator(_pairs),
    ] = Field(default=(), description="labels and values that a node must have")
    tolerations: Annotated[
        tuple[Toleration, ...],
        expect("a list of tolerations, such as [{key = 'nvidia.com/gpu'}]"),
        BeforeValidator(_tolerations),
    ] = Field(default=(), description="taints that do not keep the step away")
    priority_class: Annotated[str | None, _name_of_a("PriorityClass")] = Field(
        default=None, description="PriorityClass of the cluster; None for its default"
    )
    data_zone: Annotated[
        str | None,
        expect("a zone's name, such as europe-west4-b, or None", lambda text: text and _VALUE.fullmatch(text)),
    ] = Field(
        default=None,
        description="the zone of the data. A node there is preferred; a launch into another zone is recorded with a "
        "warning, and with the bytes that a training received there",
    )
    data_zone_only: Flag = Field(
        default=False,
        description="whether a node in `data_zone` is required: without a free one the step waits, as for any node",
    )
    cross_zone_usd_per_gb: OptionalPrice = Field(
        default=None,
        description="price of 10^9 bytes from `data_zone` to another zone, in US dollars; None: bytes are recorded "
        "without a price",
    )
    image: Annotated[
        str | None,
        expect(
            "name@sha256: and 64 hexadecimal digits, because a tag may be another image tomorrow, or None",
            IMAGE_BY_DIGEST.fullmatch,
        ),
    ] = Field(
        default=None,
        description="image of steps in pods, by digest; None for `DRIFTLINE_TRAINER_IMAGE`. A step that "
        "is a process of this machine has none",
    )
    libraries: Annotated[str | None, expect("NAME=VERSION pairs, or None")] = Field(
        default=None,
        description="versions in `image`, which a training's fingerprint covers: what `python -m "
        "platform_assets.training.libraries PACKAGE...` prints in it; None: its digest stands for them",
    )
    shm_gb: Annotated[int | float, expect("a positive number of 10^9 bytes below memory_gb", _is_positive)] = Field(
        default=1.0, description="size of `/dev/shm` in 10^9 bytes, through which data loaders pass batches"
    )
    on_demand: Annotated[str | None, expect("the name of a profile, or None")] = Field(
        default=None, description="name of the profile of a spot step's last try"
    )
    larger_memory_gb: Annotated[int | float | None, expect("a number of 10^9 bytes, or None")] = Field(
        default=None, description="memory of the one try after out of memory, in 10^9 bytes; None for twice `memory_gb`"
    )
    larger_storage_gb: Annotated[int | float | None, expect("a number of 10^9 bytes, or None")] = Field(
        default=None,
        description="ephemeral storage of the one try after the limit was exceeded, in 10^9 bytes; None for twice the "
        "limit",
    )

    @property
    def device(self) -> str:
        """Where a training of this size runs, in torch's terms; never anywhere else."""
        return "cuda" if self.accelerators else "cpu"

    @property
    def processes_per_node(self) -> int:
        """How many processes share a training on each node: one per accelerator, unless the profile says more."""
        return self.processes or max(1, self.accelerators)

    @property
    def world_size(self) -> int:
        """How many processes share a training."""
        return self.nodes * self.processes_per_node

    @property
    def usd_per_hour_in_all(self) -> float:
        """The list price of all its nodes, in US dollars per hour."""
        return self.nodes * self.usd_per_hour

    @property
    def of_one_process(self) -> StepProfile:
        """This size for a training in one process, on one device."""
        return self.replace(accelerators=min(1, self.accelerators), processes=None, nodes=1)

    def arguments(self, module: str, *, is_shared: bool, grace_s: float | None = None) -> list[str]:
        """Return the arguments of Python that run a step's module on one node, by torchrun where processes share it.

        Args:
            grace_s: what the step has after SIGTERM; None for the profile's.
        """
        if not is_shared or self.world_size == 1:
            return ["-m", module]
        options = [f"--processes={self.processes_per_node}", f"--grace-s={grace_s or self.grace_s:g}"]
        return ["-m", "platform_assets.launch.torchrun", *options, module]

    @property
    def is_part_of_gpu(self) -> bool:
        """Whether its accelerator is a slice or a share of a GPU, by the names of NVIDIA's device plugin."""
        name = self.accelerator_resource.partition("/")[2]
        return self.accelerators > 0 and (name.startswith("mig-") or name.endswith(".shared"))

    @property
    def threads(self) -> int:
        """Threads of the pools of each process of a step: its share of the processors, however many its node has."""
        # Below a whole processor another thread only waits.
        return max(1, int(self.cpu_limit or self.cores) // self.processes_per_node)

    @property
    def save_s(self) -> float:
        """Seconds that a step has to save its work when it is stopped: its grace, or less on a spot node."""
        notice_s = self.notice_s or (CLOUD_NOTICES[self.cloud] if self.cloud else math.inf)
        return min(self.grace_s, notice_s) if self.is_spot else self.grace_s

    def check_fits(self, memory_gb: float) -> None:
        """Raise `ValueError` for memory of a try, in 10^9 bytes, that cannot hold `/dev/shm`."""
        if not memory_gb > self.shm_gb:
            raise ValueError(f"memory_gb is {memory_gb!r}; expected more than the profile's shm_gb, {self.shm_gb!r}.")

    @model_validator(mode="after")
    def _check_fields_together(self) -> StepProfile:
        is_part = self.shm_gb < self.memory_gb
        self._expect(is_part, "shm_gb", f"a positive number of 10^9 bytes below memory_gb, {self.memory_gb!r}")
        for name in ("memory_gb", "storage_gb"):
            limit, larger = getattr(self, name), getattr(self, f"larger_{name}")
            is_larger = larger is None or (limit or 0) < larger < math.inf
            self._expect(is_larger, f"larger_{name}", f"more than {name}, {limit!r}, or None")
        is_whole = self.accelerators <= 1 or not self.is_part_of_gpu
        self._expect(is_whole, "accelerators", f"0 or 1 of {self.accelerator_resource}: its parts share no work")
        has_gpus = self.accelerators > 0 or self.gpu_memory_gb is None
        self._expect(has_gpus, "gpu_memory_gb", "None, because accelerators is 0")
        # NCCL refuses two processes on one device.
        is_one_each = not self.accelerators or self.processes in (None, self.accelerators)
        self._expect(is_one_each, "processes", f"one per accelerator, {self.accelerators!r}, or None")
        is_enough = self.cpu_limit is None or self.cpu_limit >= self.cores
        self._expect(is_enough, "cpu_limit", f"at least cores, {self.cores!r}, or None")
        if self.cloud == "gke" and self.notice_s is not None:
            is_possible = self.notice_s <= LONGEST_GKE_NOTICE_S
            self._expect(is_possible, "notice_s", f"at most {LONGEST_GKE_NOTICE_S:g} seconds on GKE, or None")
        self._expect(self.libraries is None or self.image is not None, "libraries", "None, because image is None")
        has_zone = self.data_zone is not None
        self._expect(has_zone or not self.data_zone_only, "data_zone_only", "false, because data_zone is None")
        is_priced = self.cross_zone_usd_per_gb is not None
        self._expect(has_zone or not is_priced, "cross_zone_usd_per_gb", "None, because data_zone is None")
        chosen = dict(self.node_selector).get(ZONE, self.data_zone)
        is_one_zone = not self.data_zone_only or chosen == self.data_zone
        self._expect(is_one_zone, "node_selector", f"the zone {self.data_zone!r}, because data_zone_only is true")
        self._expect(self.grace_s < self.deadline_s, "grace_s", f"less than deadline_s, {self.deadline_s!r}")
        for field in ("node_selector", "labels", "annotations"):
            pairs = getattr(self, field)
            self._expect(len(dict(pairs)) == len(pairs), field, "every name once")
        if self.is_spot:
            self._expect(self.on_demand is not None, "on_demand", "the name of a spot profile's on-demand twin")
            self._expect(self.on_demand_usd_per_hour is not None, "on_demand_usd_per_hour", "the price of that twin")
        else:
            self._expect(self.on_demand is None, "on_demand", "None, because is_spot is False")
            is_same = self.on_demand_usd_per_hour in (None, self.usd_per_hour)
            self._expect(is_same, "on_demand_usd_per_hour", "None or usd_per_hour, because is_spot is False")
        return self

    def _expect(self, condition: bool, field: str, expected: str) -> None:
        if not condition:
            raise Unfit(unexpected(getattr(self, field), expected), field)
