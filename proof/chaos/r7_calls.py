"""What callers of row R7 recorded: counts per phase, late answers, and the process that sends."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from platform_assets.base.settings import REPOSITORY
from proof.chaos.r7_load import TOO_LATE

TOLERANCE = 1e-6
REFUSED = 503
WINDOW_S = 5.0


class Call(NamedTuple):
    """One request and its repetition; times in seconds.

    Attributes:
        at: when it was sent, since 1970.
        late_s: by how much later than its turn it was sent.
        took_s: until its answer, or until the second attempt had failed.
        statuses: of each attempt; see r7_load.py for those below 100.
        digest: of the model that answered.
    """

    at: float
    late_s: float
    took_s: float
    statuses: list[int]
    digest: str | None
    probability: float | None

    @property
    def is_answered(self) -> bool:
        return self.statuses[-1] == 200


@dataclass(frozen=True)
class Counts:
    """What became of a phase's requests.

    Attributes:
        retried: requests that were sent twice.
        failed: requests whose repetition failed too.
        wrong: answers of a model that was not released, or with another number than that model's.
        p99_ms: of all requests, those that failed too.
        late_s: the most by which the sender was late.
        refused, too_late: attempts that a replica refused (503), and those without an answer in time.
    """

    sent: int
    answered: int
    retried: int
    failed: int
    wrong: int
    p99_ms: float
    late_s: float
    refused: int = 0
    too_late: int = 0

    def __str__(self) -> str:
        text = (
            f"{self.sent} sent, {self.answered} answered, {self.retried} retried, {self.failed} failed, "
            f"{self.wrong} wrong; p99 {self.p99_ms:.0f} ms"
        )
        if self.retried:
            text += f"; of the attempts {self.refused} refused, {self.too_late} too late"
        return text


def counts(calls: Sequence[Call], expected: Mapping[str, float]) -> Counts:
    """Return the counts of some requests.

    Args:
        expected: the answer of each model, by its digest.
    """
    if not calls:
        raise ValueError("no request was sent in this phase")
    answered = [call for call in calls if call.is_answered]
    statuses = Counter(status for call in calls for status in call.statuses)
    return Counts(
        sent=len(calls),
        answered=len(answered),
        retried=sum(len(call.statuses) > 1 for call in calls),
        failed=len(calls) - len(answered),
        wrong=sum(not _is_right(call, expected) for call in answered),
        p99_ms=p99_ms(calls),
        late_s=max(call.late_s for call in calls),
        refused=statuses[REFUSED],
        too_late=statuses[TOO_LATE],
    )


def _is_right(call: Call, expected: Mapping[str, float]) -> bool:
    number = expected.get(call.digest or "")
    return number is not None and call.probability is not None and abs(call.probability - number) < TOLERANCE


def p99_ms(calls: Sequence[Call]) -> float:
    """Return what 99 % of requests did not exceed."""
    took = sorted(call.took_s for call in calls)
    return 1000 * took[min(len(took) - 1, int(0.99 * len(took)))]


def seconds_above(calls: Sequence[Call], limit_ms: float) -> float:
    """Return the seconds of those windows of `WINDOW_S` in which the p99 was above a limit."""
    windows: dict[int, list[Call]] = {}
    for call in calls:
        windows.setdefault(int(call.at // WINDOW_S), []).append(call)
    return WINDOW_S * sum(p99_ms(window) > limit_ms for window in windows.values())


@dataclass
class Load:
    """The process that sends.

    Attributes:
        rate: requests per second now.
    """

    process: subprocess.Popen[str]
    records: Path
    rate: float = 0.0

    def set(self, address: str, rate: float) -> None:
        """Send to an address at a rate from now on."""
        assert self.process.stdin is not None
        place, self.rate = urlsplit(address), rate
        line = {"host": place.hostname, "port": place.port, "rate": rate}
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def calls(self, begin: float, end: float) -> list[Call]:
        """Return the requests that were sent between two moments and have ended."""
        lines = self.records.read_text(encoding="ascii").rpartition("\n")[0].splitlines()
        return [call for call in (Call(*json.loads(line)) for line in lines) if begin <= call.at < end]


@contextmanager
def sending(folder: Path) -> Iterator[Load]:
    """Run the process in this thread's network."""
    records = folder / "calls.jsonl"
    argv = [sys.executable, "-m", "proof.chaos.r7_load", str(records)]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdin=subprocess.PIPE, text=True) as process:
        load = Load(process, records)
        try:
            yield load
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(30)
            finally:
                process.kill()
