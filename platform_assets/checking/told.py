"""Turn what goes wrong in a product's own functions into sentences that name function, trouble and file.

Belongs here: how problems are told, and that nothing of a product's own code escapes otherwise. Does not belong here:
what is looked at (`trial`, `files`, `rows`, `monitored`, `requests`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any, Literal, TypeVar

import polars as pl

from platform_assets import problems
from platform_assets.compute.landed import UnreadableFile
from platform_assets.compute.validate import WrongColumns
from platform_assets.product.recording import RecordingMissing
from platform_assets.specs.base import FeatureTables, ProductSpec

Result = TypeVar("Result")
State = Literal["ok", "skipped", "problem"]
WORDS: dict[State, str] = {"ok": "ok", "skipped": "skipped", "problem": "PROBLEM"}
"""As they stand at the beginning of a line."""
DELIVER = "deliver()"
A_FRAME = "a polars DataFrame"
_FAILURES = (Exception, pl.exceptions.PanicException)
"""What a product's function may raise; a panic of polars is no `Exception`."""


class Problem(problems.Problem, ValueError):
    """What is wrong with a product's file, as a sentence."""


class Skipped(problems.Problem, ValueError):
    """What cannot be tried with what is at hand, as a sentence; no mistake in the product's file."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one check found.

    Attributes:
        what: was looked at, such as `source weather`.
        said: facts, or the sentence of a problem.
        state: `skipped` where what the check needs is not there, which is not a mistake in the product's file.
    """

    what: str
    said: str
    state: State = "ok"

    @property
    def is_problem(self) -> bool:
        """Whether the product's file has to be mended."""
        return self.state == "problem"


class SampleTables(FeatureTables):
    """The tables that `features` gets from the platform; what they refuse is a `Problem`."""

    def __missing__(self, name: str) -> pl.DataFrame:
        """Raise `Problem`: the label, or a source that is not there."""
        try:
            return super().__missing__(name)
        except ValueError as problem:
            raise Problem(f"{problem} The file is {file_of(self._product)}.") from None


def line_of(spec: ProductSpec, what: str, step: Callable[..., str], *given: Any) -> Line:
    """Return what a check says, or the sentence with which it refuses."""
    try:
        return Line(what=what, said=_facts_of(spec, what, step, *given))
    except RecordingMissing as missing:
        return Line(what=what, said=f"cannot be read here: {missing}", state="skipped")
    except Skipped as problem:
        return Line(what=what, said=str(problem), state="skipped")
    except ValueError as problem:
        return Line(what=what, said=str(problem), state="problem")


def own(spec: ProductSpec, whose: str, call: Callable[..., Result], *given: Any) -> Result:
    """Call a function of the product's file; whatever it raises becomes a `Problem`.

    A recording that is missing stays what it is, in `deliver` alone: nothing else may need one.
    """
    try:
        return call(*given)
    except (Problem, UnreadableFile, WrongColumns):
        raise
    except _FAILURES as problem:
        if whose == DELIVER and isinstance(problem, RecordingMissing):
            raise
        raise Problem(
            f"{whose} of {spec.name} fails with {type(problem).__name__}: {first_line(problem)}. "
            f"{mend_of(spec).removesuffix('.')}{_line_in(spec, problem)}."
        ) from problem


def own_frame(spec: ProductSpec, whose: str, call: Callable[..., pl.DataFrame], *given: Any) -> pl.DataFrame:
    """Call a function of the product's file that must return a frame."""
    found: object = own(spec, whose, call, *given)
    if not isinstance(found, pl.DataFrame):
        how = " (`.collect()` makes one)" if isinstance(found, pl.LazyFrame) else ""
        raise another(spec, whose, found, A_FRAME + how)
    return found


def another(spec: ProductSpec, whose: str, found: object, expected: str) -> Problem:
    """Return the problem that a function returns something else than expected."""
    came = "None: is a `return` forgotten? Expected" if found is None else f"{type(found).__name__}; expected"
    return Problem(f"{whose} of {spec.name} returns {came} {expected}. {mend_of(spec)}")


def first_line(problem: BaseException) -> str:
    """Return the beginning of a message, to stand in a sentence."""
    return str(problem).partition("\n")[0].rstrip(".")


def file_of(product: str) -> str:
    """Return the place of a product's file, as a person knows it."""
    return f"platform_assets/specs/{product}.py"


def _line_in(spec: ProductSpec, problem: BaseException) -> str:
    """Return the line of the product's file that failed, as the end of a sentence; nothing for one outside of it."""
    frames = extract_tb(problem.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).name == f"{spec.name}.py"]
    return f", line {lines[-1]}" if lines else ""


def mend_of(spec: ProductSpec) -> str:
    """Return the end of a sentence: which file to mend."""
    return f"Mend it in {file_of(spec.name)}."


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 field`, `1,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _facts_of(spec: ProductSpec, what: str, step: Callable[..., str], *given: Any) -> str:
    """Take a check; what no sentence was foreseen for becomes one that says where it happened."""
    try:
        return step(*given)
    except ValueError:
        raise
    except _FAILURES as problem:
        raise Problem(
            f"the check {what!r} of {spec.name} ends with {type(problem).__name__}: {first_line(problem)}. It works "
            f"with what {file_of(spec.name)} returns; look there for what it may have tripped over."
        ) from problem
