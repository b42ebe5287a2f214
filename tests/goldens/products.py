"""Shrink the shipped products and an odd one so that they are walked in seconds: fewer rows, keys and epochs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl

from platform_assets.engine import product_files
from platform_assets.product.spec import FaultKind, Product
from platform_assets.products import flight_delays as module
from tests.doubles.products import hourly_temperature
from tests.goldens.walk import Run, Walk

Deliver = Callable[[str, str], bytes | None]
ONE_FLIGHT_IN = 5
PHOTOS = 130
"""With more than 128, names do not count as categories."""


def flight_delays() -> Walk:
    """Return 12 days of one flight in five, and six more with a dead feed on the third."""
    product = module.SPEC

    def some_flights(deliver: Deliver) -> Deliver:
        def delivered(source: str, key: str) -> bytes | None:
            data = deliver(source, key)
            if data is None or source not in ("schedules", "movements", "outcomes"):
                return data
            number = pl.col("flight_id").str.split("-").list.get(4).cast(pl.Int64)
            return pl.read_csv(data, infer_schema=False).filter(number % ONE_FLIGHT_IN == 0).write_csv().encode()

        return delivered

    spec = small(
        product,
        deliver=some_flights,
        model=module.model,  # the network of the product's blend
        training=replace(
            product.training,
            epochs=4,
            batch_size=128,
            learning_rate=1e-2,
            settings={"widths": (16,), "members": 2, "dropout": 0.1},
        ),
        monitors=replace(product.monitors, min_record_keys=6, drift_window=3),
        retraining=replace(product.retraining, decide_every=1, cooldown=3, max_age=60, performance_window=4),
    )
    fault = next(kind for kind in product.history.faults if kind.name == "dead_delay_feed")
    return Walk(
        spec=spec,
        before=Run(first="2013-01-01", last="2013-01-12"),
        after=(
            Run(first="2013-01-13", last="2013-01-15", faults={"2013-01-15": fault}),
            Run(first="2013-01-15", last="2013-01-18"),
        ),
    )


def garment_photos() -> Walk:
    """Return nine batches of 130 photos, and five more with negatives in the third."""
    from platform_assets.products import garment_photos as module

    product = product_files.load("garment_photos")

    def some_photos(deliver: Deliver) -> Deliver:
        def delivered(source: str, key: str) -> bytes | None:
            data = deliver(source, key)
            if data is None:
                return None
            if source == "labels":
                return pl.read_csv(data, infer_schema=False).head(PHOTOS).write_csv().encode()
            from platform_assets.data import images

            photos = module.read_photos(data).head(PHOTOS)
            listed = photos.select("photo_id", pl.format("{}.png", "photo_id").alias("file"), "known_at_utc")
            return module._zipped(images.stacked(photos["pixels"], module.SHAPE), listed.write_csv().encode())

        return delivered

    spec = small(
        product,
        deliver=some_photos,
        training=replace(
            product.training,
            epochs=8,
            batch_size=32,
            learning_rate=5e-3,
            settings={"channels": (4, 8), "hidden": 16, "dropout": 0.1},
        ),
        monitors=replace(product.monitors, min_record_keys=6, drift_window=2),
        retraining=replace(product.retraining, decide_every=1, cooldown=2, max_age=60, performance_window=4),
    )
    fault = next(kind for kind in product.history.faults if kind.name == "inverted")
    return Walk(
        spec=spec,
        before=Run(first="0001", last="0009"),
        after=(Run(first="0010", last="0012", faults={"0012": fault}), Run(first="0012", last="0014")),
    )


def hourly() -> Walk:
    """Return a day and a half of hours, and seven hours more with temperatures in kelvin in the fourth."""
    product = hourly_temperature.SPEC
    spec = small(
        product,
        training=replace(product.training, epochs=3, settings={"widths": (16,), "members": 2}),
        monitors=replace(product.monitors, is_comparing=True, min_record_keys=12, season=1, drift_window=4),
        retraining=replace(product.retraining, decide_every=4, cooldown=4, max_age=400, performance_window=6),
    )
    return Walk(
        spec=spec,
        before=Run(first="2013-01-01T06", last="2013-01-02T17"),
        after=(
            Run(first="2013-01-02T18", last="2013-01-02T21", faults={"2013-01-02T21": KELVIN}),
            Run(first="2013-01-02T21", last="2013-01-03T00"),
        ),
    )


def _in_kelvin(sound: Deliver, source: str, key: str) -> bytes | None:
    data = sound(source, key)
    if data is None or source != "observations":
        return data
    rows = pl.read_csv(data, infer_schema=False)
    kelvin = (pl.col("temperature_f").cast(pl.Float64) - 32) / 1.8 + 273.15
    return rows.with_columns(kelvin.round(2).alias("temperature_f")).write_csv().encode()


KELVIN = FaultKind(
    name="kelvin",
    description="temperatures come in kelvin",
    source="observations",
    check="quarantined_share",
    deliver=_in_kelvin,
)


def small(product: Product, deliver: Callable[[Deliver], Deliver] = lambda sound: sound, **parts: Any) -> Product:
    """Return a product that trains on eight keys and is judged on three."""
    assert product.history is not None
    history = replace(product.history, deliver=deliver(product.history.deliver))
    return replace(product, history=history, holdout=3, min_keys=8, **parts)


WALKS = {"flight_delays": flight_delays, "garment_photos": garment_photos, "hourly_temperature": hourly}
"""Product -> its walk, made on demand because each reads its recording."""
