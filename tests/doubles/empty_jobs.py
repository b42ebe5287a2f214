"""Jobs named like a product's own that do nothing, for tests of sensors that only need the launch."""

from collections.abc import Iterable

import dagster as dg

from platform_assets.base import naming
from platform_assets.product.spec import Product


def of(verb: str, specs: Iterable[Product]) -> list[dg.JobDefinition]:
    return [_empty(naming.job(verb, spec.name)) for spec in specs]


def _empty(name: str) -> dg.JobDefinition:
    @dg.op(name=f"nothing_of_{name}")
    def nothing() -> None:
        return None

    @dg.job(name=name)
    def job() -> None:
        nothing()

    return job
