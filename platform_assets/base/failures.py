"""Define the classes of step failures: one row per class, with everything that differs between them.

To add a class, add a row, and a status that shows it from a public thread to tests/doubles/pod_statuses. What follows
from a failure, its retry budget and its evidence are read from here; `make reference` writes docs/steps.md. Its tries
raise what a first training may cost.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Retry budget of a class of failure.

    Attributes:
        tries: number of further attempts that failures of this class may cause, per run of the asset.
        pause_s: wait before the first of them; doubles each time.
    """

    tries: int = 0
    pause_s: float = 0.0


LOST = Budget(tries=4, pause_s=1.0)
"""For all losses together, per kind of node (spot or on demand)."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A class of failure.

    Attributes:
        name: in records and metadata.
        sentence: what happened to the step, for people.
        evidence: what a cluster shows of it, for the table in docs/steps.md.
        is_loss: the step did nothing wrong and may resume; all losses share the budget `LOST`.
        is_unpaid: it ends before a process starts.
        budget: for a class that is not a loss.
        is_random_pause: the pause before the next attempt is between one and two times the budget's, so that two steps
            that were in each other's way do not meet again.
        needs_memory: the next attempt gets more memory.
        needs_storage: the next attempt gets more ephemeral storage.
        needs_on_demand: the next attempt at a spot step runs on demand immediately.
        other_node: the next attempts keep away from its node: `preferred` if there is another, or `required`.
        signal: that ends the step's process in this way.
        pod_reasons: `status.reason` of a failed pod.
        waiting: reasons of a container that waits and never starts; the earlier of two rows counts.
        disruptions: reasons of the condition `DisruptionTarget`, or of Kueue's `TerminationTarget`.
        events: reasons of events of a pod or its node.
        stuck_events: reasons of events of a pod that has a node and does not start in time.
        taints: of a node that is about to be removed, or their prefixes.
        node_conditions: types of a node's conditions, or parts of them; `=False` for one that is good while it is True.
        patterns: regular expressions for messages of a pod, a container, a node or an event; in events only those of
            `TAKERS` and of classes with `other_node` count.
        is_told_by_step: whether the last words of the step itself may show it, by the patterns.
    """

    name: str
    sentence: str
    evidence: str
    is_loss: bool = False
    is_unpaid: bool = False
    budget: Budget = Budget()
    is_random_pause: bool = False
    needs_memory: bool = False
    needs_storage: bool = False
    needs_on_demand: bool = False
    other_node: Literal["", "preferred", "required"] = ""
    signal: signal.Signals | None = None
    pod_reasons: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    disruptions: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    stuck_events: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()
    node_conditions: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    is_told_by_step: bool = False


PREEMPTED = Failure(
    name="preempted",
    sentence="it was told to stop",
    evidence="its node is taken away (cloud, autoscaler, drain of a spot node), or a pod of higher priority needs room",
    is_loss=True,
    signal=signal.SIGTERM,
    # Some evictions show a condition alone, without a reason (kubernetes/kubernetes#105467), hence `disruptions`.
    pod_reasons=("Preempting", "Preempted", "Terminated", "NodeShutdown", "Shutdown"),
    disruptions=("PreemptionByScheduler", "PreemptionByKubeScheduler"),
    events=(
        *("Preempted", "Preempting", "NodeShutdown", "Shutdown", "SpotInterruption", "TaintManagerEviction"),
        *("Disrupted", "Stopped"),  # Karpenter and Kueue, about a pod that they delete
        *("VMEventScheduled", "PreemptScheduled", "RedeployScheduled", "RebootScheduled", "TerminateScheduled"),
    ),
    taints=(
        "cloud.google.com/impending-node-termination",
        "aws-node-termination-handler/",
        "karpenter.sh/disrupt",
        "node.cloudprovider.kubernetes.io/shutdown",
        "node.kubernetes.io/out-of-service",
    ),
    node_conditions=("Shutdown", "VMEventScheduled", "PreemptScheduled", "PreemptionScheduled"),
)
CONSOLIDATED = Failure(
    name="consolidated",
    sentence="an autoscaler gave its node up",
    evidence="its node was used too little: Karpenter's consolidation or Cluster Autoscaler's scale-down",
    is_loss=True,
    events=("ScaleDown",),
    taints=("ToBeDeletedByClusterAutoscaler",),
    patterns=(r"\A(Evicted pod|Disrupting Node): .*\b(underutilized|empty|consolidat)",),
)
PREEMPTED_BY_QUEUE = Failure(
    name="preempted_by_queue",
    sentence="its queue gave its place to other work",
    evidence="Kueue preempted its workload, or Volcano its pod",
    is_loss=True,
    # Of single pods. A Job is suspended by its queue, which would admit the same one again.
    disruptions=("WorkloadEvictedDueToPreempted",),
    events=("Evict",),
    patterns=(r"\APreempted to accommodate\b",),
)
NODE_LOST = Failure(
    name="node_lost",
    sentence="its node was lost",
    evidence="the node is gone or its kubelet is silent",
    is_loss=True,
    pod_reasons=("NodeLost",),
    disruptions=("DeletionByPodGC", "DeletionByGCPControllerManager"),
    # A reboot within the 50 s of the node's monitor brings no NodeNotReady.
    events=("NodeNotReady", "DeletingNode", "RemovingNode", "Rebooted"),
)
EVICTED = Failure(
    name="evicted",
    sentence="it was evicted",
    evidence="the node lacked memory or disk, refused the pod for that, or was drained (other than spot nodes)",
    is_loss=True,
    pod_reasons=("Evicted",),
    # Of a node under pressure. A pod that exceeds its own limit is evicted without this condition (Kubernetes 1.35).
    disruptions=("TerminationByKubelet",),
    events=("Evicted",),
)
HARDWARE = Failure(
    name="hardware",
    sentence="a device of its node failed",
    evidence="an uncorrectable ECC error, a fatal Xid, a lost or busy GPU, or NVML that does not answer",
    is_loss=True,
    other_node="required",
    # EKS' node monitoring agent: https://docs.aws.amazon.com/eks/latest/userguide/node-health.html
    node_conditions=("AcceleratedHardwareReady=False",),
    patterns=(
        r"uncorrectable (\w+ ){0,2}(ECC|error|memory)|ECC_UNCORRECTABLE|double.bit (ECC )?error",
        r"fallen off the bus|GPU[ _]IS[ _]LOST|unable to determine the device handle",
        r"\bnvml (error|init)|\bnvml\.(Init|Device)\b|\bnvml: |initiali[sz]e NVML",
        r"NVML_ERROR_(UNKNOWN|DRIVER_NOT_LOADED)",
        r"CUDA-capable device(\(s\) is/are|s are) busy or unavailable",
        # Whose remedy is a reset or another GPU: https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
        r"\bXid\b(\s*\([^)]*\))?:?\s*(46|48|62|64|74|79|95|109|110|119|120|136|140|143|155|156|158)\b",
    ),
    is_told_by_step=True,
)
KILLED = Failure(
    name="killed",
    sentence="it was killed",
    evidence="SIGKILL, and nothing says why",
    is_loss=True,
    signal=signal.SIGKILL,
)
OUT_OF_SHM = Failure(
    name="out_of_shm",
    sentence="its /dev/shm was full: the profile's shm_gb is too small",
    evidence="SIGBUS, no space left on `/dev/shm`, or evicted for it; its size is the profile's `shm_gb`",
    # Sent for touching mapped memory of a full tmpfs; the pod is evicted only if the volume exceeds its limit.
    signal=signal.SIGBUS,
    patterns=(
        # Before OUT_OF_DISK, whose sentence it shares: a retry with more ephemeral storage would not help.
        r'EmptyDir volume "shm" exceeds the limit',
        r"(insufficient|out of) shared memory|killed by signal: Bus error",
        r"No space left on device\b.*/dev/shm|(/dev/shm|</torch_).*No space left on device|/dev/shm/nccl",
    ),
    is_told_by_step=True,
)
OUT_OF_MEMORY = Failure(
    name="out_of_memory",
    sentence="it ran out of memory",
    evidence="the container, or a child of the step, was killed because of its memory",
    budget=Budget(tries=1),
    needs_memory=True,
    events=("OOMKilling", "SystemOOM"),
    patterns=(r"The kernel killed for memory, in this container: \d+ processes",),
    is_told_by_step=True,
)
HUNG = Failure(
    name="hung",
    sentence="none of its steps ended for too long",
    evidence="in a shared training no step has ended for ten times the median step, and 30 seconds at least",
    is_loss=True,
    patterns=(r"\bno step has ended for \d+ s \(median",),
    is_told_by_step=True,
)
OUT_OF_DISK = Failure(
    name="out_of_disk",
    sentence="it used more ephemeral storage than it may",
    evidence="evicted for the pod's own limit of ephemeral storage or of a volume other than `/dev/shm`",
    budget=Budget(tries=1),
    needs_storage=True,
    # A node under pressure names the pod's request instead of a limit.
    patterns=(r"exceed(s|ed)\b.*\blimit\b",),
)
UNSCHEDULABLE = Failure(
    name="unschedulable",
    sentence="no node had room for it",
    evidence="no node within the profile's `schedule_timeout_s`",
    is_unpaid=True,
    needs_on_demand=True,
)
IMAGE = Failure(
    name="image",
    sentence="its image could not be pulled",
    evidence=(
        "the registry refuses us (401, 403) or does not know the image (404), twice; or it is busy or silent (429, "
        "5xx) for 3 minutes"
    ),
    is_unpaid=True,
    # The kubelet tries again by itself after some 24 and 70 s: a registry that is away for 30 s costs 82 to 93 s.
    budget=Budget(tries=1, pause_s=15.0),
    waiting=(
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"),
        *("RegistryUnavailable", "SignatureValidationFailed"),
    ),
)
INIT = Failure(
    name="init",
    sentence="it could not be prepared",
    evidence="a container or a volume cannot be made, or an init container or native sidecar fails at its start",
    is_unpaid=True,
    budget=Budget(tries=1, pause_s=5.0),
    # The image exists and the process never started: a missing secret, a root user, a command not in the image.
    waiting=(
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"),
        *("PreStartHookError", "PostStartHookError", "StartError", "ContainerCannotRun"),
    ),
    stuck_events=("FailedMount", "FailedAttachVolume"),
    # All that a runtime writes for a program of another platform.
    patterns=(
        r"\A(standard_init_linux\S+ )?exec (user process caused|container process \S+|\S+): \"?exec format error",
    ),
    is_told_by_step=True,
)
INCOMPLETE = Failure(
    name="incomplete",
    sentence="not all of its pods found a node",
    evidence="of the pods of a step on several nodes, some have a node and others none within `start_timeout_s`",
    is_unpaid=True,
    budget=Budget(tries=4, pause_s=15.0),
    is_random_pause=True,
)
NOT_STARTED = Failure(
    name="not_started",
    sentence="it had a node and did not start in time",
    evidence="network, devices or silence: the pod has a node and no process within the profile's `start_timeout_s`",
    is_unpaid=True,
    budget=Budget(tries=1),
    other_node="preferred",
)
ADMISSION = Failure(
    name="admission",
    sentence="it was not admitted",
    evidence=(
        "a quota, a policy or a kubelet refuses; or nobody lifted the pod's gate within `queue_timeout_s`, or no "
        "scheduler looked at it within `schedule_timeout_s`"
    ),
    is_unpaid=True,
    budget=Budget(tries=2, pause_s=10.0),
)
DEADLINE = Failure(
    name="deadline",
    sentence="it exceeded its deadline",
    evidence="the profile's `deadline_s` is over",
    pod_reasons=("DeadlineExceeded",),
)
PEERS_LOST = Failure(
    name="peers_lost",
    sentence="its pods lost each other",
    evidence="each pod of a step on several nodes lost another one, and none shows another cause: their network",
    is_loss=True,
)
CODE = Failure(name="code", sentence="by its own error", evidence="the step's own error")

TAKERS = (CONSOLIDATED, PREEMPTED_BY_QUEUE)
"""Who takes a pod away for reasons of its own. The pod shows only that it was deleted or evicted; events name them."""
FAILURES = tuple(row for row in globals().values() if isinstance(row, Failure))
BY_POD_REASON, BY_DISRUPTION, BY_EVENT = (
    {reason: row for row in FAILURES for reason in getattr(row, kind)}
    for kind in ("pod_reasons", "disruptions", "events")
)


def of_signal(exit_code: int) -> Failure | None:
    """Return the class of a process ended by a signal, by its exit code; None when it ended by itself."""
    return next((row for row in FAILURES if row.signal and exit_code in (-row.signal, 128 + row.signal)), None)


def may_lack_memory(exit_code: int | None) -> bool:
    """Return whether memory may have ended a process: by SIGKILL, or by itself after a child was killed.

    Runtimes count kills for memory over a container's whole life, so they report them with any other end too.
    """
    return exit_code is None or of_signal(exit_code) in (None, KILLED)
