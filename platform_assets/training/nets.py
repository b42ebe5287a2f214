"""Networks that read raw columns: normalising, imputing, binning and embedding happen inside the module.

A network of this project maps `numeric` float32 [N, F] (NaN is null), `codes` int64 [N, C] and, if the product has one,
`image` uint8 [N, H, W] to outputs [N, O], where O is the task's `outputs`. If its `forward` is split into `encode` (no
weights) and `decide`, training encodes every row only once; `decide` may return the outputs [N, K, O] of several
members, each of which then learns by its own loss.

Shape suffixes: N rows, F numeric inputs, C categorical inputs, B bins, D inputs of the first layer, M missing
indicators, K members, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from platform_assets.product.learned import Learned

Z_LIMIT = 6.0
"""Clip values at this many standard deviations: a broken sensor must not saturate the network."""
LARGEST = 3e38


class NumericEncoder(nn.Module):
    """Encode raw numbers as z-scores, quantile positions and missing indicators.

    The quantile position is the piecewise linear mid-distribution function over the learned edges, scaled to mean 0 and
    variance 1 for a continuous column. Null becomes 0 in both, and 1 in its indicator. Values outside the training
    range count as the nearest training value: like a tree, the network does not extrapolate.
    """

    def __init__(self, learned: Learned) -> None:
        super().__init__()
        columns = learned.numeric
        bins = max(len(column.edges) - 1 for column in columns) or 1
        low_FB, inverse_FB, weight_FB = (torch.zeros(len(columns), bins) for _ in range(3))
        for i, column in enumerate(columns):
            edges = torch.tensor(column.edges, dtype=torch.float64)
            levels = torch.tensor(column.levels, dtype=torch.float64)
            count = len(column.edges) - 1
            low_FB[i, :count] = edges[:-1].float()
            # The inverse of a tiny width is infinite in float32, and 0 times infinity is NaN.
            inverse_FB[i, :count] = (1.0 / (edges[1:] - edges[:-1])).clamp(max=LARGEST).float()
            weight_FB[i, :count] = (levels[1:] - levels[:-1]).float()
        self._register("mean_F", [column.mean for column in columns])
        self._register("scale_F", [1.0 / column.std for column in columns])
        self._register("z_low_F", [max(-Z_LIMIT, (column.low - column.mean) / column.std) for column in columns])
        self._register("z_high_F", [min(Z_LIMIT, (column.high - column.mean) / column.std) for column in columns])
        self._register("base_F", [column.levels[0] - 0.5 for column in columns])
        self.register_buffer("low_FB", low_FB, persistent=False)
        self.register_buffer("inverse_FB", inverse_FB, persistent=False)
        self.register_buffer("weight_FB", weight_FB, persistent=False)
        nullable = [i for i, column in enumerate(columns) if column.has_nulls]
        self.register_buffer("nullable_M", torch.tensor(nullable, dtype=torch.int64), persistent=False)
        self.width = 2 * len(columns) + len(nullable)

    def _register(self, name: str, values: Sequence[float]) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, numeric_NF: Tensor) -> Tensor:
        """Return float32 [N, D]."""
        is_null_NF = torch.isnan(numeric_NF)
        filled_NF = torch.where(is_null_NF, self.mean_F, numeric_NF)
        z_NF = (filled_NF - self.mean_F) * self.scale_F
        z_NF = torch.minimum(torch.maximum(z_NF, self.z_low_F), self.z_high_F)
        share_NFB = torch.clamp((filled_NF.unsqueeze(2) - self.low_FB) * self.inverse_FB, 0.0, 1.0)
        q_NF = (self.base_F + (share_NFB * self.weight_FB).sum(dim=2)) * 12.0**0.5
        q_NF = torch.where(is_null_NF, 0.0, q_NF)
        parts = [z_NF, q_NF]
        if len(self.nullable_M) > 0:
            parts.append(is_null_NF.index_select(1, self.nullable_M).to(torch.float32))
        return torch.cat(parts, dim=1)


class TabularNet(nn.Module):
    """Several multilayer perceptrons over encoded numbers and embedded categories, for any product's fields.

    The members read the same encoding and embeddings and learn by their own losses; the answer is their mean output.

    Args:
        learned: from `training.learn`, of the training rows.
        outputs: numbers per row, `Task.outputs`.
        widths: of each member's hidden layers.
        members: how many.
        embedding: numbers per category; all categories share one table, so a row costs one look-up.
        dropout: after each hidden layer.
    """

    def __init__(
        self,
        learned: Learned,
        *,
        outputs: int = 1,
        widths: Sequence[int] = (256, 256),
        members: int = 1,
        embedding: int = 8,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if not learned.numeric and not learned.categorical:
            raise ValueError(
                "the product has no fields; expected at least one numeric or categorical field in its spec."
            )
        if not widths or min(*widths, members, embedding) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"got widths={tuple(widths)}, members={members}, embedding={embedding}, dropout={dropout}; expected at "
                "least one of each and dropout in [0, 1). Fix Training.settings in the product's file."
            )
        self.encoder = NumericEncoder(learned) if learned.numeric else None
        sizes = [column.size for column in learned.categorical]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.table = nn.Embedding(sum(sizes), embedding) if sizes else None
        self.register_buffer("starts_C", torch.tensor(starts, dtype=torch.int64), persistent=False)
        sizes_D = [(self.encoder.width if self.encoder else 0) + embedding * len(sizes), *widths]
        self.members = nn.ModuleList()
        for _ in range(members):
            layers: list[nn.Module] = []
            for before, after in pairwise(sizes_D):
                layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
            self.members.append(nn.Sequential(*layers, nn.Linear(sizes_D[-1], outputs)))

    def encode(self, numeric_NF: Tensor, codes_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the inputs of `decide`, which need no weights: float32 [N, D] and int64 [N, C]."""
        encoded = numeric_NF if self.encoder is None else self.encoder(numeric_NF)
        return encoded, codes_NC if self.table is None else codes_NC + self.starts_C

    def decide(self, encoded_ND: Tensor, places_NC: Tensor) -> Tensor:
        """Return each member's outputs float32 [N, K, O]."""
        parts = [] if self.encoder is None else [encoded_ND]
        if self.table is not None:
            parts.append(self.table(places_NC).flatten(1))
        inputs = torch.cat(parts, dim=1)
        return torch.stack([member(inputs) for member in self.members], dim=1)

    def forward(self, numeric_NF: Tensor, codes_NC: Tensor) -> Tensor:
        """Return the mean outputs float32 [N, O]."""
        return self.decide(*self.encode(numeric_NF, codes_NC)).mean(dim=1)
