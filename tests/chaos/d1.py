"""Digests: no change of a module that makers import moves bytes while the code digest of their stage stands.

Three hundred mutants of the modules that the makers of the odd product import, and of its own file: constants,
operators, defaults, statements at the top. Each is one change in a copy of the code; every maker then works on inputs
stored by a walk, and digests and bytes of all stages are compared with those of the unchanged code. A mutant that
cannot be imported, or defines an invalid product, is replaced. A stage that fails has other bytes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from platform_assets.engine.digests import definitions, modules
from tests.benchmarks.harness import Measure
from tests.chaos.d1_mutants import KINDS, Mutant, mutants
from tests.doubles.products import hourly_temperature
from tests.goldens.stages import makers
from tests.goldens.watching import functions_of

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("platform_assets", "resources", "sensors", "tests")
PRODUCT = "tests.doubles.products.hourly_temperature"
OF_PRODUCT = 0.4
"""Share of mutants of the product's own file, in which digests follow names."""
MUTANTS, SEED = 300, 20261126
GRAPH = "onnx graph"
"""Exporting takes seconds, so it is done only for mutants of modules on which the exported graph depends."""
EXPORTING = ("platform_assets.training.export", "platform_assets.training.onnx_maker", PRODUCT)
shown: list[str] = []

Stages = Mapping[str, str]
SHA256_LETTERS = 64
INPUTS = " inputs"
"""Suffix for the inputs of a key's record, by which the engine sees that the key must be made again."""


def run() -> list[Measure]:
    """Change the code three hundred times and count the changes that a digest missed."""
    counts, hidden, wide = Counter[str](), [], Counter[str]()
    with tempfile.TemporaryDirectory(prefix="d1-") as folder:
        tree, path = Path(folder, "tree"), Path(folder, "walk")
        for package in PACKAGES:
            shutil.copytree(REPOSITORY / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPOSITORY / "driftline.py", tree)
        command = [sys.executable, str(tree / "tests/chaos/d1_bytes.py")]
        subprocess.run(
            [*command, "prepare", str(path)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with _served([*command, "serve", str(path)]) as ask:
            before = ask(set())
            assert before is not None, "the unchanged code cannot be measured"
            failing = {stage: output for stage, output in before[1].items() if len(output) != SHA256_LETTERS}
            assert not failing, f"the unchanged code does not make these: {failing}"
            for mutant in _chosen():
                if counts["mutants"] == MUTANTS:
                    break
                result = _measured(tree, mutant, ask)
                if result is None:
                    counts["refused"] += 1
                    continue
                counts["mutants"] += 1
                counts[mutant.kind] += 1
                _judge(mutant, before, result, counts, hidden, wide)
                if counts["mutants"] % 25 == 0:
                    print(f"{counts['mutants']} mutants, {len(hidden)} hidden", flush=True)
    shown.extend(f"hidden: {line}" for line in hidden)
    shown.append("by kind: " + ", ".join(f"{counts[kind]} {kind}s" for kind in KINDS))
    shown.append(f"could not be imported, or were refused as a product, and replaced: {counts['refused']}")
    shown.append("digest moved, bytes did not, by stage: " + ", ".join(f"{name} {n}" for name, n in wide.most_common()))
    return [
        Measure(measure="mutants", ours=counts["mutants"], target=f">= {MUTANTS}"),
        Measure(measure="of them with other bytes in some stage", ours=counts["moved"], target=">= 100"),
        Measure(measure="bytes moved with the digest still", ours=len(hidden), target="<= 0"),
        Measure(
            measure="stages that a mutant stopped, with the digest still: they store nothing", ours=counts["stopped"]
        ),
        Measure(measure="stages whose digest moved with their bytes still", ours=wide.total()),
        Measure(measure="stages whose digest and bytes moved", ours=counts["both"]),
    ]


def _judge(
    mutant: Mutant,
    before: tuple[Stages, Stages],
    after: tuple[Stages, Stages],
    counts: Counter[str],
    hidden: list[str],
    wide: Counter[str],
) -> None:
    output = {item: _result_of(after[1], item, otherwise=was) for item, was in before[1].items()}
    moved = {item for item, was in before[1].items() if output[item] != was}
    counts["moved"] += bool(moved)
    differing = {stage for stage, digest in before[0].items() if after[0].get(stage) != digest}
    counts["both"] += len({_stage(item) for item in moved} & differing)
    measured = {_stage(item) for item in after[1]} & {_stage(item) for item in before[1]}
    wide.update(differing & measured - {_stage(item) for item in moved})
    for item in sorted(moved):
        if _stage(item) in differing or item.endswith(INPUTS) or f"{item}{INPUTS}" in moved:
            continue
        if len(output[item]) != SHA256_LETTERS:
            counts["stopped"] += 1
            continue
        hidden.append(f"{item}: {mutant.module} line {mutant.line}, {mutant.change}")
        print(f"hidden: {hidden[-1]}", flush=True)


def _result_of(stages: Stages, item: str, *, otherwise: str) -> str:
    """Return the result of an item; of its whole stage if the stage failed."""
    return stages.get(item, otherwise if item == GRAPH else stages.get(_stage(item), otherwise))


def _stage(item: str) -> str:
    """Return the stage of an item: of `onnx graph`, or of one key."""
    return item.partition(" ")[0]


def _measured(tree: Path, mutant: Mutant, ask: Any) -> tuple[Stages, Stages] | None:
    path = modules.path_of(mutant.module)
    assert path is not None
    changed = tree / path.relative_to(REPOSITORY)
    original = changed.read_bytes()
    changed.write_text(mutant.text, encoding="utf-8")
    try:
        answer: tuple[Stages, Stages] | None = ask(set() if mutant.module in EXPORTING else {GRAPH})
        return answer
    finally:
        changed.write_bytes(original)


def _chosen() -> Iterator[Mutant]:
    """Yield mutants endlessly: of the product or of a module, of each kind equally, by a fixed seed."""
    random = Random(SEED)
    names = sorted(_modules() - {PRODUCT})
    ready: dict[tuple[str, str], Iterator[Mutant]] = {}
    while True:
        name = PRODUCT if random.random() < OF_PRODUCT else random.choice(names)
        kind = random.choice(list(KINDS))
        if (name, kind) not in ready:
            path = modules.path_of(name)
            assert path is not None
            ready[name, kind] = mutants(name, path.read_text(encoding="utf-8"), kind, random)
        mutant = next(ready[name, kind], None)
        if mutant is not None:
            yield mutant


def _modules() -> set[str]:
    """Return the modules imported by the makers and the functions of the product."""
    from platform_assets.engine import digests

    names = set[str]()
    for maker in makers(hourly_temperature.SPEC).values():
        names |= set(digests.module_digests(maker))
        for function in functions_of(maker):
            file = definitions._file(definitions._source(function))
            for node in file.reached(definitions._outermost(function)):
                names |= {*modules.closure(*modules.ours(file.content(node, "")[1]))}
    return names


@contextmanager
def _served(command: list[str]) -> Iterator[Any]:
    """Start the process that forks; yield a function that queries it, with None for code that cannot be measured."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()

        def ask(without: set[str]) -> tuple[Stages, Stages] | None:
            print(json.dumps(sorted(without)), file=process.stdin, flush=True)
            lines = [json.loads(line) for line in iter(process.stdout.readline, "END\n")]
            if not lines or "broken" in lines[0]:
                return None
            # A child that hangs or dies has made nothing.
            output = lines[1] if len(lines) == 2 and "broken" not in lines[1] else dict.fromkeys(lines[0], "nothing")
            return lines[0], output

        yield ask
        process.stdin.close()
