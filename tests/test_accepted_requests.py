"""No accepted request stops the feedback loop: 10,000 requests drawn from contracts, logged, then a real advance."""

import json
import random
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.demo import replay
from platform_assets.engine import product_files
from platform_assets.engine.store_resource import StoreResource
from platform_assets.evaluation.releases import next_release
from platform_assets.product.contract import contract_of
from platform_assets.product.spec import Product
from platform_assets.products import garment_photos
from platform_assets.serving.answer.contract import Contract, ContractField
from platform_assets.serving.answer.live import Live
from platform_assets.serving.answer.model import Model
from platform_assets.serving.answer.predict import Predictor
from platform_assets.serving.answer.requests import TEXT_MAX
from platform_assets.serving.log.prediction_log import PredictionLog
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from tests.doubles import instances, models
from tests.doubles.products import hourly_temperature
from tests.serving.picture_files import text_of

pytestmark = pytest.mark.slow

ROWS = 256
LISTS, ENOUGH = 24, 3_400
"""Per product: most lists, and requests; three products give 10,200."""
PRODUCTS = {
    "daily": (lambda: product_files.load("flight_delays"), 1),
    "batches": (lambda: product_files.load("garment_photos"), 1),
    "hourly": (lambda: hourly_temperature.SPEC, 26),
}
"""The product, and the number of keys to advance."""
TEXTS = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["\u0000", "x" * TEXT_MAX, "💥", "'; --", "\u202e", "NaN", " "]
)


def values(item: ContractField) -> st.SearchStrategy[Any]:
    low, high = item.bounds if item.dtype in ("float", "int") else (0, 0)
    strategy: st.SearchStrategy[Any] = {
        "float": lambda: st.floats(low, high),
        "int": lambda: st.integers(int(low), int(high)),
        "bool": st.booleans,
        "category": lambda: TEXTS,
        "image": lambda: st.binary(min_size=1, max_size=8).map(lambda seed: picture(seed, item.sized)),
    }[item.dtype]()
    return st.none() | strategy if item.is_nullable else strategy


def picture(seed: bytes, shape: tuple[int, int]) -> str:
    from platform_assets.data import images

    pixels = (seed * (shape[0] * shape[1]))[: shape[0] * shape[1]]
    return text_of(images.to_png(pixels, shape))


def moments(bounds: tuple[datetime, datetime]) -> st.SearchStrategy[str]:
    """Return moments within bounds as text, in forms that the service may accept; often the bounds themselves."""
    begins, ends = (bound.replace(tzinfo=None) for bound in bounds)
    last = ends - timedelta(microseconds=1)
    drawn = st.datetimes(begins, last) | st.sampled_from([begins, last, begins + timedelta(hours=30)])
    forms = st.sampled_from(["{}Z", "{}+00:00", "{}z", "{}-00:00"])
    return st.builds(lambda moment, form: form.format(moment.isoformat()), drawn, forms)


@st.composite
def bodies(draw: st.DrawFn, contract: Contract) -> list[dict[str, Any]]:
    """Return a list of rows of values drawn for each field; few keys, so that the run afterwards is short."""
    times = [draw(st.lists(moments(bound), min_size=1, max_size=4)) for bound in contract.moments]
    pools = {item.name: draw(st.lists(values(item), min_size=1, max_size=2)) for item in contract.fields}
    names, choose = (
        draw(st.lists(TEXTS, min_size=1, max_size=4)),
        random.Random(f"{draw(st.integers(0, 2**64))} {pools}"),
    )
    return [
        {
            "entity": choose.choice(names),
            "service_time": choose.choice(times[0]),
            "asked_at": choose.choice(times[1]),
            "features": {name: choose.choice(pool) for name, pool in pools.items()},
            "idempotency_key": choose.choice([None, str(choose.random())]),
        }
        for _ in range(ROWS)
    ]


def accepted_ids(spec: Product, settings: Settings, live: Live) -> set[str]:
    """Send requests until the service has accepted enough; return the ids of its answers, which are all in the log."""
    contract, predictor = live.model.contract, Predictor(PredictionLog(settings.prediction_log / spec.name))
    accepted: set[str] = set()

    @examples(
        max_examples=LISTS,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(bodies(contract))
    def send(rows: list[dict[str, Any]]) -> None:
        for body in (rows, *rows) if len(accepted) < ENOUGH else ():
            status, answer, _ = predictor.answer(live, json.dumps(body).encode(), perf_counter())
            assert status in (200, 422), answer
            if status == 200:
                result = json.loads(answer)
                accepted.update(row["prediction_id"] for row in (result if isinstance(result, list) else [result]))
            if status == 200 and body is rows:
                break

    send()
    return accepted


def drawn_photos() -> tuple[np.ndarray, np.ndarray]:
    """Return photos of a batch and their kinds, in place of a recording that not every machine has."""
    count = garment_photos.PHOTOS
    pixels = np.random.default_rng(0).integers(0, 256, (count, *garment_photos.SHAPE), dtype=np.uint8)
    return pixels, np.arange(count) % len(garment_photos.CLASSES)


@pytest.mark.costly
@pytest.mark.parametrize("name", PRODUCTS)
def test_an_advance_takes_in_or_reports_every_accepted_request(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garment_photos, "_recording", drawn_photos)
    load, count = PRODUCTS[name]
    spec = load()
    keys = spec.grain.span(spec.grain.first, spec.grain.key_at(count - 1))
    document = {**contract_of(spec), "max_body_bytes": 10_000_000}
    store, ledgers = ArtifactStore(settings.root), Ledgers(settings.root, spec.name)
    digest = models.write_bundle(store, document=document)
    release = {"product": spec.name, "contract_sha256": "c" * 64, "reason": "", "author": "a test", "previous": None}
    at = datetime(2024, 6, 1, tzinfo=UTC)
    ledgers.append(naming.RELEASES, next_release(digest=digest, cutoff=keys[-1], at=at, **release).document())
    live = Live(Model.load(store, digest), 1, "release")
    list(replay.land(ProductStore(spec, settings), keys))
    clock.move(settings, spec.name, at)

    accepted = accepted_ids(spec, settings, live)
    assert len(accepted) >= ENOUGH
    defs = build_defs(specs=[spec], resources={"store": StoreResource(variables=settings.to_environment())})
    with instances.forgetful() as instance:
        ran = defs.resolve_job_def(naming.job("advance", spec.name)).execute_in_process(
            instance=instance,
            tags={"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]},
        )
    assert ran.success
    assert {event.asset_key.path[-1] for event in ran.get_asset_materialization_events()} >= {
        "predictions",
        "drift",
        "performance",
        "decision",
    }
    tables = TableStore(settings.root, spec.name)
    rows = tables.read("predictions", list(tables.records("predictions")), columns=["prediction_id"])
    record = ledgers.latest(naming.INGESTED)[1]
    assert set(rows["prediction_id"]) == accepted
    assert rows.height == len(accepted)
    assert record["left_out"] == 0, record["left_out_named"]
