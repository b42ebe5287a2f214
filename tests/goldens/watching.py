"""Watch the code that runs inside makers, and report the code outside of their digests.

Every call below a method of a maker is observed. The code that runs must belong to a definition that the maker's digest
covers. What runs while a module is imported only defines; what it binds counts where it is named.
"""

import ast
import functools
import importlib
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
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
    "platform_assets/store/product_store.py",
    "platform_assets/base/naming.py",  # where a store's contents lie
    "platform_assets/base/problems.py",
    "platform_assets/engine/digests/reads.py",  # refuses reads of a product's code, and changes no result
    "driftline/__init__.py",  # finds a public name; what defines it is counted
    "platform_assets/product/data_files.py",  # tells it which files count in the digest
    "platform_assets/training/steps/",  # the progress of a fit: lease, saves, requests to stop; makers cannot import it
    "tests/doubles/instances.py",  # takes the lines that a step in this process logs
)
"""Code that makers call through the handles passed to them. Row D1 changes it and looks whether bytes move."""
STEP = (
    *ENGINE,  # of which the steps' own code is covered by the number of their protocol
    "platform_assets/engine/digests/",  # the record of a training names the digest of its code
    "platform_assets/training/libraries.py",  # compares versions with those of the run
    # What measures a fitted model, for the record of its training.
    *("platform_assets/launch/train.py", "platform_assets/training/rare_classes.py"),
    "platform_assets/training/gpu_memory.py",  # refuses what does not fit a device, and changes no result
    "platform_assets/training/suspects.py",  # the log names columns without values
    "platform_assets/training/stored_models.py",  # reads a model's files by their sha256
    *("platform_assets/evaluation/metrics.py", "platform_assets/evaluation/measures/"),
    "platform_assets/launch/profiles.py",  # prices per second; device and precision are passed as values
    "platform_assets/launch/step_profile.py",
    "platform_assets/product/spec.py",  # passes the product's members to its maker, whose digest holds their values
    "platform_assets/base/keys.py",  # of the same product; what a maker asks of them is in its digest
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
        self.ran: dict[str, dict[int, CodeType]] = defaultdict(dict)  # by id: code's own hash reads all of it
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
            ran = self.ran[stage]

            def observe(frame: FrameType, event: str, _: Any) -> None:
                if (number := id(frame.f_code)) not in ran and not is_importing(frame):
                    ran[number] = frame.f_code

            sys.settrace(observe)  # as it returns None, Python calls it once per call, and not per return or line
            try:
                return method(maker, *arguments, **named)
            finally:
                sys.settrace(before)
                self._stage = None

        return called

    def missing(self) -> dict[str, list[str]]:
        """Return by stage the code that ran outside of the digest."""
        result = {stage: missing(self.makers[stage], ran.values()) for stage, ran in self.ran.items()}
        return {stage: codes for stage, codes in result.items() if codes}


def export_once() -> None:
    """Let torch import what its first export imports: watched, that takes a third of a walk's CPU seconds."""
    import torch

    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(torch.nn.Linear(1, 1).eval(), (torch.zeros(2, 1),), dynamo=True, verbose=False)


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


def is_importing(frame: FrameType | None) -> bool:
    """Tell whether a call is made while a module is imported."""
    while frame is not None and frame.f_code.co_name != "called":
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


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


def named_by(function: FunctionType, *, is_whole: bool = False) -> set[str]:
    """Return the definitions of other modules that count in the digest of a product's function."""
    names = definitions._entry(function, is_whole=is_whole)[1]
    return {*definitions.closure(*definitions._resolved(names))}


def counted(reference: str) -> list[ast.stmt] | None:
    """Return what counts of a module's file for one of its definitions; None for all of it."""
    module, _, name = reference.partition(":")
    path = modules.path_of(module)
    assert path is not None
    file = definitions._file(path.read_text(encoding="utf-8"), is_product=modules.is_own(module))
    return [*file.reached(name)] if name in file._parts and file.widening is None else None


def covered(maker: Any) -> tuple[set[Path], list[tuple[Path, int, int]]]:
    """Return the files a maker's digest covers completely, and the covered line ranges of other files."""
    references, own = set(digests.parts(maker)), list[tuple[str, list[ast.stmt]]]()
    for function in functions_of(maker):
        if not digests.modules.is_own(function.__module__):
            continue
        file = definitions._file(definitions._source(function))
        is_part = file.is_named(function) and file.widening is None
        nodes = [*file.reached(definitions._outermost(function))] if is_part else file.tree.body
        own.append((function.__module__, nodes))
        references |= named_by(function, is_whole=not is_part)
    others = [(reference.partition(":")[0], counted(reference)) for reference in sorted(references)]
    whole = {path for name, nodes in others if nodes is None and (path := modules.path_of(name)) is not None}
    parts = []
    for name, nodes in (*own, *((name, nodes) for name, nodes in others if nodes is not None)):
        path = modules.path_of(name)
        assert path is not None
        for node in nodes:
            first = min(item.lineno for item in [node, *getattr(node, "decorator_list", [])])
            parts.append((path, first, node.end_lineno or first))
    return whole, parts


def missing(makers: list[Any], ran: Iterable[CodeType], engine: tuple[str, ...] = ENGINE) -> list[str]:
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
