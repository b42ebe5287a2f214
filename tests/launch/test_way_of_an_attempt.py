"""One attempt goes through few files and asks once: it is traced from its launch to its record, and counted.

Traced is the thread that waits for the step; `pytest -s` prints what it enters. A number may only fall: a change that
lowers one lowers its bound here.
"""

# Annotations are not postponed: Dagster compares that of `context` as an object.

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple

import dagster as dg
import msgspec
import pydantic
import pytest

import platform_assets
from platform_assets.base.settings import Settings
from platform_assets.engine.outside import Work
from platform_assets.kubernetes.launcher import KubernetesLauncher
from platform_assets.launch.endings import Try
from platform_assets.launch.launchers import StepLauncher, SubprocessLauncher
from platform_assets.launch.profiles import PROFILES, StepProfile
from platform_assets.store.records.attempts import Launch
from tests.doubles.played_api import Object, PlayedApi, settings_of, well

pytestmark = pytest.mark.slow

ROOT = Path(platform_assets.__file__).parent
ORDER = (
    *("base", "product", "store", "engine", "data", "training", "evaluation", "monitoring"),
    *("launch", "kubernetes"),
)
"""The rooms, left to right, of docs/architecture.md."""
OWN = ("launch", "kubernetes")
"""The rooms of an attempt. What it calls in another room is a stop; what that one does inside is not."""
VOCABULARY = ("base/", "store/records/")
"""What every room reads: no stops."""
KNOWN = (Launch, Work, Settings, StepProfile, Try, str, int, float, type(None))
"""Of what is known at the start."""
WORK = Work(product="tiny", step="train", cutoff="0009", fingerprint="f" * 64)
TURNS = {
    ("call", "subprocess", "Popen.__init__"): ("launch", "watch"),
    ("return", "subprocess", "Popen.wait"): ("watch", "ending"),
    ("return", "ledgers", "Ledgers.append"): ("ending", "record"),
}
"""Where a leg ends and the next one begins. For a pod the API shows it: its creation, and its last status."""


@dataclass(frozen=True)
class Way:
    """What an attempt enters.

    Attributes:
        functions, files: of ours, all of them, those of values apart.
        stops: entries from a file of an attempt's own rooms into another file. On a leg (launch, watch, ending, record)
            a function counts once, however often it is polled, and so does a file until another one is entered.
        climbs: functions that are called from a room to the left of theirs.
        returns: stops at a file that had been left for another one on the same leg.
        asked_again: calls with nothing but what is known at the start, which had been made with the same before.
    """

    functions: int
    files: int
    stops: int
    climbs: int
    returns: int
    asked_again: int


class Call(NamedTuple):
    """A call under way; `file` is what it entered, None if it is not a stop."""

    path: str
    file: str | None


class Trace:
    """What a thread enters of ours, by `sys.setprofile`."""

    def __init__(self, values: frozenset[CodeType]) -> None:
        self._values = values
        self._stack: list[Call] = []
        self._entered: set[tuple[str, str, str]] = set()
        self._left: dict[str, int] = {}
        self._asked: set[str] = set()
        self._climbs: set[tuple[str, str]] = set()
        self.leg = "launch"
        self.functions: dict[str, None] = {}
        self.lines: list[str] = []
        self.stops = self.returns = self.asked_again = 0

    def turn(self, before: str, after: str) -> None:
        """Begin a leg after another one."""
        if self.leg == before:
            self.leg, self._entered, self._left = after, set(), {}

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        path = code.co_filename
        if event in ("call", "return") and (turn := TURNS.get((event, Path(path).stem, code.co_qualname))):
            self.turn(*turn)
        if not path.startswith(f"{ROOT}/"):
            return
        if event == "call":
            self._call(path.removeprefix(f"{ROOT}/"), frame)
        elif event == "return" and self._stack and (file := self._stack.pop().file) is not None:
            self._left[file] = self.stops

    def _call(self, path: str, frame: FrameType) -> None:
        code = frame.f_code
        before = self._stack[-1].path if self._stack else ""
        is_step = not code.co_name.startswith("<") and code not in self._values
        if is_step:
            self.functions[f"{path} {code.co_qualname}"] = None
            self._note_question(path, frame)
        is_own = (not before or room(before) in OWN) and not path.startswith(VOCABULARY)
        file = self._enter(before, path, code.co_qualname) if is_step and is_own and before != path else None
        self._stack.append(Call(path, file))

    def _enter(self, before: str, path: str, name: str) -> str | None:
        """Note an entry into another file, and return the file unless the function was entered on this leg before."""
        if (before, path, name) in self._entered:
            return None
        self._entered.add((before, path, name))
        signs = ""
        if before and ORDER.index(room(path)) > ORDER.index(room(before)):
            self._climbs.add((path, name))
            signs += ", climbs"
        if self._left.get(path) != self.stops:
            self.stops += 1
            if path in self._left:
                self.returns += 1
                signs += ", returns"
        self.lines.append(f"{self.leg:7} {before or 'the asset':32} -> {path}: {name}{signs}")
        return path

    def _note_question(self, path: str, frame: FrameType) -> None:
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        values = [frame.f_locals[name] for name in names]
        is_known = all(isinstance(value, KNOWN) or type(value).__name__ == "Prepared" for value in values)
        if (
            room(path) not in OWN
            or not is_known
            or all(isinstance(value, str | int | float | None) for value in values)
        ):
            return
        question = f"{path} {code.co_qualname} {values!r}"
        self.asked_again += question in self._asked
        self._asked.add(question)

    def way(self) -> Way:
        files = {function.partition(" ")[0] for function in self.functions}
        counts = (self.stops, len(self._climbs), self.returns, self.asked_again)
        return Way(len(self.functions), len(files), *counts)


def room(path: str) -> str:
    return path.partition("/")[0]


def our_modules() -> Iterator[ModuleType]:
    return (module for name, module in list(sys.modules.items()) if name.startswith("platform_assets.") and module)


def codes_of_values() -> frozenset[CodeType]:
    """Return the code of all properties, and of the methods of values: reading a value does not count as a step."""
    classes = {item for module in our_modules() for item in list(vars(module).values()) if isinstance(item, type)}
    functions: list[Any] = []
    for class_ in classes:
        is_value = is_dataclass(class_) or issubclass(class_, msgspec.Struct | pydantic.BaseModel)
        for member in list(vars(class_).values()):
            if isinstance(member, property | cached_property):
                functions.append(member.fget if isinstance(member, property) else member.func)
            elif is_value:
                functions.append(member)
    return frozenset(function.__code__ for function in functions if isinstance(function, FunctionType))


def trace(folder: Path, launcher: StepLauncher, begin: Callable[[Trace], Any] = lambda _: None) -> Trace:
    """Run a step twice and return what the second attempt entered: the first one has imported and cached everything."""
    traces: list[Trace] = []

    @dg.asset
    def waits(context: dg.AssetExecutionContext, launcher: dg.ResourceParam[StepLauncher]) -> dg.MaterializeResult:
        extras = {"folder": str(folder), "ends": ["well"]}
        traces.append(Trace(codes_of_values()))
        begin(traces[-1])
        before = sys.getprofile()
        sys.setprofile(traces[-1])
        try:
            launcher.run(
                context=context, module="tests.doubles.step", extras=extras, profile=PROFILES["cpu_small"], work=WORK
            )
        finally:
            sys.setprofile(before)
        return dg.MaterializeResult()

    for _ in range(2):
        with dg.DagsterInstance.ephemeral() as instance:
            dg.materialize([waits], resources={"launcher": launcher}, instance=instance)
    return traces[-1]


class TracedApi(PlayedApi):
    """Tells a trace when a pod is created, and when it shows its last status."""

    trace: Trace

    def watch(self, trace: Trace) -> None:
        self.trace = trace

    def create(self, manifest: Object) -> Object:
        self.trace.turn("launch", "watch")
        return super().create(manifest)

    def look(self, name: str) -> Object:
        pod = super().look(name)
        if not self.left[name][0]:
            self.trace.turn("watch", "ending")
        return pod


def check(name: str, traced: Trace, bound: Way) -> None:
    way = traced.way()
    sys.stdout.write("\n".join(["", *traced.lines, f"{name}: {way}", ""]))
    assert traced.leg == "record"
    higher = {
        field.name: (getattr(way, field.name), getattr(bound, field.name))
        for field in fields(Way)
        if getattr(way, field.name) > getattr(bound, field.name)
    }
    assert higher == {}, "counted now, and the bound"


@pytest.mark.costly
def test_an_attempt_on_this_machine(tmp_path: Path) -> None:
    check("process", trace(tmp_path, SubprocessLauncher(settings_of(tmp_path))), LOCAL)


@pytest.mark.costly
def test_an_attempt_on_kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KubernetesLauncher, "longest_pause_s", 0.0)
    with TracedApi(well()) as api:
        launcher = KubernetesLauncher(settings_of(tmp_path), configuration=api.configuration(), poll_s=0.05)
        check("kubernetes", trace(tmp_path, launcher, api.watch), POD)


LOCAL = Way(functions=69, files=14, stops=12, climbs=0, returns=1, asked_again=1)
# The climbs are a launcher's own part of the way that all launchers share: find and run_to_end.
POD = Way(functions=147, files=27, stops=41, climbs=2, returns=9, asked_again=4)
