"""Fixtures for the step tests: the tiny product of `tests/doubles`, and a store with its rows."""

from typing import Any

import pytest

from platform_assets.base.settings import Settings
from tests.doubles import tiny_product as tiny
from tests.doubles.shared_training import Shared


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checkpoint of two processes on one node that nothing interrupts."""
    shared = Shared(tmp_path_factory.mktemp("shared") / "alone")
    code, output = shared.run()
    assert code == 0, output
    return shared.checkpoint()


@pytest.fixture
def extras(settings: Settings) -> dict[str, Any]:
    """The extras of a training of the tiny product, whose rows are in this test's store."""
    result: dict[str, Any] = tiny.store(settings)
    return result
