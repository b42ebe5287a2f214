"""Export one checkpoint and seal its bundle: `python -m platform_assets.steps.export`, told what by Dagster Pipes.

Parity is proved on every holdout row first: no parity, no bundle. The bundle holds only deterministic content, so
that the same checkpoint gives the same digest from any checkout, machine state or time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from safetensors.torch import load

from platform_assets import specs
from platform_assets.compute import determinism, drift
from platform_assets.compute.export import answers, prove_parity, to_onnx
from platform_assets.compute.learn import Learned
from platform_assets.compute.sketch import histograms, sketch
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec, Training
from platform_assets.specs.contract import contract_of
from platform_assets.steps import instructions, process, rows
from platform_assets.storage.artifacts import ArtifactStore, canonical, sha256
from platform_assets.storage.tables import TableStore

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from torch import nn

SCORED_AT_ONCE = 4096


def run(spec: ProductSpec, checkpoint: str, settings: Settings, *, log: Callable[[str], None]) -> dict[str, Any]:
    """Export, prove, sketch and seal; return what the step reports.

    Args:
        checkpoint: sha256 of the manifest that the training step left.
        log: takes one line a turn.

    Raises:
        ParityFailure: graph and network disagree; nothing is sealed.
        ArtifactProblem: a blob is missing or was changed.
        ValueError: the checkpoint belongs to another product.
    """
    store, tables = ArtifactStore(settings.root), TableStore(settings.root, spec.name)
    manifest = store.get_json(checkpoint)
    if manifest["product"] != spec.name:
        raise ValueError(f"checkpoint {checkpoint} is of product {manifest['product']!r}; expected {spec.name!r}.")
    config = store.get_json(manifest["config"])
    learned = Learned.from_json(store.get_json(manifest["learned"]))
    weights = store.get(manifest["weights"])
    training = Training(**config["training"])
    determinism.fix(training.threads)
    network = load_network(spec, learned, training, weights)
    graph = to_onnx(network, learned, spec.task)
    log(f"exported {len(graph)} bytes.")
    holdout = _read(spec, tables, manifest, manifest["holdout_keys"])
    parity = prove_parity(network, learned, spec.task, graph, holdout.inputs)
    log(f"parity on {parity.rows} holdout rows: at most {parity.max_abs_difference:.1e}.")
    reference = _read(spec, tables, manifest, manifest["training_keys"])
    said = answers(graph, reference.inputs, batch=SCORED_AT_ONCE, threads=training.threads)
    contract = canonical(contract_of(spec))
    digest = store.write_bundle(
        {
            "model.onnx": graph,
            "weights.safetensors": weights,
            "learned.json": store.get(manifest["learned"]),
            "baselines.json": store.get(manifest["baselines"]),
            "contract.json": contract,
            "sketch.json": canonical(sketch(reference.frame, learned, spec.task, said=said)),
            "reference.json": canonical(_reference(spec, reference.frame, learned, said, manifest["training_keys"])),
            "config.json": store.get(manifest["config"]),
        },
        {
            "product": spec.name,
            "cutoff": manifest["cutoff"],
            "contract_sha256": sha256(contract),
            "data": manifest["data"],
            "known_before": manifest["known_before"],
            "training_keys": manifest["training_keys"],
            "holdout_keys": manifest["holdout_keys"],
        },
    )
    return {
        "kind": "result",
        "bundle": digest,
        "parity": asdict(parity),
        "onnx_bytes": len(graph),
        "cpu_s": round(process.cpu_s(), 3),
        "peak_memory_mb": round(process.peak_memory_mb(), 1),
    }


def load_network(spec: ProductSpec, learned: Learned, training: Training, weights: bytes) -> nn.Module:
    """Return the trained network, at rest.

    Args:
        weights: safetensors.
    """
    network: nn.Module = spec.model(learned, training)
    network.load_state_dict(load(weights))
    return network.eval()


def _reference(
    spec: ProductSpec, frame: pl.DataFrame, learned: Learned, said: np.ndarray, keys: list[str]
) -> dict[str, Any]:
    """Return the histograms and the mix of answers of each training key: what later keys are compared with."""
    parts = {str(key): part for (key,), part in frame.partition_by("key", as_dict=True).items()}
    of_each = {key: histograms(parts.get(key, frame.clear()), learned) for key in keys}
    edges, names = spec.task.mix_edges(said), frame["key"].cast(str).to_numpy()
    mixes = {key: spec.task.mix(said[names == key], edges) for key in keys}
    return drift.reference_of(of_each, mixes, edges, spec.task.document()).to_json()


def _read(spec: ProductSpec, tables: TableStore, manifest: Mapping[str, Any], keys: list[str]) -> rows.Rows:
    known_before = manifest["known_before"]
    return rows.read(
        spec,
        tables,
        keys=keys,
        features=manifest["data"]["features"],
        outcomes=manifest["data"]["outcomes"],
        known_before=None if known_before is None else datetime.fromisoformat(known_before),
    )


def main() -> None:
    """Run the step that Dagster Pipes describes."""
    process.die_with_parent()
    process.leave_when_told()
    with instructions.opened() as context:
        product, checkpoint = context.get_extra("product"), context.get_extra("checkpoint")
        result = run(specs.load(product), checkpoint, Settings.from_environment(), log=context.log.info)
        context.report_custom_message(result)


if __name__ == "__main__":
    main()
