"""Define the classes of step failures: one row per class, with everything that differs between them.

To add a class, add a row. What follows from a failure, its retry budget and its evidence are read from here.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass


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
        is_loss: the step did nothing wrong and may resume; all losses share the budget `LOST`.
        is_spot_loss: caused by a spot node; the attempt would have continued on another one.
        is_unpaid: it ends before a process starts.
        budget: for a class that is not a loss.
        needs_memory: the next attempt gets more memory.
        needs_on_demand: the next attempt at a spot step runs on demand immediately.
        signal: that ends the step's process in this way.
        pod_reasons: `status.reason` of a failed pod.
        waiting: reasons of a container that waits and never starts; the earlier of two rows counts.
        disruptions: reasons of the condition `DisruptionTarget`.
        events: reasons of events of a pod or its node.
        stuck_events: reasons of events of a pod that has a node and does not start in time.
        taints: of a node that is about to be removed, or their prefixes.
    """

    name: str
    sentence: str
    is_loss: bool = False
    is_spot_loss: bool = False
    is_unpaid: bool = False
    budget: Budget = Budget()
    needs_memory: bool = False
    needs_on_demand: bool = False
    signal: signal.Signals | None = None
    pod_reasons: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    disruptions: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    stuck_events: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()


PREEMPTED = Failure(
    name="preempted",
    sentence="it was told to stop",
    is_loss=True,
    is_spot_loss=True,
    signal=signal.SIGTERM,
    pod_reasons=("Preempting", "Preempted", "Terminated", "NodeShutdown", "Shutdown"),
    disruptions=("PreemptionByScheduler", "PreemptionByKubeScheduler"),
    events=(
        *("Preempted", "Preempting", "NodeShutdown", "SpotInterruption", "PreemptScheduled"),
        "TaintManagerEviction",
    ),
    taints=(
        "cloud.google.com/impending-node-termination",
        "aws-node-termination-handler/",
        "karpenter.sh/disrupt",
        "ToBeDeletedByClusterAutoscaler",
        "node.cloudprovider.kubernetes.io/shutdown",
        "node.kubernetes.io/out-of-service",
    ),
)
NODE_LOST = Failure(
    name="node_lost",
    sentence="its node was lost",
    is_loss=True,
    is_spot_loss=True,
    pod_reasons=("NodeLost",),
    disruptions=("DeletionByPodGC", "DeletionByGCPControllerManager"),
    events=("NodeNotReady", "DeletingNode", "RemovingNode"),
)
EVICTED = Failure(
    name="evicted",
    sentence="it was evicted",
    is_loss=True,
    is_spot_loss=True,
    pod_reasons=("Evicted",),
    disruptions=("TerminationByKubelet",),
    events=("Evicted",),
)
KILLED = Failure(name="killed", sentence="it was killed", is_loss=True, signal=signal.SIGKILL)
OUT_OF_MEMORY = Failure(
    name="out_of_memory",
    sentence="it ran out of memory",
    budget=Budget(tries=1),
    needs_memory=True,
    events=("OOMKilling", "SystemOOM"),
)
UNSCHEDULABLE = Failure(name="unschedulable", sentence="no node had room for it", is_unpaid=True, needs_on_demand=True)
IMAGE = Failure(
    name="image",
    sentence="its image could not be pulled",
    is_unpaid=True,
    budget=Budget(tries=1, pause_s=15.0),
    waiting=(
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"),
        *("RegistryUnavailable", "SignatureValidationFailed"),
    ),
)
INIT = Failure(
    name="init",
    sentence="it could not be prepared",
    is_unpaid=True,
    budget=Budget(tries=1, pause_s=5.0),
    # The image exists and the process never started: a missing secret, a root user, a command not in the image.
    waiting=(
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"),
        *("PreStartHookError", "PostStartHookError", "StartError", "ContainerCannotRun"),
    ),
    stuck_events=("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"),
)
ADMISSION = Failure(
    name="admission", sentence="it was not admitted", is_unpaid=True, budget=Budget(tries=2, pause_s=10.0)
)
DEADLINE = Failure(name="deadline", sentence="it exceeded its deadline", pod_reasons=("DeadlineExceeded",))
CODE = Failure(name="code", sentence="by its own error")

FAILURES = tuple(row for row in globals().values() if isinstance(row, Failure))
BY_POD_REASON, BY_DISRUPTION, BY_EVENT = (
    {reason: row for row in FAILURES for reason in getattr(row, kind)}
    for kind in ("pod_reasons", "disruptions", "events")
)


def of_signal(exit_code: int) -> Failure | None:
    """Return the class of a process ended by a signal, by its exit code; None when it ended by itself."""
    return next((row for row in FAILURES if row.signal and exit_code in (-row.signal, 128 + row.signal)), None)
