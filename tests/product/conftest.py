"""The reference product's year, landed, validated and built once per session (about 15 CPU seconds)."""

from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
import pytest

from platform_assets.base.naming import UNPARTITIONED
from platform_assets.data import landed, validation
from platform_assets.engine.product_files import load
from platform_assets.product.spec import Product, Window

ARRIVED = datetime(2014, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Year:
    """Every key of the product: good rows by source, quarantined rows, landed rows by source, and features."""

    spec: Product
    tables: dict[str, pl.DataFrame]
    quarantined: pl.DataFrame
    landed: dict[str, int]
    built: pl.DataFrame


@pytest.fixture(scope="session")
def year() -> Year:
    spec = load("flight_delays")
    keys = spec.grain.span(spec.grain.first, spec.grain.last or "")
    tables, quarantined, counts = {}, [], {}
    for source in spec.sources:
        schema = source.schema()
        raws = {
            key: landed.rows(spec.history.deliver(source.name, key), columns=[*schema.columns], arrived_at_utc=ARRIVED)
            for key in ((UNPARTITIONED,) if source.is_slow else keys)
        }
        key_of = validation.key_column(source.partition_by, spec.grain.key_of) if source.partition_by else None
        splits = validation.split_keys(
            raws, schema, schema_version=source.schema_version, unique=source.unique, key_of=key_of
        )
        tables[source.name] = pl.concat(part.good.with_columns(key=pl.lit(key)) for key, part in splits.items())
        quarantined += [
            part.quarantined.select(pl.lit(source.name).alias("source"), pl.lit(key).alias("key"), pl.all())
            for key, part in splits.items()
        ]
        counts[source.name] = sum(raw.height for raw in raws.values())
    feeds = {source.name: tables[source.name] for source in spec.feature_sources}
    built = spec.features(feeds, Window(grain=spec.grain, keys=keys))
    return Year(spec=spec, tables=tables, quarantined=pl.concat(quarantined), landed=counts, built=built)
