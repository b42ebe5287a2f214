"""Watch the code that runs inside makers, and report the code outside of their digests.

Every call below a method of a maker is observed, imports included. The code that runs must belong to
the modules that the maker's digest covers or, in the product's file, to a definition that it reaches.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any
from unittest.mock import patch

from platform_assets.engine import digests
from platform_assets.engine.digests import definitions, modules

REPOSITORY = Path(__file__).resolve().parents[2]
ENGINE = (
    "platform_assets/store/history/",
    "platform_assets/store/records/",
    "platform_assets/store/",
    "platform_assets/base/configuration.py",
    "platform_assets/base/settings.py",
    "platform_assets/base/clock.py",
    "platform_assets/store/handle.py",
    "platform_assets/engine/digests/reads.py",  # refuses reads of a product's code, and changes no result
    "driftline.py",  # finds a public name; what defines it is counted
    "platform_assets/product/data_files.py",  # tells it which files count in the digest
    "platform_assets/training/steps/",  # the progress of a fit: lease, saves, requests to stop; makers cannot import it
    "tests/doubles/instances.py",  # takes the lines that a step in this process logs
)
"""Code that makers call through the handles passed to them; `digests.ENGINE` covers it."""
STEP = (
    *ENGINE,  # of which the steps' own code is covered by the number of their protocol
    "platform_assets/engine/digests/",  # the record of a training names the digest of its code
    "platform_assets/training/libraries.py",  # compares versions with those of the run
    # What measures a fitted model, for the record of its training.
    *("platform_assets/launch/train.py", "platform_assets/training/rare.py"),
    *("platform_assets/evaluation/metrics.py", "platform_assets/evaluation/measures/"),
    "platform_assets/launch/profiles.py",  # prices per second; device and precision are passed as values
    "platform_assets/launch/step_profile.py",
    "platform_assets/product/spec.py",  # passes the product's members to its maker, whose digest holds their values
    "tests/goldens/watched.py",
)
"""The same for the code of a step process."""
MAKERS = {
    "raw": ("data.raw_maker", "Landing"),
    "validated": ("data.validated_maker", "Validation"),
    "features": ("data.features_maker", "Building"),
    "outcomes": ("data.outcomes_maker", "Labelling"),
    "predictions": ("prediction_log.predictions_maker", "Ingesting"),
    "drift": ("monitoring.drift_maker", "Judging"),
    "performance": ("monitoring.performance_maker", "Measuring"),
    "checkpoint": ("training.checkpoint_maker", "Learning"),
    "onnx": ("training.onnx_maker", "Exporting"),
    "evaluation": ("evaluation.evaluation_maker", "Evaluating"),
}
"""Module and name of each stage's maker."""


class Watch:
    """Collects the makers that were called, and the code objects that ran below each, by stage."""

    def __init__(self) -> None:
        self.makers: dict[str, list[Any]] = defaultdict(list)
        self.ran: dict[str, set[CodeType]] = defaultdict(set)
        self._stage: str | None = None

    def wrapped(self, stage: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method of a maker that is watched while it runs, unless a maker that called it is."""

        @functools.wraps(method)
        def called(maker: Any, *arguments: Any, **named: Any) -> Any:
            if self._stage is not None:
                return method(maker, *arguments, **named)
            self._stage = stage
            if maker not in self.makers[stage]:
                self.makers[stage].append(maker)
            before = sys.gettrace()
            add = self.ran[stage].add

            def observe(frame: FrameType, event: str, _: Any) -> None:
                add(frame.f_code)

            sys.settrace(observe)  # as it returns None, Python calls it once per call, and not per return or line
            try:
                return method(maker, *arguments, **named)
            finally:
                sys.settrace(before)
                self._stage = None

        return called

    def missing(self) -> dict[str, list[str]]:
        """Return by stage the code that ran outside of the digest."""
        result = {stage: missing(self.makers[stage], ran) for stage, ran in self.ran.items()}
        return {stage: codes for stage, codes in result.items() if codes}


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch every maker of this process."""
    watch = Watch()
    patches = []
    for stage, (module, name) in MAKERS.items():
        maker = getattr(importlib.import_module(f"platform_assets.{module}"), name)
        for attribute, value in vars(maker).items():
            if isinstance(value, FunctionType) and not attribute.startswith("__"):
                patches.append(patch.object(maker, attribute, watch.wrapped(stage, value)))
            elif isinstance(value, property):
                assert value.fget is not None
                patches.append(patch.object(maker, attribute, property(watch.wrapped(stage, value.fget))))
    for item in patches:
        item.start()
    try:
        yield watch
    finally:
        for item in patches:
            item.stop()


def functions_of(value: Any) -> Iterator[FunctionType]:
    """Yield the functions that a maker holds."""
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from functions_of(item)
    elif is_dataclass(value):
        for member in fields(value):
            yield from functions_of(getattr(value, member.name))


def covered(maker: Any) -> tuple[set[Path], list[tuple[Path, int, int]]]:
    """Return the files a maker's digest covers completely, and the covered line ranges of other files."""
    names, parts = set(digests.module_digests(maker)), []
    for function in functions_of(maker):
        if not digests.modules.is_own(function.__module__):
            continue
        file = definitions._file(definitions._source(function))
        path = modules.path_of(function.__module__)
        assert path is not None
        is_part = file.is_named(function) and file.widening is None
        for node in file.reached(definitions._outermost(function)) if is_part else file.tree.body:
            first = min(item.lineno for item in [node, *getattr(node, "decorator_list", [])])
            parts.append((path, first, node.end_lineno or first))
            names.update(modules.closure(*modules.ours(file.content(node, "")[1])))
    return {path for name in names if (path := modules.path_of(name)) is not None}, parts


def missing(makers: list[Any], ran: set[CodeType], engine: tuple[str, ...] = ENGINE) -> list[str]:
    """Return the code that ran outside of the digests of these makers of one stage, as `file:line name`."""
    of_makers = [covered(maker) for maker in makers]
    result = []
    for code in ran:
        path = Path(code.co_filename)
        if not path.is_relative_to(REPOSITORY) or ".venv" in path.parts or path == Path(__file__):
            continue
        name = path.relative_to(REPOSITORY).as_posix()
        if name.startswith(engine) or any(_holds(*item, path, code.co_firstlineno) for item in of_makers):
            continue
        result.append(f"{name}:{code.co_firstlineno} {code.co_name}")
    return sorted(result)


def _holds(files: set[Path], parts: list[tuple[Path, int, int]], path: Path, line: int) -> bool:
    return path in files or any(path == file and first <= line <= last for file, first, last in parts)
