"""Try a bundle in a process of its own, which can be killed: `python -m platform_assets.serving.follow.candidate`.

A graph is a program: loading it may crash, take any memory, or never end. Only a bundle that was loaded and warmed
there, and gave the expected answers to its golden rows, is loaded by a worker. Before a release it also answers logged
requests there (`logged`). The process has a deadline, a limit of memory, a lower priority than the worker, and none of
its secrets; it writes no file and dies with the worker, but not of the worker's SIGTERM, after which a worker may go on
serving for a while. Its deadline counts CPU, so that a good model is not refused on a busy machine, and the clock
`PATIENCE` times as long.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from platform_assets.base import private_folders, settings
from platform_assets.serving.follow.background import Overdue
from platform_assets.serving.follow.logged_requests import Answered, Logged
from platform_assets.serving.run.event_loop import HUNG_S
from platform_assets.training.sealed import ModelProblem, Sealed

MODULE = "platform_assets.serving.follow.candidate"
BYTES_MAX = 512 * 2**20  # by SHARE_OF_BLOBS, of files of 128 MiB
SHARE_OF_BLOBS = 4
"""Blobs may have a quarter of the memory: they are held as received, as parsed and as loaded."""
PATIENCE = 6  # a good model's trial got less than a third of a busy processor
_NICENESS = 5
_PR_SET_PDEATHSIG = 1
_MESSAGE_MAX = 600
_OVERDUE = (signal.SIGXCPU, signal.SIGPROF)
"""Signals by which the kernel ends the process for its CPU time: in all, and for one request."""


class TrialProblem(ModelProblem):
    """A trial that did not take place, or that the kernel ended for others' sake: it is worth another."""


class Starved(Overdue):
    """A trial that had too little of a processor: the clock ended it, and its CPU time may have been enough."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One line that the process prints: what it begins, or how it ended.

    Attributes:
        begins: loading, warming, answering.
        request: the places of the logged rows that it answers next, in one request or one turn.
        problem: why the bundle cannot be served.
        good: the digest of the bundle, when it can be.
        answered: how logged requests were answered, where that was asked.
    """

    begins: str | None = None
    request: list[int] | None = None
    problem: str | None = None
    good: str | None = None
    answered: Answered | None = None


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What the process reads: the bundle to try, and logged requests to ask it."""

    sealed: Sealed
    logged: Logged | None = None


class Trial:
    """Tries bundles, one at a time per machine."""

    def __init__(self, seconds: float, bytes_max: int = BYTES_MAX, lock: Path | None = None) -> None:
        """Prepare.

        Args:
            seconds: of CPU after which the process is killed.
            bytes_max: memory that loading and warming may take.
            lock: a file that the workers of a machine share, so that they do not take the memory several times.
        """
        self.seconds = seconds
        self.bytes_max = bytes_max
        self._lock = lock
        self._good: set[str] = set()

    @property
    def blob_bytes_max(self) -> int:
        """The largest accepted sum of a bundle's blobs for serving."""
        return self.bytes_max // SHARE_OF_BLOBS

    def __call__(self, sealed: Sealed) -> None:
        """Return if the bundle can be served. Costs about half a CPU second; nothing for a bundle that passed before.

        Raises:
            ModelProblem: it cannot be loaded, or answers wrongly, or the process took too much memory or crashed.
            Overdue: it was killed at the deadline.
        """
        if sealed.digest not in self._good:  # so a rollback to a model that passed waits for no process
            self._run(Question(sealed=sealed))
            self._good.add(sealed.digest)

    def ask(self, sealed: Sealed, logged: Logged) -> Answered:
        """Return how a bundle answers logged requests. Costs what `__call__` does, and twice the CPU of the rows.

        Raises:
            ModelProblem: it cannot be loaded, or an answer is not valid, or the process took too much memory or
                crashed; the message has the row.
            Overdue: it took too much CPU; the message has the row.
            TrialProblem, Starved: nothing is known about the bundle; worth another trial.
        """
        last = self._run(Question(sealed=sealed, logged=logged))
        assert last.answered is not None  # printed together with `good`
        return last.answered

    def _run(self, question: Question) -> Report:
        """Return the last report of a process that found a bundle good."""
        digest, logged = question.sealed.digest, question.logged
        seconds = self.seconds + (0.0 if logged is None else logged.cpu_s_max)
        with _locked(self._lock, PATIENCE * seconds):
            # Bento's process manager sends SIGTERM to a worker's children too; what is blocked here is blocked there.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", MODULE, *map(str, (os.getpid(), self.bytes_max, seconds))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=settings.bare_environment(),
                    start_new_session=True,
                )
            except OSError as problem:
                raise TrialProblem(f"bundle {digest}: no process to try it could be started: {problem}.") from problem
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            try:
                printed, errors = process.communicate(msgspec.msgpack.encode(question), timeout=PATIENCE * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                printed, errors = process.communicate()
                raise Starved(
                    f"bundle {digest} was still {_last(printed, logged)[1]} after {PATIENCE * seconds:g} s, "
                    f"{seconds:g} s of CPU or less; its process was killed."
                ) from None
            finally:
                process.kill()
                process.wait()
        status, (last, stage) = process.returncode, _last(printed, logged)
        if status == 0 and last.good == digest:
            return last
        if last.problem is not None:
            raise ModelProblem(f"{last.problem} It was {stage}." if last.request else last.problem)
        if -status in _OVERDUE:
            taken_s = HUNG_S if -status == signal.SIGPROF else seconds
            raise Overdue(f"bundle {digest} was still {stage} after {taken_s:g} s of CPU; its process was killed.")
        how = f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
        error = (errors.decode(errors="replace").strip().splitlines() or ["nothing on its error output"])[-1]
        # What the kernel did is worth another try soon.
        kind = TrialProblem if status == -signal.SIGKILL else ModelProblem
        raise kind(
            f"bundle {digest}: the process that tried it {how} while {stage} ({error:.200}); it had {self.bytes_max} "
            "bytes of memory."
        )


def _last(printed: bytes, logged: Logged | None) -> tuple[Report, str]:
    """Return the last report, with the request that was asked last, and the last stage that was begun."""
    last, stage, request = Report(), "starting", None
    for line in printed.splitlines():
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):  # a killed process ends in mid-line
            last = msgspec.json.decode(line, type=Report)
            stage, request = last.begins or stage, last.request or request
    if logged is not None and request:
        stage = f"{stage} {logged.describe(request)}"
    return msgspec.structs.replace(last, request=request), stage


@contextlib.contextmanager
def _locked(path: Path | None, seconds: float) -> Iterator[None]:
    """Hold a lock file; after `seconds`, or where it cannot be written, go on without it."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            if path is not None:
                private_folders.make_folder(path.parent)
                lock, deadline = stack.enter_context(path.open("ab")), time.monotonic() + seconds
                while time.monotonic() < deadline:  # flock itself has no time limit
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        time.sleep(0.05)
        yield


def main(parent: int, bytes_max: int, seconds: float) -> None:
    """Try the bundle on standard input, and report on standard output."""
    # It dies with the parent, gives way to it, is the first to go when memory is short, and writes no files.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):  # a container may forbid it
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if os.getppid() != parent:  # it ended before this process could ask for the signal
        raise SystemExit("the worker that asked for this ended")
    # A graph is a program: 40,000 levels end a process by SIGSEGV, a constant of 4 GB takes its memory.
    os.nice(_NICENESS)
    cpu_s = math.ceil(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))  # SIGXCPU, then SIGKILL a second later
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    from platform_assets.serving.answer.model import Model, problem_of
    from platform_assets.serving.follow.asking_logged import ask

    # What may be mapped in addition to interpreter and libraries, so after these were imported.
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) if sys.platform == "linux" else 0
    limit = pages * resource.getpagesize() + bytes_max
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    question = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Question)
    sealed, answered = question.sealed, None
    try:
        _report(Report(begins="loading"))
        model = Model.from_blobs(sealed)
        _report(Report(begins="warming"))
        model.warm()
        if question.logged is not None:
            answered = ask(model, question.logged, lambda places: _report(Report(begins="answering", request=places)))
    except Exception as problem:  # a graph may fail in any way; it is named to the worker
        sentence = " ".join(str(problem_of(sealed.digest, problem)).split())
        _report(Report(problem=sentence[:_MESSAGE_MAX]))
        raise SystemExit(1) from problem
    _report(Report(good=sealed.digest, answered=answered))


def _report(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()  # a killed process must have said how far it came


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
