"""A training script of one's own as a learner: its loop, its optimizer, its stop; docs/cookbook.md prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from platform_assets.learners.base import Blobs, Context, Learner


@dataclass(frozen=True, kw_only=True)
class OwnLoop(Learner):
    """Logistic regression by plain gradient descent, in a loop that nobody but its author knows."""

    epochs: int = 30
    rate: float = 0.5

    def fit(self, rows: Any, labels: Any, context: Context) -> dict[str, bytes]:
        import torch
        from safetensors.torch import save

        torch.manual_seed(context.training.seed)
        numeric = torch.nan_to_num(torch.from_numpy(rows.numeric))
        target = torch.from_numpy(labels).float()
        network = torch.nn.Linear(numeric.shape[1], 1)
        optimizer = torch.optim.SGD(network.parameters(), lr=self.rate)
        for epoch in range(1, self.epochs + 1):
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(numeric)[:, 0], target)
            loss.backward()
            optimizer.step()
            context.progress.note(epoch, self.epochs, train_loss=loss.item())
        return {"own.safetensors": save(network.state_dict())}

    def to_onnx(self, blobs: Blobs, graphs: Any) -> bytes:
        return graphs.of_network(_network(blobs))

    def answers(self, blobs: Blobs, rows: Any, context: Context) -> Any:
        import torch

        with torch.no_grad():
            return torch.sigmoid(_network(blobs)(torch.from_numpy(rows.numeric), torch.empty(0)))[:, 0].numpy()


def _network(blobs: Blobs) -> Any:
    import torch
    from safetensors.torch import load

    class Whole(torch.nn.Module):
        def __init__(self, weights: Any) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(weights["weight"].shape[1], 1)
            self.linear.load_state_dict(weights)

        def forward(self, numeric: Any, codes: Any) -> Any:
            return self.linear(torch.nan_to_num(numeric))

    return Whole(load(blobs["own.safetensors"])).eval()
