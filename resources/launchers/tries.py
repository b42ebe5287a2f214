"""Try a step until it ends well or another try is of no use, and leave one record of each try.

Belongs here: what all launchers share. Does not belong here: what a failure means for the next try (`endings.py`), what
a record says (`records.py`), or how a step is started (`local.py`, `kubernetes.py`).
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import ClassVar

import dagster as dg
import msgspec

from platform_assets import libraries, profiles
from platform_assets.failures import CODE, LOST, NODE_LOST, Budget
from platform_assets.problems import LedgerProblem
from platform_assets.profiles import StepProfile
from platform_assets.records.attempts import Launch
from platform_assets.records.values import text
from platform_assets.settings import Settings
from resources.launchers import pipes, records
from resources.launchers.attempt import Attempt, Seen
from resources.launchers.endings import LONGEST_PAUSE_S, Ending, Try, Work, first_try, next_try

RESULT = "result"


class StepFailure(dg.Failure):
    """A step that ended without a result.

    Attributes:
        kind: the class of its last failure.
        exit_code: of its process; negative for a signal; None when there was none or nobody saw it.
        last_lines: what it wrote last.
    """

    def __init__(self, module: str, ending: Ending, last_lines: list[str], tries: int = 1) -> None:
        assert ending.failure is not None
        self.kind = ending.failure.name
        self.exit_code = ending.exit_code
        self.last_lines = last_lines
        text = "\n".join(last_lines) or "(it wrote nothing)"
        code = "" if ending.exit_code is None else f" (exit code {ending.exit_code})"
        super().__init__(
            description=f"{module} failed, {ending.failure.sentence}: {ending.said}{code}. It wrote last:\n{text}",
            metadata={
                "failure_kind": self.kind,
                "exit_code": "none" if ending.exit_code is None else ending.exit_code,
                "tries": tries,
                "last_lines": dg.MetadataValue.md(f"```\n{text}\n```"),
            },
            allow_retries=False,
        )


class Unattended(dg.Failure):
    """Nobody can be asked about a step that may be at work: it is left alone, and no record says that it ended."""


@dataclass(frozen=True)
class Asked:
    """A step that is asked for: what `StepLauncher.run` is told, and its next try."""

    context: dg.AssetExecutionContext
    module: str
    extras: object
    work: Work | None
    plan: Try


class StepLauncher(dg.PipesClient):
    """What every launcher offers: run a step's module, wait, return its result."""

    def run(  # type: ignore[override]  # a step's result is one JSON object, not a stream of Dagster's events
        self,
        *,
        context: dg.AssetExecutionContext,
        module: str,
        extras: object = None,
        profile: StepProfile | None = None,
        work: Work | None = None,
    ) -> object:
        """Run `python -m {module}` and return the payload of its last custom message of kind `result`, as JSON values.

        Args:
            context: of the asset that waits; the step's log lines and Pipes messages appear in its run.
            module: `platform_assets.steps.train`.
            extras: what the step is told: members by name, as JSON values.
            profile: the size to run in.
            work: what it is for; without it no record is left, and no try that is under way is found again.

        Raises:
            StepFailure: the step ended without a result, after the tries that its kinds of end allow.
        """
        plan = first_try(profile or profiles.profile("cpu_small"))
        return self.run_step(Asked(context, module, extras, work, plan))

    @abstractmethod
    def run_step(self, asked: Asked) -> object:
        """Do as `run` says."""

    def libraries(self) -> dict[str, str]:
        """Return the versions of the libraries that make bytes, where a step would run."""
        return libraries.installed()


class TryingLauncher(StepLauncher):
    """Tries a step as often as the budgets of its failures allow; a subclass says how one try is made.

    Attributes:
        name: for records.
        lost: the budget of losses.
        longest_pause_s: between two tries.
    """

    name: ClassVar[str]
    lost: Budget = LOST
    longest_pause_s: float = LONGEST_PAUSE_S

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def attempt(self, this: Attempt) -> Ending:
        """Start the step, wait for its end and say how it ended; leave nothing of it running, even on an exception."""

    def sessions(
        self, context: dg.AssetExecutionContext, extras: object, launch: Launch
    ) -> AbstractContextManager[dg.PipesSession]:
        """Open what a step is told and how it answers."""
        return pipes.session(context, extras, launch, self.settings)

    def under_way(self, context: dg.AssetExecutionContext, work: Work) -> Launch | None:
        """Return an attempt at this work that outlived the run which began it; it is taken over."""
        return None

    def announce(self, work: Work, launch: Launch) -> None:
        """Take note of an attempt before it starts, where it may end without anybody who sees it."""

    def clear(self, context: dg.AssetExecutionContext, launch: Launch, ending: Ending) -> None:
        """Take away what is left of an attempt, once its record is written."""

    def run_step(self, asked: Asked) -> object:
        context, work, past = asked.context, asked.work, list[tuple[Try, Ending]]()
        launch = self.under_way(context, work) if work else None
        if launch is not None:
            plan = Try(profile=profiles.profile(launch.profile), memory_gb=launch.memory_gb)
            asked = replace(asked, plan=plan)
        while True:
            time.sleep(asked.plan.pause_s)
            seen = Seen()
            if launch is None:
                launch = records.begun(work, asked.plan, run_id=context.run.run_id, launcher=self.name)
                if work is not None:
                    self.announce(work, launch)
            ending, result = self._tried(asked, launch, seen)
            launch = None
            if result is not None:
                return result
            past.append((asked.plan, ending))
            failure = StepFailure(asked.module, ending, list(seen.last_lines), len(past))
            following = next_try(past, lost=self.lost, longest_pause_s=self.longest_pause_s)
            if following is None:
                raise failure
            asked = replace(asked, plan=following)
            context.log.warning(f"{failure.description}\nIt is tried again: {following.why}.")

    def _tried(self, asked: Asked, launch: Launch, seen: Seen) -> tuple[Ending, object]:
        context = asked.context
        try:
            with self.sessions(context, asked.extras, launch) as session:
                this = Attempt(
                    context=context, session=session, module=asked.module, plan=asked.plan, launch=launch, seen=seen
                )
                ending = self.attempt(this)
            messages = session.message_handler.get_custom_messages()
            result = result_of(messages) if ending.failure in (None, NODE_LOST) else None
        except Unattended:
            raise
        except BaseException as error:
            # Whatever it was, Dagster's own interruption too: the step has ended, and is to be paid for.
            ending = Ending(failure=None, said=_named(error), asked_at=seen.asked_at, ended_at=seen.ended_at)
            self._record(asked, launch, ending, seen, reason="cancelled")
            raise
        if result is not None and ending.failure is not None:
            ending = replace(ending, failure=None, said=f"{ending.said}; the step had reported its result")
        if ending.failure is None and result is None:
            ending = Ending(
                failure=CODE,
                said="it ended without an error and reported no result",
                exit_code=ending.exit_code,
                started_at=ending.started_at,
                ended_at=ending.ended_at,
            )
        self._record(asked, launch, ending, seen, result=result)
        self.clear(context, launch, ending)
        return ending, result

    def _record(
        self,
        asked: Asked,
        launch: Launch,
        ending: Ending,
        seen: Seen,
        *,
        result: object = None,
        reason: str | None = None,
    ) -> None:
        if (work := asked.work) is None:
            return
        try:
            reported = None if result is None else msgspec.convert(result, records.Reported)
            where, started_at = seen.where, seen.started_at
            records.write(self.settings, work, launch, ending, where, started_at, result=reported, reason=reason)
        except LedgerProblem as problem:
            if result is not None:
                raise
            asked.context.log.error(f"the record of attempt {launch.id} could not be written: {problem}")


def result_of(messages: Sequence[object]) -> object:
    """Return the last of a step's custom messages that is a result, or None."""
    return next((each for each in reversed(messages) if text(each, "kind") == RESULT), None)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ").splitlines()[0]
