"""Watch a fit of any learner: its lease, its saves, requests to stop, and one line per point of its curve."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from platform_assets.base.problems import LedgerProblem
from platform_assets.base.settings import Settings
from platform_assets.base.wording import counted
from platform_assets.product.learner import History, Resumable, finite
from platform_assets.store.leases import LeaseLost
from platform_assets.store.records.leases import BEAT_S
from platform_assets.store.records.trainings import WorldSizes, continued
from platform_assets.training.loop_state import Facts, LoopState
from platform_assets.training.steps import process
from platform_assets.training.steps.attempt import Attempt
from platform_assets.training.steps.jobs import Job
from platform_assets.training.steps.state import Saves, saves
from platform_assets.training.watchdog import SAVING

if TYPE_CHECKING:
    from platform_assets.training.process_group import ProcessGroup


@runtime_checkable
class Shareable(Protocol):
    """A fit whose steps several processes can share (`training.train.Loop`)."""

    def share(self, group: ProcessGroup) -> None:
        """Compute only this process's part of each step from now on."""


@dataclass(frozen=True)
class StepProgress:
    """Progress of a step's fit: see `product.learner.Progress`, and `training.steps.train.Training` for other members.

    Attributes:
        group: the processes that share the fit, of which this is the first; None for one alone.
        history: the training curve, a point per epoch or as often as the learner says.
        world_sizes: how many processes took the steps, of a fit that resumes.
    """

    job: Job
    settings: Settings
    log: Callable[[str], None]
    stop: process.StopRequest
    save_every_s: float | None
    on_step: Callable[[int, int], None]
    attempt: Attempt
    group: ProcessGroup | None = None
    history: History = field(default_factory=list)
    world_sizes: WorldSizes = field(default_factory=list)

    def note(self, done: int, steps: int, **measures: float) -> None:
        """Renew the lease, and keep measures as a point of the curve.

        Raises:
            Preempted: the step was asked to stop; nothing is saved.
            LeaseLost: another process has taken the lease.
            TrainingProblem: a measure is not a finite number.
        """
        if measures:
            self.history.append({"epoch": done, **finite(measures, done, steps)})
            named = ", ".join(f"{name.replace('_', ' ')} {value:.5f}" for name, value in measures.items())
            self.log(f"{done} of {steps}: {named}")
        # The last point of a blend's curve has a number of its own, below that of its steps.
        self.attempt.note(steps_done=max(done, self.attempt.facts.steps_done or 0))
        self.on_step(done, steps)
        self.stop.check()
        self.attempt.beat()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Renew the lease from a thread, while this one works in a library that says nothing.

        Raises:
            Preempted: the step was asked to stop meanwhile.
            LeaseLost: another process has taken the lease meanwhile.
        """
        is_over, problems = threading.Event(), list[Exception]()

        def renew() -> None:
            while not is_over.wait(BEAT_S):
                try:
                    self.attempt.beat()
                except (LeaseLost, LedgerProblem) as problem:  # raised in the fit's own thread
                    problems.append(problem)
                    return

        thread = threading.Thread(target=renew, name="renew the lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
        if problems:
            raise problems[0]
        self.stop.check()

    def take_steps(self, loop: Resumable) -> None:
        """Run a loop from its newest save to its end.

        Raises:
            Preempted: the step, or another process of its group, was asked to stop; the current step is saved.
            LeaseLost: another process has taken the lease.
            PeerLost: another process of the group is gone.
        """
        attempt, save_store = self.attempt, saves(self.settings, self.job.fingerprint)
        due_s = save_store.every_s if self.save_every_s is None else self.save_every_s
        save_store.claim(fence=attempt.fence)
        save, now = save_store.newest(), self.job.world_size
        if save is not None:
            loop.restore(save.state)
            self.log(f"resuming from step {loop.done} of {loop.steps}.")
        self.world_sizes.extend(continued([] if save is None else save.world_sizes, loop.done, now))
        if len(self.world_sizes) > 1 and self.world_sizes[-1] == (loop.done, now):
            before, after = (counted(size, "process") for _, size in self.world_sizes[-2:])
            self.log(f"until here by {before}, from here on by {after}: other roundings, and other draws of dropout.")
        if self.group is not None:
            _start_together(loop, self.group)
        attempt.note(resumed_from_step=loop.done, steps_done=loop.done, steps_saved=loop.done)
        with nullcontext() if self.group is None else self.group.watchdog.watching(loop.done):
            saved_at_s, is_due = time.perf_counter(), False
            while not loop.is_finished:
                # In one message: whether any process was asked to stop, so that all end after the same step, and
                # whether the first one saves.
                is_stopped, is_saving = self.stop.is_set, is_due
                if self.group is not None:
                    is_stopped, is_saving = self.group.is_any(is_stopped, is_saving)
                if is_stopped or is_saving:
                    self._save(loop, save_store)
                    saved_at_s = time.perf_counter()
                if is_stopped:
                    self.log(f"stopping on request: step {loop.done} of {loop.steps} is saved.")
                    raise process.Preempted
                epochs = len(loop.history)
                loop.step()
                if self.group is not None:
                    self.group.watchdog.step_ended(loop.done)
                attempt.note(steps_done=loop.done)
                self.on_step(loop.done, loop.steps)
                if len(loop.history) > epochs:
                    self.log(f"epoch {epochs + 1} of {loop.epochs}: train loss {loop.history[-1]['train_loss']:.5f}")
                is_due = loop.done == loop.steps or time.perf_counter() - saved_at_s >= due_s
                attempt.beat()
            if is_due:
                self._save(loop, save_store)
        self.history.extend(loop.history)

    def _save(self, loop: Resumable, save_store: Saves) -> None:
        """Save the current step, and say how long it took: at the first save, and when one takes too long."""
        attempt, began_s = self.attempt, time.perf_counter()
        with nullcontext() if self.group is None else self.group.watchdog.phase(SAVING):
            save_store.save(loop.state(), fence=attempt.fence, world_sizes=self.world_sizes)
        if self.group is not None:
            self.group.watchdog.went_on()
        took_s, longest_s, limit_s = time.perf_counter() - began_s, attempt.facts.save_s, attempt.facts.save_limit_s
        attempt.note(steps_saved=loop.done, save_s=round(max(took_s, longest_s or 0.0), 3))
        is_too_long = limit_s is not None and took_s > limit_s
        if longest_s is None or (is_too_long and longest_s <= (limit_s or 0.0)):
            leaves = "" if limit_s is None else f"; {limit_s:g} s are left for one when the step is stopped"
            self.log(f"a save took {took_s:.2f} s{leaves}{': too few' if is_too_long else ''}.")


@dataclass(frozen=True)
class FollowerProgress:
    """Progress of a fit in the processes other than the first, which alone has the lease, the saves and the log."""

    stop: process.StopRequest
    group: ProcessGroup
    history: History = field(default_factory=list)
    world_sizes: WorldSizes = field(default_factory=list)

    def note(self, done: int, steps: int, **measures: float) -> None:
        """Do nothing."""

    def busy(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def take_steps(self, loop: Resumable) -> None:
        """Run a loop from where the first process is to its end; it raises as `StepProgress.take_steps`."""
        _start_together(loop, self.group)
        watchdog = self.group.watchdog
        with watchdog.watching(loop.done):
            while not loop.is_finished:
                is_stopped, is_saving = self.group.is_any(self.stop.is_set)
                if is_stopped:
                    raise process.Preempted
                if is_saving:
                    watchdog.first_saves()
                loop.step()
                watchdog.step_ended(loop.done)


def _start_together(loop: Resumable, group: ProcessGroup) -> None:
    """Bring a loop to where that of the first process is, and share its steps from there."""
    assert isinstance(loop, Shareable)  # `requests.check_processes` refuses every other learner
    loop.share(group)
    state: LoopState = loop.state()
    data = group.first_bytes(state.to_bytes())
    facts = msgspec.json.decode(group.first_bytes(msgspec.json.encode(state.facts)), type=Facts)
    if group.rank:
        first = LoopState.of_bytes(data, facts)
        assert first is not None  # the first process made these bytes
        loop.restore(first)
