"""A profile has processes that its learner can share, and their number is not in a training's fingerprint."""

from dataclasses import replace
from typing import Any

import pytest

from platform_assets.base.settings import Settings
from platform_assets.launch.profiles import PROFILES, StepProfile
from platform_assets.product.learner import Learner
from platform_assets.product.spec import Product
from platform_assets.store.product_store import ProductStore
from platform_assets.training import requests
from platform_assets.training.learners.blend import Blend
from platform_assets.training.learners.boosted import LightGbm
from platform_assets.training.learners.estimator import Estimator
from platform_assets.training.learners.finished import FinishedOnnx
from platform_assets.training.learners.network import Network, check_processes
from tests.doubles import tiny_product, tuned_product

SPEC = tiny_product.SPEC
SMALL = PROFILES["cpu_small"]
TWO = SMALL.replace(processes=2)
NETWORK = Network(model=tiny_product.model)


class OwnLoop(LightGbm):
    """A learner of a product's own, whose loop resumes."""

    resumes = True


def check(spec: Product, size: StepProfile) -> None:
    check_processes(spec, size.name, size.world_size)


@pytest.mark.parametrize(
    "learner",
    [
        LightGbm(),
        Estimator(make=lambda _: None),
        FinishedOnnx(place="models", file="model.onnx", sha256="0" * 64),
        Blend(learners=(NETWORK, LightGbm())),
        OwnLoop(),
    ],
)
def test_a_learner_that_computes_in_one_process_is_refused_a_profile_with_more(learner: Learner) -> None:
    spec = replace(SPEC, model=learner)
    check(spec, SMALL)
    for size in (TWO, PROFILES["gpu"].replace(accelerators=8)):
        computes_in_one = f"profile {size.name} has .* {type(learner).__name__} computes in one, so it would waste"
        with pytest.raises(ValueError, match=computes_in_one):
            check(spec, size)


@pytest.mark.parametrize("model", [tiny_product.model, NETWORK])
def test_a_network_shares_a_batch_that_its_processes_divide(model: Any) -> None:
    spec = replace(SPEC, model=model)
    check(spec, TWO)
    with pytest.raises(ValueError, match=r"has 3 processes .* not divide its batch_size, 64; expected a multiple of 3"):
        check(spec, SMALL.replace(processes=3))


def test_a_training_is_the_same_whatever_the_number_of_its_processes(settings: Settings) -> None:
    product = tuned_product.product(settings)
    keys = (tuned_product.BEFORE_HOLDOUT[:-2], tuned_product.BEFORE_HOLDOUT[-2:])
    one, two = (requests.request_of(product, tiny_product.CUTOFF, size, *keys) for size in (SMALL, TWO))
    assert (one.world_size, two.world_size) == (1, 2)
    assert requests.fingerprint(product.spec, "code", one, {}) == requests.fingerprint(product.spec, "code", two, {})
    with pytest.raises(ValueError, match="would waste the rest"):
        requests.request_of(
            ProductStore(replace(product.spec, model=LightGbm()), settings), tiny_product.CUTOFF, TWO, *keys
        )
