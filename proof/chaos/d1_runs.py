"""The stages of the odd product, really run by changed code on copies of a stored walk.

`python d1_runs.py prepare PLACE` walks, and keeps the store as it is before the last range of keys and before the last
training. `python d1_runs.py serve PLACE` forks one process per line of its input (`Task`), with libraries loaded and
none of our modules; each prints the digests of all stages, then runs them, and with `lines` also which lines ran.
`stored` reads what they left, in a process with the unchanged code.
"""

import contextlib
import inspect
import json
import os
import shutil
import signal
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, TypedDict
from unittest.mock import patch

TREE = Path(__file__).resolve().parents[2]
LONGEST_S = 60
"""Of CPU time, of which a run takes four; ten times as long by the clock."""
KEYS, CUTOFF = "keys", "cutoff"
PHASES = (KEYS, CUTOFF)
"""The newest range of keys through data and monitoring, and the newest cutoff through training."""
GRAPH = "model.onnx"

Document = dict[str, Any]


class Task(TypedDict):
    """A line of input: what to run, where, whether the exporter runs too, and whether to print the lines that ran."""

    phases: list[str]
    folder: str
    is_exporting: bool
    lines: bool


def prepare(place: Path) -> None:
    """Walk the product, and keep its store before each phase, and the graph that the last one exports."""
    from platform_assets.store.artifacts import ArtifactStore
    from platform_assets.store.tables import TableStore
    from tests.doubles import instances
    from tests.goldens.products import hourly
    from tests.goldens.walk import TRAINED, settings_in

    scenario, settings = hourly(), settings_in(place / "walk")
    *earlier, last = scenario.after
    with instances.forgetful() as instance:
        walker = _walker(scenario, settings, instance)
        walker.advance(scenario.before)
        walker.retrain(scenario.cutoffs[0])
        for run in earlier:
            walker.ask(run)
            walker.advance(run)
        walker.ask(last)
        walker.land(last)
        shutil.copytree(place / "walk", place / KEYS)
        walker.take_in(last)
        shutil.copytree(place / "walk", place / CUTOFF)
        walker.materialise(scenario.cutoffs[1], TRAINED)
    digest = TableStore(settings.root, scenario.spec.name).records("onnx")[scenario.cutoffs[1]].content_digest
    (place / GRAPH).write_bytes(ArtifactStore(settings.root).bundle(digest).read(GRAPH))


def serve(place: Path) -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            task: Task = json.loads(line)
            signal.setitimer(signal.ITIMER_PROF, LONGEST_S * (10 if task["lines"] else 1))
            signal.alarm(10 * LONGEST_S)
            try:
                sys.path.insert(0, str(TREE))
                from tests.goldens.products import hourly
                from tests.goldens.stages import digests_of

                scenario = hourly()
                print(json.dumps(digests_of(scenario.spec)), flush=True)
                for phase in task["phases"]:
                    folder = Path(task["folder"], phase)
                    shutil.copytree(place / phase, folder)
                    with _watched() if task["lines"] else contextlib.nullcontext() as lines:
                        _run(scenario, phase, folder, None if task["is_exporting"] else (place / GRAPH).read_bytes())
                    print(json.dumps({name: sorted(ran) for name, ran in (lines or {}).items()}), flush=True)
            except BaseException:  # noqa: BLE001  # whatever a mutant raises is the answer
                print(json.dumps({"broken": traceback.format_exc(limit=-1)}), flush=True)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        print("END", flush=True)


def _run(scenario: Any, phase: str, folder: Path, graph: bytes | None) -> None:
    """Run the stages of a phase; where one fails, those that need it do not run.

    Args:
        graph: replaces the exporter's, which takes seconds to make the same bytes.
    """
    from platform_assets.base.settings import Settings
    from platform_assets.training.onnx_maker import Exporting
    from tests.doubles import instances
    from tests.goldens.walk import TRAINED

    settings = Settings(root=str(folder / "store"), state=folder / "state")
    with instances.forgetful() as instance:
        walker = _walker(scenario, settings, instance)
        if phase == KEYS:
            walker.take_in(scenario.after[-1], is_strict=False)
            return
        with patch.object(Exporting, "graph", lambda *_: graph) if graph else contextlib.nullcontext():
            walker.materialise(scenario.cutoffs[1], TRAINED, is_strict=False)


def _walker(scenario: Any, settings: Any, instance: Any) -> Any:
    from platform_assets.automation.factory import build_defs
    from platform_assets.engine.store_resource import StoreResource
    from tests.doubles.launcher import InProcessLauncher
    from tests.goldens.walk import Walker

    os.environ |= settings.to_environment()
    resources = {
        "store": StoreResource(variables=settings.to_environment()),
        "launcher": InProcessLauncher(scenario.spec, settings),
    }
    return Walker(scenario, settings, build_defs(specs=[scenario.spec], resources=resources), instance)


@contextlib.contextmanager
def _watched() -> Iterator[dict[str, set[int]]]:
    """Collect the lines of our functions that run, by file; what an import runs outside of functions is left out."""
    lines = defaultdict[str, set[int]](set)
    root = f"{TREE}{os.sep}"

    def called(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(root) or not code.co_flags & inspect.CO_OPTIMIZED:
            return None
        ran = lines[code.co_filename.removeprefix(root)]

        def stepped(frame: FrameType, event: str, _: Any) -> Any:
            if event == "line":
                ran.add(frame.f_lineno)
            return stepped

        return stepped

    threading.settrace(called)
    sys.settrace(called)
    try:
        yield lines
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]


def stored(scenario: Any, phase: str, folder: Path) -> dict[str, Document]:
    """Return what the stages of a phase left: content, notes and inputs of each key, by stage and key.

    A key whose rows do not match its record has no content: every reader refuses it.
    """
    from platform_assets.base import naming
    from platform_assets.store.ledgers import Ledgers
    from platform_assets.store.tables import TableStore

    spec, root = scenario.spec, str(folder / phase / "store")
    tables, ledgers = TableStore(root, spec.name), Ledgers(root, spec.name)
    if phase == CUTOFF:
        cutoff = scenario.cutoffs[1]
        result = {}
        for stage in ("checkpoint", "onnx", "evaluation"):
            for document in _records(tables, stage, [cutoff]).values():
                # What a digest names is the content; notes repeat parts of it, and that of a verdict is the bundle's.
                verdict = ledgers.read(naming.VERDICTS, document["content"][0]) if stage == "evaluation" else None
                result[f"{stage} {cutoff}"] = {**document, "notes": {}, "verdict": verdict}
        return result
    run, result = scenario.after[-1], {}
    first = spec.grain.key_at(max(0, spec.grain.index(run.first) - spec.label_delay))
    keys = spec.grain.span(first, run.last)
    for source in spec.sources:
        for stage in ("raw", "validated"):
            name = naming.stage(stage, source.name)
            result |= {f"{name} {key}": item for key, item in _records(tables, name, keys).items()}
        quarantine, name = naming.stage("quarantine", source.name), naming.stage("validated", source.name)
        result |= {f"{name} quarantine {key}": item for key, item in _records(tables, quarantine, keys).items()}
    for stage in ("features", "outcomes", "predictions", "drift", "performance"):
        result |= {f"{stage} {key}": item for key, item in _records(tables, stage, keys).items()}
    for key in keys:
        if (drift := result.get(f"drift {key}")) is not None:
            drift["faults"] = [_content(record) for _, record in ledgers.records(f"faults/{key}")]
    decisions = {key: ledgers.read(naming.DECISIONS, key) for key in keys}
    # A decision states no inputs: it is made from all these records.
    return result | {
        f"decision {key}": {"content": _content(decision), "inputs": dict(result)}
        for key, decision in decisions.items()
        if decision is not None
    }


def _records(tables: Any, name: str, keys: Any) -> dict[str, Document]:
    records = tables.records(name, keys)
    damaged = tables.damaged(name, {key: record for key, record in records.items() if record.columns})
    return {
        key: {
            "content": [record.content_digest, record.rows if record.columns else None],
            "notes": _content(record.notes),
            "inputs": dict(record.inputs),
        }
        for key, record in records.items()
        if key not in damaged
    }


def _content(value: Any) -> Any:
    from tests.goldens.content import _content as content

    return content(value)


def digests_of_items(documents: Mapping[str, Document], like: Mapping[str, Document]) -> dict[str, str]:
    """Return a digest of each item that the unchanged code leaves, and of its inputs; `nothing` of one that is absent.

    Notes are compared by the names that they have there: another name for a time is not content.
    """
    import hashlib

    def digest(value: Any) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()

    result = dict[str, str]()
    for item, expected in like.items():
        document = documents.get(item)
        if document is None:
            result |= {item: "nothing", f"{item} inputs": "nothing"}
            continue
        notes = {name: value for name, value in document.get("notes", {}).items() if name in expected.get("notes", {})}
        content = {name: value for name, value in document.items() if name != "inputs"}
        result[item] = digest({**content, "notes": notes})
        result[f"{item} inputs"] = digest(document["inputs"])
    return result


def _libraries() -> Iterator[str]:
    heavy = ("dagster", "deltalake", "numpy", "obstore", "onnxruntime", "pandera.polars", "polars", "pytest", "torch")
    for name in heavy:
        __import__(name)
        yield name


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        sys.path.insert(0, str(TREE))
        prepare(Path(sys.argv[2]))
    else:
        print(*_libraries(), flush=True)
        serve(Path(sys.argv[2]))
