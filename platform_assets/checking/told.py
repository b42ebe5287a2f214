"""Turn what goes wrong in a product's own functions into sentences that name function, trouble and file.

Belongs here: how problems are told. Does not belong here: what is looked at (`trial`, `rows`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from platform_assets.specs.base import FeatureTables, ProductSpec

Result = TypeVar("Result")


class Problem(ValueError):
    """What is wrong with a product's file, as a sentence."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one check found.

    Attributes:
        what: was looked at, such as `source weather`.
        said: facts, or the sentence of a problem.
    """

    what: str
    said: str
    is_problem: bool = False


class SampleTables(FeatureTables):
    """The tables that `features` gets from the platform; what they refuse is a `Problem`."""

    def __missing__(self, name: str) -> pl.DataFrame:
        """Raise `Problem`: the label, or a source that is not there."""
        try:
            return super().__missing__(name)
        except ValueError as problem:
            raise Problem(f"{problem} The file is {file_of(self._spec.name)}.") from None


def line_of(what: str, step: Callable[..., str], *given: Any) -> Line:
    """Return what a check says, or the sentence with which it refuses."""
    try:
        return Line(what=what, said=step(*given))
    except ValueError as problem:
        return Line(what=what, said=str(problem), is_problem=True)


def own(spec: ProductSpec, function: str, call: Callable[..., Result], *given: Any) -> Result:
    """Call a function of the product's file; whatever it raises becomes a `Problem`."""
    try:
        return call(*given)
    except Problem:
        raise
    except Exception as problem:
        raise Problem(
            f"{function}() of {spec.name} fails with {type(problem).__name__}: {first_line(problem)}. "
            f"Mend it in {file_of(spec.name)}."
        ) from problem


def first_line(problem: Exception) -> str:
    """Return the beginning of a message, to stand in a sentence."""
    return str(problem).partition("\n")[0].rstrip(".")


def file_of(product: str) -> str:
    """Return the place of a product's file, as a person knows it."""
    return f"platform_assets/specs/{product}.py"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 field`, `1,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
