"""Digests: no change of code that makes bytes moves them while the code digest of their stage stands.

Two draws of mutants: constants, operators, defaults, statements at the top. Each is one change in a copy of the code;
digests and bytes of all stages are compared with those of the unchanged code. A mutant that cannot be imported, or
defines an invalid product, is replaced. A stage that fails has other bytes, and stores none.

*Makers.* Three hundred mutants of the modules that the makers of the odd product import (of engine and store: that they
name), and of its own file. Every maker works on inputs stored by a walk.

*Runs.* A hundred and fifty mutants of engine and store, and of what stages import besides makers. Only lines that a run
of the unchanged code executes are changed, and what their modules bind at the top; the code that digests is left alone.
The stages really run, on a copy of the walk's store: the newest five hours through data and monitoring, the newest
cutoff through training, whichever executes the module. What they leave is read by the unchanged code: rows, notes,
verdicts, decisions, faults, and the inputs in records. What a record's inputs show is made again, and not hidden.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import Any

from platform_assets.engine import digests
from platform_assets.engine.digests import definitions, modules
from proof.benchmarks.harness import Measure
from proof.chaos import d1_runs
from proof.chaos.d1_mutants import KINDS, Mutant, mutants, running
from tests.doubles.products import hourly_temperature
from tests.goldens.products import hourly
from tests.goldens.stages import makers
from tests.goldens.watching import functions_of, named_by

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("driftline", "platform_assets", "resources", "sensors", "proof", "tests")
PRODUCT = "tests.doubles.products.hourly_temperature"
OF_PRODUCT = 0.4
"""Share of mutants of the product's own file, in which digests follow names."""
MUTANTS, SEED = 300, 20261126
RUNS, SEED_OF_RUNS = 150, 20261201
AROUND = tuple(f"platform_assets.{name}." for name in ("engine", "store"))
STAGES = tuple(
    f"platform_assets.{name}." for name in ("data", "training", "evaluation", "monitoring", "prediction_log")
)
DIGESTING = "platform_assets.engine.digests"
GRAPH = "onnx graph"
"""Exporting takes seconds, so it is done only for mutants of modules on which the exported graph depends."""
EXPORTING = ("platform_assets.training.export", "platform_assets.training.onnx_maker", PRODUCT)
AT_ONCE = 2
WORST = 8
shown: list[str] = []

Stages = Mapping[str, str]
Measured = tuple[Stages, Stages]
"""Code digests by stage, and digests of content by item: a stage's, or that of one of its keys."""
SHA256_LETTERS = 64
INPUTS = " inputs"
"""Suffix for the inputs of a key's record, by which the engine sees that the key must be made again."""


@dataclass
class Tally:
    """What the mutants of a draw moved.

    Attributes:
        counts: of mutants, by what became of them.
        hidden: what moved while its digest stood.
        wide: stages whose digest moved with their bytes still.
        modules: the same, by the mutants' modules.
    """

    counts: Counter[str] = field(default_factory=Counter)
    hidden: list[str] = field(default_factory=list)
    wide: Counter[str] = field(default_factory=Counter)
    modules: Counter[str] = field(default_factory=Counter)

    def sentences(self, name: str) -> Iterator[str]:
        yield from (f"{name}, hidden: {line}" for line in self.hidden)
        yield f"{name}, by kind: " + ", ".join(f"{self.counts[kind]} {kind}s" for kind in KINDS)
        yield f"{name}, could not be imported, or were refused as a product, and replaced: {self.counts['refused']}"
        for what, counts in (
            ("stage", self.wide),
            ("module, the most", Counter(dict(self.modules.most_common(WORST)))),
        ):
            yield f"{name}, digest moved, bytes did not, by {what}: " + (
                ", ".join(f"{item.removeprefix('platform_assets.')} {count}" for item, count in counts.most_common())
                or "none"
            )


@dataclass(frozen=True)
class Bench:
    """A copy of the code, and the processes that measure it.

    Attributes:
        ask: takes a task and returns the lines of the answer.
    """

    tree: Path
    ask: Callable[[Any], list[Any]]

    @contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        path = modules.path_of(mutant.module)
        assert path is not None
        changed = self.tree / path.relative_to(REPOSITORY)
        original = changed.read_bytes()
        changed.write_text(mutant.text, encoding="utf-8")
        try:
            yield
        finally:
            changed.write_bytes(original)


def run() -> list[Measure]:
    of_makers, of_runs = _draw_of_makers(), _draw_of_runs()
    for name, tally in (("makers", of_makers), ("runs", of_runs)):
        shown.extend(tally.sentences(name))
    reasons = sum(tally.counts["both"] for tally in (of_makers, of_runs))
    return [
        *_measures("makers", of_makers, MUTANTS, moved=100),
        *_measures("runs", of_runs, RUNS, moved=30),
        Measure(
            "digests moved for nothing per digest moved for a reason",
            sum(tally.wide.total() for tally in (of_makers, of_runs)) / reasons,
            target="<= 3",
        ),
    ]


def _measures(name: str, tally: Tally, count: int, *, moved: int) -> Iterator[Measure]:
    counts = tally.counts
    yield Measure(f"{name}: mutants", counts["mutants"], target=f">= {count}")
    yield Measure(f"{name}: of them with other bytes in some stage", counts["moved"], target=f">= {moved}")
    yield Measure(f"{name}: bytes moved with the digest still", len(tally.hidden), target="<= 0")
    yield Measure(f"{name}: stages that a mutant stopped, with the digest still: they store nothing", counts["stopped"])
    yield Measure(f"{name}: stages whose digest moved with their bytes still", tally.wide.total())
    yield Measure(f"{name}: stages whose digest and bytes moved", counts["both"])


def _draw_of_makers() -> Tally:
    with _benches("d1_bytes") as (_, benches):
        before = _made(benches[0], set())
        assert before is not None, "the unchanged code cannot be measured"
        failing = {stage: output for stage, output in before[1].items() if len(output) != SHA256_LETTERS}
        assert not failing, f"the unchanged code does not make these: {failing}"

        def measure(bench: Bench, mutant: Mutant) -> Measured | None:
            return _made(bench, set() if mutant.module in EXPORTING else {GRAPH})

        def judge(mutant: Mutant, after: Measured, tally: Tally) -> None:
            output = {item: _result_of(after[1], item, otherwise=was) for item, was in before[1].items()}
            measured = {_stage(item) for item in after[1]} & {_stage(item) for item in before[1]}
            _judge(mutant, before, (after[0], output), measured, tally)

        return _measured_all(_of_makers(), benches, measure, judge, MUTANTS)


def _draw_of_runs() -> Tally:
    scenario = hourly()
    with _benches("d1_runs") as (place, benches):
        (place / "left").mkdir()

        def left(bench: Bench, phases: list[str], *, is_exporting: bool = False, lines: bool = False) -> Any:
            """Return the lines of an answer, and what the run left by phase; None for code that cannot be measured."""
            folder = tempfile.mkdtemp(dir=place / "left")
            try:
                task = d1_runs.Task(phases=phases, folder=folder, is_exporting=is_exporting, lines=lines)
                answer = bench.ask(task)
                if not answer or "broken" in answer[0]:
                    return None
                return answer, {phase: _stored(scenario, phase, Path(folder)) for phase in phases}
            finally:
                shutil.rmtree(folder)

        answer, expected = left(benches[0], [*d1_runs.PHASES], is_exporting=True, lines=True)
        assert len(answer) == 1 + len(d1_runs.PHASES), answer
        ran = dict(zip(d1_runs.PHASES, answer[1:], strict=True))
        before = {phase: d1_runs.digests_of_items(items, items) for phase, items in expected.items()}
        again = left(benches[0], [*d1_runs.PHASES])
        same = {phase: d1_runs.digests_of_items(items, expected[phase]) for phase, items in again[1].items()}
        assert same == before, "the unchanged code leaves other content when it runs again"

        def measure(bench: Bench, mutant: Mutant) -> Any:
            file = f"{mutant.module.replace('.', '/')}.py"
            phases = [phase for phase in d1_runs.PHASES if file in ran[phase]]
            return left(bench, phases, is_exporting=mutant.module in EXPORTING)

        def judge(mutant: Mutant, result: Any, tally: Tally) -> None:
            lines, documents = result
            was = {item: value for phase in documents for item, value in before[phase].items()}
            output = {
                item: value
                for phase, items in documents.items()
                for item, value in d1_runs.digests_of_items(items, expected[phase]).items()
            }
            # Where a module did not run, it cannot have moved bytes.
            _judge(mutant, (answer[0], was), (lines[0], output), set(answer[0]), tally)

        return _measured_all(_of_runs(ran), benches, measure, judge, RUNS)


def _stored(scenario: Any, phase: str, folder: Path) -> Mapping[str, d1_runs.Document]:
    # A store that the unchanged code cannot read holds nothing for it.
    with contextlib.suppress(Exception):
        return d1_runs.stored(scenario, phase, folder)
    return {}


def _measured_all(
    drawn: Iterator[Mutant],
    benches: list[Bench],
    measure: Callable[[Bench, Mutant], Any],
    judge: Callable[[Mutant, Any, Tally], None],
    count: int,
) -> Tally:
    """Measure mutants until enough could be, some at a time, and judge them in the order of the draw."""
    tally, free, pending = Tally(), SimpleQueue[Bench](), deque[tuple[Mutant, Future[Any]]]()
    for bench in benches:
        free.put(bench)

    def measured(mutant: Mutant) -> Any:
        bench = free.get()
        try:
            with bench.changed(mutant):
                return measure(bench, mutant)
        finally:
            free.put(bench)

    with ThreadPoolExecutor(len(benches)) as pool:
        while tally.counts["mutants"] < count:
            while len(pending) <= len(benches):
                mutant = next(drawn)
                pending.append((mutant, pool.submit(measured, mutant)))
            mutant, future = pending.popleft()
            result = future.result()
            if result is None:
                tally.counts["refused"] += 1
                continue
            tally.counts["mutants"] += 1
            tally.counts[mutant.kind] += 1
            judge(mutant, result, tally)
            if tally.counts["mutants"] % 25 == 0:
                wide, both = tally.wide.total(), tally.counts["both"]
                print(f"{tally.counts}, {len(tally.hidden)} hidden, {wide} for nothing, {both} not", flush=True)
        for _, future in pending:
            future.cancel()
    return tally


def _judge(mutant: Mutant, before: Measured, after: Measured, measured: set[str], tally: Tally) -> None:
    moved = {item for item, was in before[1].items() if after[1][item] != was}
    tally.counts["moved"] += bool(moved)
    differing = {stage for stage, digest in before[0].items() if after[0].get(stage) != digest}
    tally.counts["both"] += len({_stage(item) for item in moved} & differing)
    wide = (differing & measured) - {_stage(item) for item in moved}
    tally.wide.update(wide)
    tally.modules[mutant.module] += len(wide)
    for item in sorted(moved):
        if _stage(item) in differing or item.endswith(INPUTS) or f"{item}{INPUTS}" in moved:
            continue
        if len(after[1][item]) != SHA256_LETTERS:
            tally.counts["stopped"] += 1
            continue
        tally.hidden.append(f"{item}: {mutant.module} line {mutant.line}, {mutant.change}")
        print(f"hidden: {tally.hidden[-1]}", flush=True)


def _result_of(stages: Stages, item: str, *, otherwise: str) -> str:
    """Return the result of an item; of its whole stage if the stage failed."""
    return stages.get(item, otherwise if item == GRAPH else stages.get(_stage(item), otherwise))


def _stage(item: str) -> str:
    return item.partition(" ")[0]


def _made(bench: Bench, without: set[str]) -> Measured | None:
    """Return what makers make; None for code that cannot be measured."""
    lines = bench.ask(sorted(without))
    if not lines or "broken" in lines[0]:
        return None
    # A child that hangs or dies has made nothing.
    output = lines[1] if len(lines) == 2 and "broken" not in lines[1] else dict.fromkeys(lines[0], "nothing")
    return lines[0], output


def _of_makers() -> Iterator[Mutant]:
    """Yield mutants endlessly: of the product or of a module, of each kind equally, by a fixed seed."""
    random = Random(SEED)
    names = sorted(_modules() - {PRODUCT})
    ready: dict[tuple[str, str], Iterator[Mutant]] = {}
    while True:
        name = PRODUCT if random.random() < OF_PRODUCT else random.choice(names)
        kind = random.choice(list(KINDS))
        if (name, kind) not in ready:
            ready[name, kind] = mutants(name, _text(name), kind, random)
        mutant = next(ready[name, kind], None)
        if mutant is not None:
            yield mutant


def _of_runs(ran: Mapping[str, Mapping[str, list[int]]]) -> Iterator[Mutant]:
    """Yield mutants endlessly: of each module around makers and of each kind equally, of lines that ran.

    Args:
        ran: lines by file, by phase.
    """
    random, of_makers = Random(SEED_OF_RUNS), _modules()
    lines = dict[str, set[int]]()
    for file, numbers in ((file, numbers) for files in ran.values() for file, numbers in files.items()):
        name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        is_around = name.startswith(AROUND) and not name.startswith(DIGESTING)
        if is_around or (name.startswith(STAGES) and name not in of_makers):
            lines.setdefault(name, set()).update(numbers)
    names, ready = sorted(lines), dict[tuple[str, str], Iterator[Mutant]]()
    while True:
        name, kind = random.choice(names), random.choice(list(KINDS))
        if (name, kind) not in ready:
            text = _text(name)
            ready[name, kind] = mutants(name, text, kind, random, running(text, lines[name]))
        mutant = next(ready[name, kind], None)
        if mutant is not None:
            yield mutant


def _text(name: str) -> str:
    path = modules.path_of(name)
    assert path is not None
    return path.read_text(encoding="utf-8")


def _modules() -> set[str]:
    """Return the modules imported by the makers and the functions of the product; of those around, the named ones."""
    imported, named = set[str](), set[str]()
    for maker in makers(hourly_temperature.SPEC).values():
        references = {*digests.parts(maker)}
        for function in functions_of(maker):
            file = definitions._file(definitions._source(function))
            references |= named_by(function)
            for node in file.reached(definitions._outermost(function)):
                imported |= modules.ours(file.content(node, "")[1])
        named |= {reference.partition(":")[0] for reference in references}
    return named | {name for name in modules.closure(*imported, *named) if not name.startswith(AROUND)}


@contextmanager
def _benches(script: str) -> Iterator[tuple[Path, list[Bench]]]:
    """Yield copies of the code with processes that run a script on a stored walk, and the walk's folder."""
    with tempfile.TemporaryDirectory(prefix="d1-") as folder, ExitStack() as stack:
        place, benches = Path(folder, "walk"), list[Bench]()
        for number in range(AT_ONCE):
            tree = Path(folder, f"tree{number}")
            for package in PACKAGES:
                shutil.copytree(REPOSITORY / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
            command = [sys.executable, str(tree / f"proof/chaos/{script}.py")]
            if not benches:
                subprocess.run(
                    [*command, "prepare", str(place)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            benches.append(Bench(tree, stack.enter_context(_served([*command, "serve", str(place)]))))
        yield place, benches


@contextmanager
def _served(command: list[str]) -> Iterator[Callable[[Any], list[Any]]]:
    """Start the process that forks; yield a function that sends a task and returns the lines of the answer."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        stdout.readline()

        def ask(task: Any) -> list[Any]:
            print(json.dumps(task), file=stdin, flush=True)
            # A mutant may print, too; each answer is an object or a list.
            return [json.loads(line) for line in iter(stdout.readline, "END\n") if line.startswith(("{", "["))]

        yield ask
        stdin.close()
