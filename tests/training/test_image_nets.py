"""The image network: shapes, seeds, augmentation, and its graph."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from platform_assets.product.spec import Training
from platform_assets.product.tasks import MultiClass
from platform_assets.training.image_nets import ConvNet, shifted
from platform_assets.training.train import Loop
from tests.doubles import inputs as doubles

SHAPE = (8, 6)
CLASSES = ("dark", "light", "other")
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
INPUTS = doubles.inputs_of(image=IMAGES)
LEARNED = doubles.learned(INPUTS)


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def net(seed: int = 0, **settings: Any) -> ConvNet:
    torch.manual_seed(seed)
    return ConvNet(LEARNED, len(CLASSES), **{"channels": (4, 5), "hidden": 7, **settings})


def tensors(rows: int = len(IMAGES)) -> tuple[torch.Tensor, ...]:
    return (
        torch.zeros(rows, 0),
        torch.zeros(rows, 0, dtype=torch.int64),
        torch.from_numpy(IMAGES[:rows].copy()),
    )


def test_one_channel_and_an_odd_shape_work() -> None:
    learned = doubles.learned(doubles.inputs_of(image=IMAGES[:, :5, :3]))
    result = ConvNet(learned, 2, channels=(3,))(*tensors()[:2], torch.from_numpy(IMAGES[:, :5, :3].copy()))
    assert result.shape == (40, 2)


def test_the_same_seed_gives_the_same_weights_and_the_same_augmentation() -> None:
    labels = torch.arange(40) % 3
    training = Training(epochs=2, batch_size=16, seed=3)

    def trained(seed: int) -> dict[str, torch.Tensor]:
        loop = Loop(net(seed, flip=True, shift=2), tensors(), labels, training, MultiClass(classes=CLASSES))
        while not loop.is_finished:
            loop.step()
        return loop.model.state_dict()

    one, again, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_learns_to_distinguish_dark_from_light(precision: str) -> None:
    image = torch.from_numpy(IMAGES // 4).clone()
    image[::2] += 150
    inputs = (*tensors()[:2], image)
    labels = (torch.arange(40) + 1) % 2
    training = Training(epochs=20, batch_size=8, learning_rate=5e-3)
    loop = Loop(net(dropout=0.1), inputs, labels, training, MultiClass(classes=CLASSES[:2]), precision=precision)
    while not loop.is_finished:
        loop.step()
    assert torch.equal(loop.model.eval()(*inputs).argmax(dim=1), labels)


def test_rows_are_augmented_only_in_training() -> None:
    model = net(flip=True, shift=1, dropout=0.0)
    image = tensors()[2]
    varied = model._varied(image)
    assert varied.dtype == torch.uint8
    assert not torch.equal(varied, image)
    model.eval()
    assert torch.equal(model(*tensors()), model(*tensors()))


def test_a_mirrored_row_is_mirrored_completely() -> None:
    torch.manual_seed(5)
    image = tensors()[2]
    varied = net(flip=True)._varied(image)
    is_same = (varied == image).flatten(1).all(dim=1)
    is_mirrored = (varied == image.flip(2)).flatten(1).all(dim=1)
    assert (is_same ^ is_mirrored).all()
    assert 10 < int(is_mirrored.sum()) < 30


def test_a_shift_moves_pixels_and_fills_with_black() -> None:
    image = torch.arange(1, 7, dtype=torch.uint8).reshape(1, 2, 3).repeat(3, 1, 1)
    moved = shifted(image, torch.tensor([1, 0, -1]), torch.tensor([0, 1, -2]))
    assert moved.tolist() == [[[0, 0, 0], [1, 2, 3]], [[0, 1, 2], [0, 4, 5]], [[6, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": ()}, "expected at least one of each"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
        ({"shift": -1}, "a shift of at least 0"),
        ({"channels": (2, 2, 2)}, "3 stages leave nothing of an image of 8 x 6 pixels"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        net(**settings)


def test_a_product_without_an_image_is_refused() -> None:
    learned = doubles.learned(doubles.inputs_of(np.zeros((3, 1), dtype=np.float32)))
    with pytest.raises(ValueError, match="the product has no image"):
        ConvNet(learned, 2)


def test_tensors_created_in_training_are_on_the_device_of_the_rows() -> None:
    """Nothing is computed on the device `meta`, and tensors of another device are refused as on a GPU."""
    network = net(flip=True, shift=2).to("meta").train()
    result = network(*(part.to("meta") for part in tensors()))
    loss = MultiClass(classes=CLASSES).loss(result, torch.zeros(len(IMAGES), dtype=torch.int64, device="meta"), None)
    loss.backward()
    assert {value.grad.device.type for value in network.parameters() if value.grad is not None} == {"meta"}
