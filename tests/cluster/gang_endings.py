"""Forty ways in which a step on several nodes ends, and what came out of each.

Each is planted once in a step of two to four pods on a real cluster of three nodes; the class in brackets is the right
one. Seconds count from the plant, or from the step's start, to the record; a grace period of 30 s may be part of it.
*Paid* is what the ledger counts for all pods, *ran* what containerd says on the nodes. A node that is cut off works on
for about 30 s until it misses its peers; the ledger ends with its last sign of life, as for a node without power.
"""

import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from platform_assets.base import failures
from proof.benchmarks import harness
from proof.benchmarks.harness import Measure
from tests.cluster.gang_faults import (
    GPU,
    Plant,
    api_away,
    cut,
    delete,
    evict,
    kill,
    no_image,
    part,
    power_off,
    preempt,
    put,
    quota,
    stop_kubelet,
    stop_ranks,
    taint,
    then,
)

RUNS = "*:lease; steps 2000 0.2; report"


@dataclass(frozen=True)
class Planted:
    """An ending.

    Attributes:
        what: happened, for people.
        right: the classes that are right.
        blamed: what must be named, one of them: a pod by number, or a node; empty where it is the whole.
        acts: what the ranks do.
        plant: makes it happen once the ranks make steps; `before` the gang is started.
        profile: what differs in the profile.
    """

    what: str
    right: tuple[str, ...]
    blamed: tuple[int | str, ...] = ()
    acts: str = RUNS
    plant: Plant | None = None
    before: Plant | None = None
    nodes: int = 2
    profile: dict[str, Any] = field(default_factory=dict)

    def is_right(self, reason: str, said: str) -> bool:
        """Return whether an attempt has one of the right classes, and names one of the right places."""
        names = [f"{item} on" if isinstance(item, int) else item for item in self.blamed]
        return reason in self.right and (not names or any(name in said for name in names))


def code(number: int, words: str, what: str, right: str = "code", nodes: int = 2) -> Planted:
    return Planted(what, (right,), (number,), f"{RUNS}|{number}:lease; steps 20 0.2; {words}", nodes=nodes)


ONE_GPU = {"accelerators": 1, "accelerator_resource": GPU, "processes": 1}
ENDINGS = [
    Planted("the node of pod 0 loses its power", ("node_lost",), (0,), plant=power_off(0)),
    Planted("the node of pod 1 loses its power", ("node_lost",), (1,), plant=power_off(1)),
    Planted("of three, the node of pod 2 loses its power", ("node_lost",), (2,), plant=power_off(2), nodes=3),
    Planted("of four, the node of pod 1 loses its power", ("node_lost",), (1,), plant=power_off(1), nodes=4),
    Planted("the cable of pod 0's node is cut", ("node_lost",), (0,), plant=cut(0)),
    Planted("the cable of pod 1's node is cut", ("node_lost",), (1,), plant=cut(1)),
    Planted("of three, the cable of pod 1's node is cut", ("node_lost",), (1,), plant=cut(1), nodes=3),
    Planted("a drain evicts pod 0", ("evicted",), (0,), plant=evict(0)),
    Planted("a drain evicts pod 1", ("evicted",), (1,), plant=evict(1)),
    Planted("of three, a drain evicts pods 1 and 2", ("evicted",), (1, 2), plant=evict(1, 2), nodes=3),
    Planted("the node of pod 1 gets a NoExecute taint", ("evicted",), (1,), plant=taint(1)),
    Planted("of four, the node of pod 0 gets a NoExecute taint", ("evicted",), (0,), plant=taint(0), nodes=4),
    Planted("somebody deletes pod 0", ("preempted",), (0,), plant=delete(0)),
    Planted("of three, somebody deletes pod 2", ("preempted",), (2,), plant=delete(2), nodes=3),
    Planted("somebody deletes pod 1 without grace", ("preempted",), (1,), plant=delete(1, grace_period_seconds=0)),
    Planted("a pod of higher priority takes pod 1's GPU", ("preempted",), (1,), plant=preempt(1), profile=ONE_GPU),
    Planted("a pod of higher priority takes pod 0's GPU", ("preempted",), (0,), plant=preempt(0), profile=ONE_GPU),
    code(0, "memory", "rank 0 takes more memory than its pod has", "out_of_memory"),
    code(1, "memory", "rank 1 takes more memory than its pod has", "out_of_memory"),
    code(2, "memory", "of three, rank 2 takes more memory than its pod has", "out_of_memory", 3),
    code(1, "shm", "/dev/shm of pod 1 is full", "out_of_shm"),
    code(0, "shm", "/dev/shm of pod 0 is full", "out_of_shm"),
    code(0, "raise no such column: price", "rank 0 raises"),
    code(1, "raise no such column: price", "rank 1 raises"),
    code(3, "raise no such column: price", "of four, rank 3 raises", "code", 4),
    code(1, "exit 3", "rank 1 exits with 3"),
    Planted(
        "the loss is NaN, in all ranks", ("code",), (0, 1), "*:lease; steps 20 0.2; raise the loss is nan in step 20"
    ),
    code(1, "signal 9", "SIGKILL to rank 1", "killed"),
    Planted("SIGKILL to the agent of pod 0", ("killed",), (0,), plant=kill(0, signal.SIGKILL)),
    code(1, "idle", "rank 1 does nothing any more", "hung"),
    code(0, "idle", "rank 0 does nothing any more", "hung"),
    Planted("SIGSTOP to all processes of pod 1", ("hung",), (1,), plant=stop_ranks(1)),
    Planted("pod 1 is cut off from pod 0, and from nothing else", ("hung", "peers_lost"), (), plant=part(1)),
    Planted("of three, pod 2 is cut off from the others", ("hung", "peers_lost"), (), plant=part(2), nodes=3),
    Planted(
        "the API is away for 40 s, and rank 1 raises meanwhile",
        ("code",),
        (1,),
        "*:lease; steps 2000 0.2|1:steps 50 0.2; wait go; raise no such column: price",
        plant=then(put("go"), api_away(40)),
    ),
    Planted(
        "the API is away for 20 s, and nothing else", ("finished",), (), "*:lease; steps 200 0.2; report", api_away(20)
    ),
    Planted(
        "the kubelet of pod 1's node stands still, and the step goes on",
        ("finished",),
        (),
        "*:lease; steps 400 0.2; report",
        stop_kubelet(1),
    ),
    Planted("a quota allows one pod of two", ("admission",), before=quota(pods="1")),
    Planted(
        "of three, the last node cannot pull the image",
        ("image",),
        ("node-3",),
        before=no_image(),
        nodes=3,
        profile=ONE_GPU,
    ),
    Planted("four pods want a GPU each, and three nodes have one", ("incomplete",), nodes=4, profile=ONE_GPU),
]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one.

    Attributes:
        said: the launcher, of the first attempt.
        took_s: from the plant to the record.
        paid_s: what the ledger counts of all pods, in seconds.
        ran_s: what the nodes' own record says.
    """

    what: str
    right: tuple[str, ...]
    reason: str
    said: str
    is_right: bool
    took_s: float
    paid_s: float
    ran_s: float


def write(line: Line, path: Path) -> None:
    with path.open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


def measures(lines: list[Line]) -> list[Measure]:
    newest = {line.what: line for line in lines}
    shown = [newest[item.what] for item in ENDINGS if item.what in newest]
    losses = [line for line in shown if is_loss(line.reason)]
    hours = {
        "losses": losses,
        "losses without nodes whose cable was cut": [line for line in losses if "cable" not in line.what],
        "all endings": shown,
    }

    def wrong(line: Line) -> str:
        return "" if line.is_right else f"; wrong: {line.reason}"

    return [
        Measure(f"endings whose class is right, of {len(shown)}", sum(line.is_right for line in shown)),
        *(
            Measure(
                f"{name}: the ledger's seconds, % more or less than the nodes'",
                (sum(line.paid_s for line in some) / sum(line.ran_s for line in some) - 1) * 100,
            )
            for name, some in hours.items()
        ),
        *(
            Measure(
                f"{line.what} ({' or '.join(line.right)}{wrong(line)}): s",
                line.took_s,
                peers={"paid": line.paid_s, "ran": line.ran_s},
            )
            for line in shown
        ),
    ]


def is_loss(reason: str) -> bool:
    """Return whether a class is a loss, which the launcher makes good by another attempt."""
    return any(item.name == reason and item.is_loss for item in failures.FAILURES)


def main() -> None:
    """Keep the figures from the lines that `test_gang_endings.py` left in a file: `... gang_endings FILE`."""
    lines = [msgspec.json.decode(line, type=Line) for line in Path(sys.argv[1]).read_bytes().splitlines()]
    command = "make cluster-test ARGS=tests/cluster/test_gang_endings.py"
    harness.write(command, [measure.line("gangs") for measure in measures(lines)])


if __name__ == "__main__":
    main()
