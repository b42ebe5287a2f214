"""Turn what goes wrong in a product's own functions into a message that names the function, the problem and the file.

No exception of a product's code leaves `driftline check` any other way.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any, Literal, TypeVar

import polars as pl

from platform_assets.base import problems
from platform_assets.data.landed import UnreadableFile
from platform_assets.data.validation import WrongColumns
from platform_assets.engine import product_files
from platform_assets.engine.digests import modules, reads
from platform_assets.product.recording import RecordingMissing
from platform_assets.product.spec import FeatureTables, Product
from platform_assets.store.host_rows import AssetProblem

Result = TypeVar("Result")
State = Literal["ok", "note", "skipped", "problem"]
LABELS: dict[State, str] = {"ok": "ok", "note": "note", "skipped": "skipped", "problem": "PROBLEM"}
"""Printed at the beginning of a line."""
DELIVER, CHANNEL = "deliver()", "the channel of"
FREE = (DELIVER, CHANNEL)
"""What may read any file begins so: what is delivered is stored, and needs no digest of where it came from."""
A_FRAME = "a polars DataFrame"
_FAILURES = (Exception, SystemExit, pl.exceptions.PanicException)
"""What a product's function may raise; a panic of polars is not an `Exception`, nor is the end of a script."""


class Problem(problems.Problem, ValueError):
    """Something wrong with a product's file; the message says what to fix."""


class Note(str):
    """The summary of a check, with something in it that is easily overlooked."""


class Skipped(problems.Problem, ValueError):
    """A check that cannot be done with the files that are available; the product's file is not at fault."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """The result of one check.

    Attributes:
        check: its name, such as `source weather`.
        message: facts, or what is wrong.
        state: `skipped` where files that the check needs are missing, which is not a mistake in the product's file;
            `note` for a consequence that is easily overlooked.
    """

    check: str
    message: str
    state: State = "ok"

    @property
    def is_problem(self) -> bool:
        """Whether the product's file must be fixed."""
        return self.state == "problem"


class SampleTables(FeatureTables):
    """The tables that `features` gets from the platform; a table that it may not read is a `Problem`."""

    def __missing__(self, name: str) -> pl.DataFrame:
        """Raise `Problem`: the label, or a source that does not exist."""
        try:
            return super().__missing__(name)
        except ValueError as problem:
            raise Problem(f"{problem} The file is {file_of(self._product)}.") from None


def line_of(spec: Product, check: str, step: Callable[..., str], *arguments: Any) -> Line:
    """Run a check and return its line: facts, a problem, or why it was skipped."""
    try:
        facts = step(*arguments)
        return Line(check=check, message=facts, state="note" if isinstance(facts, Note) else "ok")
    except RecordingMissing as missing:
        return Line(check=check, message=f"cannot be read here: {missing}", state="skipped")
    except Skipped as problem:
        return Line(check=check, message=str(problem), state="skipped")
    except ValueError as problem:
        return Line(check=check, message=str(problem), state="problem")
    except _FAILURES as problem:  # no message was written for it
        message = (
            f"the check {check!r} of {spec.name} ends with {type(problem).__name__}: {first_line(problem)}. It uses "
            f"what functions of {file_of(spec.name)} return; look there for the cause."
        )
        return Line(check=check, message=message, state="problem")


def call(spec: Product, name: str, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function of the product's file; anything that it raises becomes a `Problem`.

    Only `deliver` may raise `RecordingMissing`, because nothing else needs the recording.

    Args:
        name: of the function, for the message.
    """
    # The data files of a function are known where the product's file defines it by name.
    called, module = getattr(function, "__name__", ""), sys.modules.get(getattr(function, "__module__", ""))
    is_own = module is not None and modules.is_ours(module.__name__) and modules.is_own(module.__name__)
    own = function if is_own and getattr(module, called, None) is function else None
    try:
        with contextlib.nullcontext() if name.startswith(FREE) else reads.guarded(spec.module, own):
            return function(*arguments)
    except (AssetProblem, Problem, UnreadableFile, WrongColumns):
        raise
    except _FAILURES as problem:
        if name == DELIVER and isinstance(problem, RecordingMissing):
            raise
        frames, file = extract_tb(problem.__traceback__), f"{spec.name}.py"
        lines = [frame.lineno for frame in frames if Path(frame.filename).name == file]
        raise Problem(
            f"{name} of {spec.name} fails with {type(problem).__name__}: {first_line(problem)}. "
            f"{fix_in(spec).removesuffix('.')}{f', line {lines[-1]}' if lines else ''}."
        ) from problem


def call_for_frame(spec: Product, name: str, function: Callable[..., pl.DataFrame], *arguments: Any) -> pl.DataFrame:
    """Call a function of the product's file that must return a frame."""
    result: object = call(spec, name, function, *arguments)
    if not isinstance(result, pl.DataFrame):
        is_pandas = type(result).__module__.partition(".")[0] == "pandas"
        hint = " (`pl.from_pandas(...)` makes one)" if is_pandas else ""
        hint = " (`.collect()` makes one)" if isinstance(result, pl.LazyFrame) else hint
        raise wrong_type(spec, name, result, A_FRAME + hint)
    return result


def wrong_type(spec: Product, name: str, result: object, expected: str) -> Problem:
    """Return the problem that a function returns something of another type than expected."""
    kind, library = type(result), type(result).__module__.partition(".")[0]
    named = f"{library}.{kind.__name__}" if library in ("pandas", "pandera") else kind.__name__
    actual = "None: is a `return` missing? Expected" if result is None else f"{named}; expected"
    return Problem(f"{name} of {spec.name} returns {actual} {expected}. {fix_in(spec)}")


def first_line(problem: BaseException) -> str:
    """Return the first line of a message, without its full stop."""
    return str(problem).partition("\n")[0].rstrip(".")


def file_of(product: str) -> str:
    """Return the path of a product's file, from the folder of a project that is not this checkout."""
    return product_files.place_of(product)


def fix_in(spec: Product) -> str:
    """Return the end of a message: which file to fix."""
    return f"Fix it in {file_of(spec.name)}."
