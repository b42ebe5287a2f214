"""Make a learner's ONNX file: from raw numbers, text and grey levels to answers.

A core graph reads `numeric` float32 [N, F] and `codes` int64 [N, C] (and `image`); the finished one reads text, because
the look-up of codes is put before it. See `training.export`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets.product.learner import Graphs

if TYPE_CHECKING:
    import onnx
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class OnnxGraphs(Graphs):
    """Makes ONNX files. Each way loads its libraries when it is taken: trees need no torch."""

    def of_network(self, network: nn.Module) -> bytes:
        """Export the module to a core graph, and finish it."""
        from platform_assets.training.export import to_onnx

        return to_onnx(network, self.learned, self.task)

    def of_core(self, core: onnx.ModelProto) -> bytes:
        """Put the look-up of codes before the core."""
        from platform_assets.training import export

        return export.finished(core, self.learned)

    def of_blend(self, files: Sequence[bytes], weights: Sequence[float]) -> bytes:
        """Join the files into one graph."""
        from platform_assets.training import blending

        return blending.blend(files, weights)
