"""The results of each maker of the odd product for inputs stored by a walk: code digests, and digests of bytes.

`python d1_bytes.py prepare PLACE` walks; `python d1_bytes.py serve PLACE` forks one process per line of its input, with
libraries loaded and none of our modules, which prints two JSON lines: digests by stage, then bytes by stage.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parents[2]
LONGEST_S = 60
"""Of CPU time; ten times as long by the clock."""
FEW = 6


def prepare(walk_folder: Path) -> None:
    """Walk the product and store the walk below a folder."""
    from tests.goldens.products import hourly
    from tests.goldens.walk import settings_in, walk

    settings = settings_in(walk_folder)
    os.environ |= settings.to_environment()
    walk(hourly(), settings)


def serve(walk_folder: Path) -> None:
    """Answer each line of the input: the stages to leave out."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
            signal.alarm(10 * LONGEST_S)
            try:
                without = set(json.loads(line))
                sys.path.insert(0, str(TREE))
                from tests.goldens.products import hourly
                from tests.goldens.stages import digests_of

                spec = hourly().spec
                print(json.dumps(digests_of(spec)), flush=True)
                with tempfile.TemporaryDirectory(dir=walk_folder) as folder, Path(os.devnull).open("w") as silent:
                    shutil.copytree(walk_folder / "store", Path(folder, "store"))
                    shutil.copytree(walk_folder / "state", Path(folder, "state"))
                    digests = dict[str, str]()
                    for stage, make in _stages(spec, Path(folder)).items():
                        if stage not in without:
                            try:
                                with contextlib.redirect_stderr(silent):
                                    digests |= {f"{stage}{of}": _digest(value) for of, value in make().items()}
                            except Exception as problem:  # noqa: BLE001  # a maker that fails has other bytes
                                digests[stage] = f"{type(problem).__name__}: {problem}"
                    print(json.dumps(digests), flush=True)
            except BaseException:  # noqa: BLE001  # whatever a mutant raises is the answer
                print(json.dumps({"broken": traceback.format_exc(limit=-1)}), flush=True)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        print("END", flush=True)


def _stages(spec: Any, folder: Path) -> dict[str, Callable[[], Any]]:
    """Return by stage the function that makes its bytes."""
    from platform_assets.base.settings import Settings
    from platform_assets.store.artifacts import ArtifactStore
    from platform_assets.store.product_store import ProductStore
    from platform_assets.store.tables import TableStore
    from tests.goldens.stages import makers

    settings = Settings(root=str(folder / "store"), state=folder / "state")
    tables = TableStore(settings.root, spec.name)
    artifacts, makers_by_stage = ArtifactStore(settings.root), makers(spec)
    keys = tuple(sorted(tables.records("features"), key=spec.grain.index))
    newest, cutoffs = keys[-FEW:], sorted(tables.records("onnx"))
    bundle = artifacts.bundle(tables.records("onnx")[cutoffs[-1]].content_digest)
    manifest = bundle.manifest

    def stored(stage: str, some: tuple[str, ...]) -> Any:
        records = tables.records(stage, some)
        return tables.read_exact(stage, {key: record.content_digest for key, record in records.items()})

    def raw(name: str) -> Callable[[], Any]:
        from datetime import UTC, datetime

        from platform_assets.product.channels import Landed

        def make() -> Any:
            source = spec.source(name)
            files = sorted(Path(settings.root, "landing", spec.landing_of(source)).glob(f"*{source.suffix}"))[-FEW:]
            at = datetime(2024, 1, 2, tzinfo=UTC)
            landed = {
                file.stem: Landed(uri=file.name, data=file.read_bytes(), arrived_at_utc=at, mark="") for file in files
            }
            return makers_by_stage[f"raw_{name}"].make(landed, {})

        return make

    def validated(name: str) -> Callable[[], Any]:
        def make() -> Any:
            rows = stored(f"raw_{name}", newest)
            parts = rows.partition_by("key", as_dict=True)
            return makers_by_stage[f"validated_{name}"].make({str(key): part for (key,), part in parts.items()})

        return make

    def features() -> Any:
        reach = spec.grain.with_lookback(newest, spec.lookback)
        rows = {source.name: stored(f"validated_{source.name}", reach) for source in spec.feature_sources}
        return makers_by_stage["features"].make(newest, rows, {})

    def outcomes() -> Any:
        keys_of_labels = tuple(tables.records("outcomes", newest))
        return makers_by_stage["outcomes"].make(
            keys_of_labels, stored(f"validated_{spec.label_source.name}", keys_of_labels)
        )

    def predictions() -> Any:
        maker, files = makers_by_stage["predictions"], sorted((settings.prediction_log / spec.name).glob("*.jsonl"))
        parsed = [maker.parse(file.read_bytes(), file.name, 0) for file in files]
        rows, strangers = maker.assign_keys(parsed, {})
        rows = maker.merge(None, maker.mark_late(rows, {}))
        return rows, strangers, {**maker.notes(rows), "measured": None}

    def drift() -> Any:
        maker = makers_by_stage["drift"]
        judge = maker.judge(ProductStore(spec, settings), newest)
        inputs = {key: judge.inputs(key) for key in newest}
        return _by_key(inputs, maker.make(judge, newest))

    def performance() -> Any:
        from platform_assets.monitoring.performance_inputs import KeyRecords

        maker = makers_by_stage["performance"]
        existing = KeyRecords.read(maker, tables, ProductStore(spec, settings).history, newest, keys)
        inputs = {key: existing.inputs(key) for key in newest}
        stale = tuple(key for key in newest if inputs[key] is not None)
        return _by_key(inputs, maker.make(tables, existing, stale, maker.own_answers(artifacts))[0])

    def learned() -> Any:
        from platform_assets.product.learned import Learned

        return Learned.from_json(json.loads(bundle.read("learned.json")))

    def checkpoint() -> Any:
        from platform_assets.product.learner import Alone

        maker = makers_by_stage["checkpoint"]
        maker.prepare("cpu", "float32")
        data = manifest["data"]
        rows = maker.rows(tables, manifest["training_keys"], data["features"], data["outcomes"], None).labelled()
        result, progress = maker.learn(rows), Alone()
        blobs = maker.fit(result, rows, manifest["training_keys"], progress, "cpu", "float32")
        return result.to_json(), blobs, progress.history, maker.baselines(result, rows)

    def onnx() -> Any:
        maker, data = makers_by_stage["onnx"], manifest["data"]
        rows = maker.learning.rows(tables, manifest["training_keys"], data["features"], data["outcomes"], None)
        return maker.documents(bundle.read("model.onnx"), learned(), rows, manifest["training_keys"])

    def graph() -> Any:
        from platform_assets.training.learners.network import WEIGHTS

        return makers_by_stage["onnx"].graph(learned(), {WEIGHTS: bundle.read(WEIGHTS)})

    def evaluation() -> Any:
        return makers_by_stage["evaluation"].judge(artifacts, tables, bundle.digest, None)

    stages = {f"raw_{item.name}": raw(item.name) for item in spec.sources}
    stages |= {f"validated_{item.name}": validated(item.name) for item in spec.sources}
    stages |= {"features": features, "outcomes": outcomes, "predictions": predictions}
    stages |= {"checkpoint": checkpoint, "onnx": onnx, "onnx graph": graph, "evaluation": evaluation}
    # Drift is the last one: it records the faults that it finds, which performance reads.
    return {stage: _whole_stage(make) for stage, make in stages.items()} | {"performance": performance, "drift": drift}


def _whole_stage(make: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    return lambda: {"": make()}


def _by_key(inputs: Mapping[str, Any], result: Any) -> dict[str, Any]:
    """Return the results by key, and the inputs of each key's record: if they change, the key is made again."""
    parts = {f" {key}": (result.frames.get(key), result.notes.get(key)) for key in inputs}
    return {**parts, **{f" {key} inputs": value for key, value in inputs.items()}}


def _digest(value: Any) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    import hashlib
    from dataclasses import fields, is_dataclass

    import polars as pl

    if isinstance(value, pl.DataFrame):
        types = [str(dtype) for dtype in value.dtypes]
        return [value.columns, types, hashlib.sha256(repr(value.rows()).encode()).hexdigest()]
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, Mapping):
        return [[str(key), _plain(entry)] for key, entry in sorted(value.items(), key=lambda item: str(item[0]))]
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    if is_dataclass(value):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    return value if isinstance(value, str | int | float | bool | type(None)) else repr(value)


def _libraries() -> Iterator[str]:
    heavy = ("dagster", "deltalake", "numpy", "obstore", "onnxruntime", "pandera.polars", "polars", "torch")
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
