"""The recorded code digest of each stage of a product: a commit's diff shows which stages it changes."""

import json
from typing import Any

from platform_assets.base import naming
from platform_assets.data.features_maker import Building
from platform_assets.data.outcomes_maker import Labelling
from platform_assets.data.raw_maker import Landing
from platform_assets.data.validated_maker import Validation
from platform_assets.engine import digests, product_files
from platform_assets.evaluation.evaluation_maker import Evaluating
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.monitoring.drift_maker import Judging
from platform_assets.monitoring.performance_maker import Measuring
from platform_assets.prediction_log.predictions_maker import Ingesting
from platform_assets.product.spec import Product
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.onnx_maker import Exporting
from tests.doubles.products import hourly_temperature
from tests.goldens.comparing import FOLDER

PLACE = FOLDER / "digests.json"


def makers(spec: Product) -> dict[str, Any]:
    """Return the maker of each stage, and of each source."""
    of_sources = {
        naming.stage(stage, source.name): maker.for_source(spec, source)
        for source in spec.sources
        for stage, maker in (("raw", Landing), ("validated", Validation))
    }
    return {
        **of_sources,
        "features": Building.for_product(spec),
        "outcomes": Labelling.for_product(spec),
        "predictions": Ingesting.for_product(spec),
        "drift": Judging.for_product(spec),
        "performance": Measuring.for_product(spec, measures_of(spec.task)),
        "checkpoint": Learning.for_product(spec),
        "onnx": Exporting.for_product(spec),
        "evaluation": Evaluating.for_product(spec, measures_of(spec.task)),
    }


def digests_of(spec: Product) -> dict[str, str]:
    """Return the code digest of each stage."""
    result = {stage: digests.code_digest(maker) for stage, maker in makers(spec).items()}
    return result | {"decision": digests.modules_digest("platform_assets.monitoring.deciding")}


def now() -> dict[str, dict[str, str]]:
    """Return the digests of the shipped products and of the odd one, by product."""
    return {spec.name: digests_of(spec) for spec in (*product_files.load_all(), hourly_temperature.SPEC)}


def recorded() -> dict[str, dict[str, str]]:
    """Return the recorded digests."""
    result: dict[str, dict[str, str]] = json.loads(PLACE.read_text(encoding="utf-8"))
    return result


def record() -> None:
    """Record the current digests."""
    PLACE.write_text(json.dumps(now(), indent=1) + "\n", encoding="utf-8")
