"""Networks over an image field, for any shape and task. Normalisation and augmentation happen inside the module.

Shape suffixes: N rows, F numeric inputs, C categorical inputs, H and W pixels high and wide, L channels of a layer,
D inputs of the last layers, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from platform_assets.product.learned import Learned


class ConvNet(nn.Module):
    """A small convolutional network over one grey image, for any shape and number of outputs.

    Each stage is a 3 by 3 convolution, batch normalisation, ReLU and 2 by 2 max pooling. In training only, rows are
    mirrored and shifted at random by torch's default generator, so the same seed gives the same augmentation.

    Args:
        learned: from `training.learn`, of the training rows; its `image` has shape, mean and standard deviation.
        outputs: numbers per row, `spec.task.outputs`.
        channels: per stage; every stage halves height and width.
        hidden: width of the layer before the outputs.
        dropout: before and after that layer.
        flip: whether training rows are mirrored left to right with probability one half.
        shift: largest random shift of a training row in pixels, in either direction; the gap is filled with the darkest
            level.
    """

    def __init__(
        self,
        learned: Learned,
        outputs: int,
        *,
        channels: Sequence[int] = (32, 64),
        hidden: int = 128,
        dropout: float = 0.3,
        flip: bool = False,
        shift: int = 0,
    ) -> None:
        super().__init__()
        if learned.image is None:
            raise ValueError(
                "the product has no image; expected one field of dtype 'image' in its spec. Add it to `fields`, or "
                "build another network in `model`."
            )
        height, width = learned.image.shape
        if not channels or min(*channels, hidden, outputs) < 1 or not 0 <= dropout < 1 or shift < 0:
            raise ValueError(
                f"got channels={tuple(channels)}, hidden={hidden}, outputs={outputs}, dropout={dropout}, "
                f"shift={shift}; expected at least one of each, dropout in [0, 1) and a shift of at least 0. Fix "
                "Training.settings in the product's file."
            )
        if min(height, width) >> len(channels) < 1:
            raise ValueError(
                f"{len(channels)} stages leave nothing of an image of {height} x {width} pixels, which each of them "
                "halves. Give fewer channels in Training.settings of the product's file."
            )
        self.mean, self.scale = float(learned.image.mean), 1.0 / float(learned.image.std)
        self.flip, self.shift = flip, shift
        sizes = [1, *channels]
        stages = [
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)
            )
            for before, after in pairwise(sizes)
        ]
        self.stages = nn.Sequential(*stages, nn.Flatten())
        width_D = channels[-1] * (height >> len(channels)) * (width >> len(channels))
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width_D, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, outputs),
        )

    def forward(self, numeric_NF: Tensor, codes_NC: Tensor, image_NHW: Tensor) -> Tensor:
        """Return float32 [N, O] of images uint8 [N, H, W]; numbers and categories are not read."""
        if self.training:
            image_NHW = self._varied(image_NHW)
        scaled_NHW = (image_NHW.to(torch.float32) - self.mean) * self.scale
        answer: Tensor = self.head(self.stages(scaled_NHW.unsqueeze(1)))
        return answer

    def _varied(self, image_NHW: Tensor) -> Tensor:
        """Mirror and shift rows at random."""
        # By torch's default generator: the same seed gives the same augmentation.
        if self.flip:
            is_mirrored_N = torch.rand(len(image_NHW), device=image_NHW.device) < 0.5
            image_NHW = torch.where(is_mirrored_N[:, None, None], image_NHW.flip(2), image_NHW)
        if self.shift:
            size = (2, len(image_NHW))
            down_N, right_N = torch.randint(-self.shift, self.shift + 1, size, device=image_NHW.device)
            image_NHW = shifted(image_NHW, down_N, right_N)
        return image_NHW


def shifted(image_NHW: Tensor, down_N: Tensor, right_N: Tensor) -> Tensor:
    """Return images moved down and right by whole pixels per row (negative: up, left), the gap filled with 0."""
    _, height, width = image_NHW.shape
    rows_NH = torch.arange(height, device=image_NHW.device) - down_N[:, None]
    columns_NW = torch.arange(width, device=image_NHW.device) - right_N[:, None]
    moved_NHW = image_NHW.gather(1, rows_NH.clamp(0, height - 1)[:, :, None].expand_as(image_NHW))
    moved_NHW = moved_NHW.gather(2, columns_NW.clamp(0, width - 1)[:, None, :].expand_as(image_NHW))
    is_row_NH = (rows_NH >= 0) & (rows_NH < height)
    is_column_NW = (columns_NW >= 0) & (columns_NW < width)
    return moved_NHW * (is_row_NH[:, :, None] & is_column_NW[:, None, :])
