"""Make a learner's ONNX file: from raw numbers, text and grey levels to answers.

A core graph reads `numeric` float32 [N, F] and `codes` int64 [N, C] (and `image`); the finished one reads text, because
the look-up of codes is put before it. See `training.export`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets.product.learner import Context

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from platform_assets.training.trees import Forest


@dataclass(frozen=True, kw_only=True)
class Graphs(Context):
    """The context of an export, with what makes graphs."""

    def of_network(self, network: nn.Module) -> bytes:
        """Return the ONNX file of a torch module that maps `numeric`, `codes` and `image` to outputs [N, O]."""
        from platform_assets.training.export import to_onnx

        return to_onnx(network, self.learned, self.task)

    def of_trees(self, forest: Forest, spread: float | None = None) -> bytes:
        """Return the ONNX file of boosted trees over numbers and then codes.

        Args:
            spread: of a regression's answers, one standard deviation.
        """
        from platform_assets.training import export, trees

        return export.finished(trees.core(forest, self.learned, self.task, spread), self.learned)

    def of_core(self, core: onnx.ModelProto) -> bytes:
        """Return the ONNX file of a core graph, whose output is `answer`."""
        from platform_assets.training import export

        return export.finished(core, self.learned)

    def of_blend(self, files: Sequence[bytes], weights: Sequence[float]) -> bytes:
        """Return one ONNX file whose answer is the weighted mean of others' answers."""
        from platform_assets.training import blending

        return blending.blend(files, weights)
