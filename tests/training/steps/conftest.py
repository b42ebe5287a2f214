"""Fixtures for the step tests: the tiny product of `tests/doubles`, and a store with its rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from platform_assets.base.settings import Settings

DOUBLES = Path(__file__).resolve().parents[2] / "doubles"


@pytest.fixture(scope="session")
def tiny() -> Iterator[ModuleType]:
    """The module of the tiny product."""
    sys.path.insert(0, str(DOUBLES))
    import tiny_product

    yield tiny_product
    sys.path.remove(str(DOUBLES))


@pytest.fixture
def extras(tiny: ModuleType, settings: Settings) -> dict[str, Any]:
    """The extras of a training of the tiny product, whose rows are in this test's store."""
    result: dict[str, Any] = tiny.store(settings)
    return result
