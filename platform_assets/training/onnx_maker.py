"""Export a checkpoint: the ONNX graph with its parity proof, the training sketch, and the reference for later keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypedDict

import msgspec

from platform_assets.store.artifacts import ArtifactStore, canonical, sha256
from platform_assets.training.checkpoint_maker import Learning

if TYPE_CHECKING:
    from platform_assets.product.contract import ContractDocument
    from platform_assets.product.learned import Learned
    from platform_assets.product.learner import Blobs
    from platform_assets.product.spec import Product
    from platform_assets.store.records.base import Document
    from platform_assets.store.records.trainings import CheckpointManifest, Parity
    from platform_assets.training.golden import Golden
    from platform_assets.training.labelled_rows import Rows
    from platform_assets.training.reference import ReferenceDocument

SCORED_AT_ONCE = 4096
Documents = TypedDict(
    "Documents", {"contract.json": "ContractDocument", "sketch.json": "Document", "reference.json": "ReferenceDocument"}
)
"""JSON values by the name of their file; the sketch is a `TrainingSketch`."""


@dataclass(frozen=True, kw_only=True)
class Exporting:
    """Exports a product's models.

    Attributes:
        learning: loads a model of this product; with the checkpoint's own `training` when that one is exported.
        contract: the request contract as JSON values (`product.contract`).
    """

    CARRIERS: ClassVar[tuple[object, ...]] = (ArtifactStore,)

    learning: Learning
    contract: ContractDocument

    @staticmethod
    def for_product(spec: Product) -> Exporting:
        """Return the maker for a product."""
        from platform_assets.product.contract import contract_of

        return Exporting(learning=Learning.for_product(spec), contract=contract_of(spec))

    def graph(self, learned: Learned, blobs: Blobs) -> bytes:
        """Return the ONNX file of a fitted model, from raw columns to answers."""
        from platform_assets.product.learner import Alone
        from platform_assets.training.learners.graphs import OnnxGraphs

        training = self.learning.training
        self.learning.prepare("cpu", "float32")
        graphs = OnnxGraphs(task=self.learning.task, training=training, learned=learned, progress=Alone())
        return self.learning.learner.to_onnx(blobs, graphs)

    def parity(self, blobs: Blobs, learned: Learned, graph: bytes, holdout: Rows) -> Parity:
        """Measure how far graph and model differ on the holdout.

        Raises:
            ParityFailure: they differ too much.
        """
        from platform_assets.training.export import prove_parity

        return prove_parity(self.learning.answers(blobs, learned, holdout), learned, graph, holdout.inputs)

    def golden(self, graph: bytes, learned: Learned, holdout: Rows) -> Golden:
        """Return some rows of the holdout with the graph's answers, which a service asks before it serves the graph."""
        from platform_assets.training import golden
        from platform_assets.training.export import answers

        rows = holdout.inputs[golden.chosen(len(holdout.inputs))]
        unit = 1.0 if learned.target is None else float(learned.target["std"])
        return golden.seal(rows, answers(graph, rows, batch=len(rows)), unit)

    def documents(self, graph: bytes, learned: Learned, rows: Rows, keys: list[str]) -> Documents:
        """Return the contract and the statistics of the training rows.

        Args:
            rows: of the training keys, labelled or not.
        """
        from platform_assets.training.export import answers
        from platform_assets.training.histograms import histograms, training_sketch
        from platform_assets.training.reference import reference_of

        task, frame = self.learning.task, rows.frame
        answer = answers(graph, rows.inputs, batch=SCORED_AT_ONCE, threads=self.learning.training.threads)
        # Each training key's histograms and mix of answers, which later keys are compared with.
        parts = {str(key): part for (key,), part in frame.partition_by("key", as_dict=True).items()}
        by_key = {key: histograms(parts.get(key, frame.clear()), learned) for key in keys}
        edges, names = task.mix_edges(answer), frame["key"].cast(str).to_numpy()
        mixes = {key: task.mix(answer[names == key], edges) for key in keys}
        return {
            "contract.json": self.contract,
            "sketch.json": training_sketch(frame, learned, task, answer=answer).document(),
            "reference.json": reference_of(by_key, mixes, edges, task.document()).to_json(),
        }

    def bundle(
        self,
        store: ArtifactStore,
        manifest: CheckpointManifest,
        learned: Learned,
        blobs: Blobs,
        graph: bytes,
        holdout: Rows,
        rows: Rows,
    ) -> str:
        """Seal a bundle, and return its digest.

        Args:
            manifest: the checkpoint's.
            blobs: the model's own files.
            holdout, rows: of the keys that the manifest names, those of `rows` labelled or not.
        """
        from platform_assets.training import golden

        made = self.documents(graph, learned, rows, manifest.training_keys)
        documents = {name: canonical(document) for name, document in made.items()}
        # No time, host or cost: the digest is the model's name, and a training that was killed must end with the same.
        return store.write_bundle(
            {
                "model.onnx": graph,
                **blobs,
                "learned.json": store.get(manifest.learned),
                "baselines.json": store.get(manifest.baselines),
                "config.json": store.get(manifest.config),
                golden.NAME: canonical(msgspec.to_builtins(self.golden(graph, learned, holdout))),
                **documents,
            },
            {
                "product": manifest.product,
                "cutoff": manifest.cutoff,
                "contract_sha256": sha256(documents["contract.json"]),
                "data": msgspec.to_builtins(manifest.data),
                "known_before": manifest.known_before,
                "training_keys": manifest.training_keys,
                "holdout_keys": manifest.holdout_keys,
            },
        )
