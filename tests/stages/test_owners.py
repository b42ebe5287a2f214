"""Two code locations with products of one name on one store: the first that takes rows in keeps the name."""

from collections.abc import Iterator
from dataclasses import replace
from types import FunctionType, ModuleType
from typing import Any

import dagster as dg
import pytest

from platform_assets.base.settings import Settings
from platform_assets.data import owners, raw
from platform_assets.engine.store_resource import StoreResource
from platform_assets.product.spec import Product
from platform_assets.store import ledgers
from platform_assets.store.tables import TableStore
from tests.doubles import numbered_batches as batches
from tests.doubles.built import built

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _new_processes() -> Iterator[None]:
    """Let each run be that of another process, as those of two code locations are."""
    owners._owner.cache_clear()
    yield
    owners._owner.cache_clear()


def defined_in(module: str, **changes: Any) -> Product:
    features: Any = batches.features
    copy = FunctionType(features.__code__, ModuleType(module).__dict__ | features.__globals__, features.__name__)
    copy.__module__ = module
    return replace(batches.SPEC, features=copy, **changes)


def take(settings: Settings, instance: dg.DagsterInstance, spec: Product, key: str = "0001") -> str:
    """Take a batch's readings in, in a process of its own; return why that was refused, if it was."""
    owners._owner.cache_clear()
    batches.land_all(settings.root, "0001", "0002")
    asset = next(item for item in built(spec, raw) if item.key.path[-1] == "raw_readings")
    result = dg.materialize(
        [asset],
        instance=instance,
        partition_key=key,
        resources={"driftline_store": StoreResource(variables=settings.to_environment())},
        raise_on_error=False,
    )
    if result.success:
        return ""
    data = result.failure_data_for_node("numbered_batches__raw_readings")
    assert data is not None and data.user_failure_data is not None
    return str(data.user_failure_data.description)


def test_another_packages_product_of_the_name_is_refused_before_anything_is_taken(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    assert take(settings, instance, defined_in("shop.defs.parts.product")) == ""
    assert take(settings, instance, defined_in("plant.defs.parts.product"), "0002") == (
        f"the rows of numbered_batches in {settings.root} belong to the product of that name in "
        "shop.defs.parts.product, and this one is in plant.defs.parts.product; give it another name, or state "
        "moved_from='shop' in its Product if it is that product, moved."
    )
    assert list(TableStore(settings.root, "numbered_batches").records("raw_readings")) == ["0001"]


def test_a_file_that_moves_keeps_the_name(settings: Settings, instance: dg.DagsterInstance) -> None:
    assert take(settings, instance, defined_in("shop.defs.parts.product")) == ""
    assert take(settings, instance, defined_in("shop.defs.plant.parts.product")) == "", "within the package"
    moved = defined_in("plant.defs.parts.product", moved_from="shop")
    assert take(settings, instance, moved) == "", "to another one, which says so"


def test_whose_a_name_is_costs_one_read_per_process(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, reads = defined_in("shop.defs.parts.product"), list[str]()
    assert take(settings, instance, spec) == ""
    read = ledgers.Ledgers.read

    def counted(self: ledgers.Ledgers, ledger: str, key: str) -> object:
        reads.extend([ledger] if ledger == "defined_in" else [])
        return read(self, ledger, key)

    monkeypatch.setattr(ledgers.Ledgers, "read", counted)
    owners._owner.cache_clear()
    product = owners.ProductStore(spec, settings)
    for _ in range(3):
        owners.claim(product)
    assert reads == ["defined_in"]
