"""Export one checkpoint and seal its bundle: `python -m platform_assets.training.steps.export`, input by Dagster Pipes.

Parity is proved on every holdout row first: no parity, no bundle. The bundle's content is deterministic, so that the
same checkpoint gives the same digest from any checkout, machine state or time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from platform_assets.base.settings import Settings
from platform_assets.engine import product_files
from platform_assets.engine.digests import reads
from platform_assets.product.learned import Learned
from platform_assets.product.spec import Product, Training
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.records.trainings import CheckpointManifest
from platform_assets.store.tables import TableStore
from platform_assets.training.onnx_maker import Exporting
from platform_assets.training.steps import instructions, process
from platform_assets.training.steps.jobs import Exported, ExportJob
from platform_assets.training.stored_models import read_model

if TYPE_CHECKING:
    from platform_assets.training.labelled_rows import Rows


def run(spec: Product, checkpoint: str, settings: Settings, *, log: Callable[[str], None]) -> object:
    """Export, prove parity, sketch and seal; return the step's result, as JSON values.

    Args:
        checkpoint: sha256 of the manifest that the training step wrote.
        log: takes one line at a time.

    Raises:
        ParityFailure: graph and network disagree; nothing is sealed.
        ArtifactProblem: a blob is missing or was changed.
        ValueError: the checkpoint belongs to another product.
    """
    store, tables = ArtifactStore(settings.root), TableStore(settings.root, spec.name)
    manifest = msgspec.convert(store.get_json(checkpoint), CheckpointManifest)
    if manifest.product != spec.name:
        raise ValueError(f"checkpoint {checkpoint} belongs to product {manifest.product!r}; expected {spec.name!r}.")
    config = store.get_json(manifest.config)
    learned = Learned.from_json(store.get_json(manifest.learned))
    blobs = read_model(store, manifest.weights)
    maker = Exporting.for_product(spec)
    # As it was trained, but for the profile, which decides where a training runs and not its bytes.
    maker = replace(
        maker,
        learning=replace(maker.learning, training=Training(**{**config["training"], "profile": Training.profile})),
    )
    graph = maker.graph(learned, blobs)
    log(f"exported {len(graph)} bytes.")
    holdout = _rows(maker, tables, manifest, manifest.holdout_keys)
    parity = maker.parity(blobs, learned, graph, holdout)
    log(f"parity on {parity.rows} holdout rows: difference at most {parity.max_abs_difference:.1e}.")
    reference = _rows(maker, tables, manifest, manifest.training_keys)
    digest = maker.bundle(store, manifest, learned, blobs, graph, holdout, reference)
    done = Exported(
        bundle=digest,
        parity=parity,
        onnx_bytes=len(graph),
        cpu_s=round(process.cpu_s(), 3),
        peak_memory_mb=round(process.peak_memory_mb(), 1),
    )
    return msgspec.to_builtins(done)


def _rows(maker: Exporting, tables: TableStore, manifest: CheckpointManifest, keys: list[str]) -> Rows:
    known_before = manifest.known_before
    return maker.learning.rows(
        tables,
        keys,
        manifest.data.features,
        manifest.data.outcomes,
        None if known_before is None else datetime.fromisoformat(known_before),
    )


def main() -> None:
    """Run the step that Dagster Pipes describes."""
    process.die_with_parent()
    process.exit_on_sigterm()
    with instructions.opened() as context:
        job = msgspec.convert(context.extras, ExportJob)
        spec = product_files.load_of(job.product, job.module)
        instructions.check_maker(context.extras, Exporting.for_product(spec))
        with reads.guarded(spec.module, Exporting.for_product(spec)):
            result = run(spec, job.checkpoint, Settings.from_environment(), log=context.log.info)
        context.report_custom_message(result)


if __name__ == "__main__":
    main()
