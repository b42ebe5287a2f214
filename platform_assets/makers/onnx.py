"""Export a checkpoint: the graph with its parity, the sketch of its training rows, and what later keys meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from platform_assets.makers.checkpoint import Learning

if TYPE_CHECKING:
    from torch import nn

    from platform_assets.compute.drift import ReferenceDocument
    from platform_assets.compute.export import Parity
    from platform_assets.compute.learn import Learned
    from platform_assets.makers.rows import Rows
    from platform_assets.product.contract import ContractDocument
    from platform_assets.records.base import Document
    from platform_assets.specs.base import ProductSpec

SCORED_AT_ONCE = 4096
Documents = TypedDict(
    "Documents",
    {"contract.json": "ContractDocument", "sketch.json": "Document", "reference.json": "ReferenceDocument"},
)
"""JSON values by the name of their file; the sketch is a `TrainingSketch`."""


@dataclass(frozen=True, kw_only=True)
class Exporting:
    """Exports the models of a product.

    Attributes:
        learning: what loads a model of this product; its `training` is the checkpoint's own where that is exported.
        contract: what a service may be asked, as JSON values (`product.contract`).
    """

    learning: Learning
    contract: ContractDocument

    @staticmethod
    def of(spec: ProductSpec) -> Exporting:
        """Return what exports a product's models."""
        from platform_assets.product.contract import contract_of

        return Exporting(learning=Learning.of(spec), contract=contract_of(spec))

    def graph(self, learned: Learned, weights: bytes) -> tuple[nn.Module, bytes]:
        """Return the network of some weights, and its ONNX file from raw columns to answers."""
        from platform_assets.compute import determinism
        from platform_assets.compute.export import to_onnx

        determinism.fix(self.learning.training.threads)
        network = self.learning.load(learned, weights)
        return network, to_onnx(network, learned, self.learning.task)

    def parity(self, network: nn.Module, learned: Learned, graph: bytes, holdout: Rows) -> Parity:
        """Return how far graph and network are apart on rows.

        Raises:
            ParityFailure: too far.
        """
        from platform_assets.compute.export import prove_parity

        return prove_parity(network, learned, self.learning.task, graph, holdout.inputs)

    def documents(self, graph: bytes, learned: Learned, rows: Rows, keys: list[str]) -> Documents:
        """Return the contract, and what is known of the training rows.

        Args:
            rows: of the training keys, with and without label.
            keys: the training keys.
        """
        from platform_assets.compute.export import answers
        from platform_assets.compute.sketch import sketch

        said = answers(graph, rows.inputs, batch=SCORED_AT_ONCE, threads=self.learning.training.threads)
        return {
            "contract.json": self.contract,
            "sketch.json": sketch(rows.frame, learned, self.learning.task, said=said).document(),
            "reference.json": self._reference(rows, learned, said, keys),
        }

    def _reference(self, rows: Rows, learned: Learned, said: Any, keys: list[str]) -> ReferenceDocument:
        """Return the histograms and the mix of answers of each training key: what later keys are compared with."""
        from platform_assets.compute import drift
        from platform_assets.compute.sketch import histograms

        task, frame = self.learning.task, rows.frame
        parts = {str(key): part for (key,), part in frame.partition_by("key", as_dict=True).items()}
        of_each = {key: histograms(parts.get(key, frame.clear()), learned) for key in keys}
        edges, names = task.mix_edges(said), frame["key"].cast(str).to_numpy()
        mixes = {key: task.mix(said[names == key], edges) for key in keys}
        return drift.reference_of(of_each, mixes, edges, task.document()).to_json()
