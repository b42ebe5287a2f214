"""Try a step until it succeeds or another try is useless, and leave one record per try.

This is what all launchers share, from top to bottom: `run`, `run_step`, and `attempt`, which calls the launcher's own
`run_to_end`. `endings.py` decides about the next try.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import ClassVar

import dagster as dg
import msgspec

from platform_assets.base.failures import CODE, LOST, Budget
from platform_assets.base.problems import LedgerProblem
from platform_assets.base.settings import Settings
from platform_assets.engine.outside import Work
from platform_assets.launch import pipes, profiles, records
from platform_assets.launch.attempt import Launched, Observation, Prepared, StepRequest, new
from platform_assets.launch.endings import LONGEST_PAUSE_S, Ending, Try, first_try, next_try
from platform_assets.launch.profiles import StepProfile
from platform_assets.store.records.attempts import EXPORT, TRIAL
from platform_assets.store.records.values import text
from platform_assets.training import libraries

RESULT = "result"


class StepFailure(dg.Failure):
    """A step that ended without a result.

    Attributes:
        kind: the class of its last failure.
        exit_code: of its process; negative for a signal; None if it had none or nobody saw it.
        last_lines: the last lines that it wrote.
    """

    def __init__(self, module: str, ending: Ending, last_lines: list[str], tries: int = 1) -> None:
        assert ending.failure is not None
        self.kind = ending.failure.name
        self.exit_code = ending.exit_code
        self.last_lines = last_lines
        text = "\n".join(last_lines) or "(no output)"
        code = "" if ending.exit_code is None else f" (exit code {ending.exit_code})"
        super().__init__(
            description=(
                f"{module} failed, {ending.failure.sentence}: {ending.evidence}{code}. Its last output:\n{text}"
            ),
            metadata={
                "failure_kind": self.kind,
                "exit_code": "none" if ending.exit_code is None else ending.exit_code,
                "tries": tries,
                "last_lines": dg.MetadataValue.md(f"```\n{text}\n```"),
            },
            allow_retries=False,  # the budgets are used up; Dagster would begin anew
        )


class Unattended(dg.Failure):
    """A step may be at work, but the API cannot be asked: it is left alone, and no record says that it ended."""


class NotReady(dg.Failure):
    """The launcher cannot run the step here; nothing was started."""

    def __init__(self, sentence: str) -> None:
        super().__init__(description=f"{sentence} Nothing was started.", allow_retries=False)


class StepLauncher(dg.PipesClient):
    """The interface of every launcher: run a step's module, wait, return its result.

    Attributes:
        spans_nodes: whether it runs a step on all nodes of its profile.
        of_several_nodes: the launcher that does, if this one does not; None if there is none.
    """

    spans_nodes: ClassVar[bool] = False
    of_several_nodes: StepLauncher | None = None

    def run(  # type: ignore[override]  # a step's result is one JSON object, not a stream of Dagster's events
        self,
        *,
        context: dg.AssetExecutionContext,
        module: str,
        extras: object = None,
        profile: StepProfile | None = None,
        work: Work | None = None,
        is_shared: bool = False,
        withdrawn: threading.Event | None = None,
    ) -> object:
        """Run `python -m {module}` and return the payload of its last custom message of kind `result`, as JSON values.

        Args:
            context: of the asset that waits; the step's log lines and Pipes messages appear in its run.
            module: such as `platform_assets.launch.train`.
            extras: the step's input: JSON values by name.
            profile: the size to run in.
            work: what it is for; without it there is no record, and a try under way is not found again.
            is_shared: whether the profile's processes share it, by torchrun; otherwise it is one process on one node.
            withdrawn: another thread sets it to stop the step, as a run that is interrupted does; the call ends with
                `KeyboardInterrupt`.

        Raises:
            NotReady: the step would need several nodes.
            StepFailure: the step ended without a result, after the tries that its failure classes allow.
        """
        size = profile or profiles.profile("cpu_small")
        launcher: StepLauncher = self
        if size.nodes > 1 and not is_shared:
            size = size.replace(nodes=1)
        if size.nodes > 1 and not self.spans_nodes:
            if self.of_several_nodes is None:
                raise NotReady(
                    f"Profile {size.name} has nodes={size.nodes}, and {type(self).__name__} starts a step on one node; "
                    "expected 1. Use a profile with more accelerators on one node, or the launcher kubernetes."
                )
            launcher = self.of_several_nodes
        withdrawn = withdrawn or threading.Event()
        return launcher.run_step(StepRequest(context, module, extras, work, first_try(size), is_shared, withdrawn))

    @abstractmethod
    def run_step(self, request: StepRequest) -> object:
        """Run a step as `run` describes."""

    def size(self, profile: str) -> StepProfile:
        """Return the profile of this name."""
        return profiles.profile(profile)

    def libraries(self, size: StepProfile) -> dict[str, str]:
        """Return the versions of the libraries that determine a step's bytes, where a step of this size would run."""
        del size
        return libraries.installed()


class TryingLauncher(StepLauncher):
    """Tries a step as often as the budgets of its failures allow; a subclass makes one attempt.

    Attributes:
        name: for records.
        outlives_runs: whether a step and its session's files may outlive this process.
        lost: the budget of losses.
        longest_pause_s: between two tries.
    """

    name: ClassVar[str]
    outlives_runs: ClassVar[bool] = False
    lost: Budget = LOST
    longest_pause_s: float = LONGEST_PAUSE_S

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def run_to_end(self, launched: Launched) -> AbstractContextManager[Ending]:
        """Start the step, wait for it and yield how it ended; leave nothing running, even on an exception.

        Once the attempt is on record the block ends, and what is left of it is deleted.
        """

    def find(self, request: StepRequest, prepared: Prepared) -> tuple[StepRequest, Prepared]:
        """Return an attempt at the step that outlived its run, with the request in its size.

        If there is none, return the prepared one, or raise where no try can be made here: nothing is on record yet.
        """
        return request, prepared

    def run_step(self, request: StepRequest) -> object:
        """Make attempts until one has a result or another one is useless."""
        context, past = request.context, list[tuple[Try, Ending]]()
        request.pause(request.plan.pause_s)
        request, prepared = self.find(request, new(self.settings.root, request, self.name))
        while True:
            if request.work is not None and prepared.messages is None:
                report_save_time(context.log, self.settings, request.work, request.plan.profile)
            observation, ending, result = self.attempt(request, prepared)
            if result is not None:
                return result
            past.append((request.plan, ending))
            failure = StepFailure(request.module, ending, list(observation.last_lines), len(past))
            following = next_try(past, lost=self.lost, longest_pause_s=self.longest_pause_s)
            if following is None:
                raise failure
            context.log.warning(f"{failure.description}\nTrying again: {following.reason}.")
            request = replace(request, plan=following)
            request.pause(following.pause_s)
            prepared = new(self.settings.root, request, self.name)

    def attempt(self, request: StepRequest, prepared: Prepared) -> tuple[Observation, Ending, object]:
        """Take one attempt from its launch to its record; return both, and its step's result, None if it failed.

        One that ends with an exception is on record as cancelled, unless it is `Unattended`: then it goes on.
        """
        observation = Observation()
        if self.outlives_runs and request.work is not None and prepared.messages is None:
            records.announce(prepared)  # this process may be killed before the step ends
        with ExitStack() as until_recorded:
            try:
                with pipes.session(request, prepared, self.settings, is_lasting=self.outlives_runs) as session:
                    launched = Launched(prepared=prepared, request=request, session=session, observation=observation)
                    ending = until_recorded.enter_context(self.run_to_end(launched))
            except Unattended:
                raise
            except BaseException as error:
                # Including Dagster's own interruption: the step has ended and must be paid for.
                is_interruption = isinstance(error, KeyboardInterrupt | dg.DagsterExecutionInterruptedError)
                reason = f"the run failed: {(str(error) or type(error).__name__).splitlines()[0]}"
                ending = Ending(
                    failure=None,
                    evidence="the run was interrupted" if is_interruption else reason,
                    asked_at=observation.asked_at,
                    ended_at=observation.ended_at,
                )
                _record(request, prepared, observation, ending, reason="cancelled")
                raise
            # The session is closed, so all messages are here. A loss does not undo a result that was reported before
            # it, or within the grace period; nor does anything that only others say of a process that ended with 0.
            has_worked = ending.failure is None or ending.failure.is_loss or ending.exit_code == 0
            messages = reversed(session.message_handler.get_custom_messages()) if has_worked else ()
            result: object = next((message for message in messages if text(message, "kind") == RESULT), None)
            if result is not None and ending.failure is not None:
                ending = replace(ending, failure=None, evidence=f"{ending.evidence}; the step had reported its result")
            if ending.failure is None and result is None:
                ending = replace(ending, failure=CODE, evidence="it ended without an error and reported no result")
            _record(request, prepared, observation, ending, result=result)
        return observation, ending, result


def _record(
    request: StepRequest,
    prepared: Prepared,
    observation: Observation,
    ending: Ending,
    *,
    result: object = None,
    reason: str | None = None,
) -> None:
    if request.work is None:
        return
    try:
        reported = None if result is None else msgspec.convert(result, records.Reported)
        location, started_at = observation.location, observation.started_at
        records.write(prepared, ending, location, started_at, result=reported, reason=reason)
    except LedgerProblem as problem:
        if result is not None:
            raise
        request.context.log.error(f"the record of attempt {prepared.launch.id} could not be written: {problem}")


def report_save_time(log: dg.DagsterLogManager, settings: Settings, work: Work, size: StepProfile) -> None:
    """Warn when an earlier attempt's save took longer than the profile leaves; where none was measured, say so."""
    if work.step in (EXPORT, TRIAL):
        return  # they make no saves
    longest_s = records.longest_save_s(settings, work)
    if longest_s is None and size.is_spot:
        log.info(
            f"no save of step {work.step} has been measured yet; profile {size.name} leaves {size.save_s:g} s for one "
            "when the step is stopped. The first save says how long it takes."
        )
    elif longest_s is not None and longest_s > size.save_s:
        log.warning(
            f"a save of step {work.step} has taken {longest_s:.1f} s, and profile {size.name} leaves {size.save_s:g} s "
            "for one when the step is stopped: the work since the save before will be lost. Use nodes with a longer "
            f"notice, or on demand{'' if size.save_s < size.grace_s else ', or raise the grace_s of the profile'}."
        )
