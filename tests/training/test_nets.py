"""The network on raw columns of any product: closed-form encodings, and every mix of fields."""

import numpy as np
import pytest
import torch

from platform_assets.product.learned import Learned
from platform_assets.product.spec import Training
from platform_assets.product.tasks import Binary
from platform_assets.training.nets import Z_LIMIT, NumericEncoder, TabularNet
from platform_assets.training.train import Loop
from tests.doubles import inputs as doubles

NAN = float("nan")


def learned_of(numeric: int, categorical: int, rows: int = 200) -> tuple[Learned, np.ndarray, np.ndarray]:
    stream = np.random.default_rng(0)
    numbers = stream.normal(size=(rows, numeric)).astype(np.float32)
    text = np.array(["a", "b", "c"], dtype=object)[stream.integers(0, 3, (rows, categorical))]
    return doubles.learned(doubles.inputs_of(numbers, text)), numbers, text


def encoder(values: list[float]) -> NumericEncoder:
    matrix = np.array(values, dtype=np.float32).reshape(-1, 1)
    return NumericEncoder(doubles.learned(doubles.inputs_of(matrix)))


def test_the_quantile_position_is_the_mid_distribution_function_scaled_to_unit_variance() -> None:
    encode = encoder([float(value) for value in range(17)])
    z, position = encode(torch.tensor([[0.0], [8.0], [16.0], [4.5], [-3.0], [99.0]])).unbind(1)
    below = torch.tensor([0.5, 8.5, 16.5, 5.0, 0.5, 16.5]) / 17
    torch.testing.assert_close(position, (below - 0.5) * 12**0.5)
    torch.testing.assert_close(z[:4], (torch.tensor([0.0, 8.0, 16.0, 4.5]) - 8) / 24**0.5)


def test_values_outside_of_training_count_as_the_nearest_trained_one_and_outliers_as_the_limit() -> None:
    encode = encoder([0.0] * 99 + [100.0])
    inside, outlier, beyond, below = encode(torch.tensor([[0.0], [100.0], [1e6], [-1e6]]))[:, 0].tolist()
    assert outlier == beyond == Z_LIMIT
    assert inside == below == pytest.approx(-1 / 99**0.5)


def test_null_becomes_zero_in_both_and_one_in_the_indicator() -> None:
    encode = encoder([1.0, 2.0, 3.0, NAN])
    assert encode.width == 3
    assert encode(torch.tensor([[NAN], [2.0]])).tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_a_column_never_null_in_training_gets_no_indicator_and_still_takes_a_null() -> None:
    encode = encoder([1.0, 2.0, 3.0])
    assert encode.width == 2
    assert encode(torch.tensor([[NAN]])).tolist() == [[0.0, 0.0]]


def test_a_constant_column_is_zero_everywhere() -> None:
    assert encoder([5.0] * 20)(torch.tensor([[5.0], [NAN]])).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(("numeric", "categorical"), [(3, 2), (4, 0), (0, 2), (1, 0), (0, 1)])
def test_any_mix_of_fields_gives_the_requested_outputs_per_row(numeric: int, categorical: int) -> None:
    learned, numbers, _ = learned_of(numeric, categorical)
    network = TabularNet(learned, widths=(8,), embedding=2)
    codes = torch.ones(len(numbers), categorical, dtype=torch.int64)
    assert network(torch.from_numpy(numbers), codes).shape == (len(numbers), 1)
    wide = TabularNet(learned, outputs=3, widths=(8,), embedding=2)
    assert wide(torch.from_numpy(numbers), codes).shape == (len(numbers), 3)


def test_encoding_once_and_deciding_later_is_the_same_as_forward() -> None:
    learned, numbers, _ = learned_of(3, 2)
    network = TabularNet(learned).eval()
    inputs = torch.from_numpy(numbers), torch.ones(len(numbers), 2, dtype=torch.int64)
    assert torch.equal(network(*inputs), network.decide(*network.encode(*inputs)).mean(dim=1))


def test_columns_with_equal_values_have_separate_embeddings() -> None:
    learned, _, _ = learned_of(0, 2)
    network = TabularNet(learned).eval()
    first, second = network(torch.zeros(2, 0), torch.tensor([[1, 2], [2, 1]]))
    assert first != second


def test_only_weights_are_state_because_the_rest_is_learned_json() -> None:
    learned, _, _ = learned_of(3, 2)
    assert {name.split(".")[0] for name in TabularNet(learned).state_dict()} == {"table", "members"}


def test_members_answer_by_their_mean_logit() -> None:
    learned, numbers, _ = learned_of(3, 2)
    network = TabularNet(learned, widths=(4,), members=3).eval()
    inputs = torch.from_numpy(numbers), torch.ones(len(numbers), 2, dtype=torch.int64)
    item = network.decide(*network.encode(*inputs))
    assert item.shape == (len(numbers), 3, 1)
    torch.testing.assert_close(network(*inputs), item.sum(dim=1) / 3)


def test_invalid_settings_are_refused() -> None:
    learned, _, _ = learned_of(1, 0)
    with pytest.raises(ValueError, match=r"widths=\(\).*Training.settings"):
        TabularNet(learned, widths=())


@pytest.mark.costly
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_members_learn_from_numbers_and_text_in_either_precision(precision: str) -> None:
    learned, numbers, text = learned_of(3, 2)
    torch.manual_seed(0)
    network = TabularNet(learned, widths=(16,), members=2, embedding=2)
    inputs = torch.from_numpy(numbers), torch.from_numpy(np.searchsorted(["a", "b", "c"], text.astype(str)))
    labels = (torch.from_numpy(numbers[:, 0]) > 0).to(torch.int8)
    training = Training(threads=1, epochs=20, batch_size=20, learning_rate=0.02)
    loop = Loop(network, inputs, labels, training, Binary(), precision=precision)
    while not loop.is_finished:
        loop.step()
    assert loop.history[-1]["train_loss"] < 0.2 < loop.history[0]["train_loss"]
