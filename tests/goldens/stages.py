"""The recorded code digest of each stage of a product: a commit's diff shows which stages it changes."""

from __future__ import annotations

import json
from typing import Any

from platform_assets import digests, naming, specs
from platform_assets.compute.measures.of_task import measures_of
from platform_assets.makers.checkpoint import Learning
from platform_assets.makers.drift import Judging
from platform_assets.makers.evaluation import Evaluating
from platform_assets.makers.features import Building
from platform_assets.makers.onnx import Exporting
from platform_assets.makers.outcomes import Labelling
from platform_assets.makers.performance import Measuring
from platform_assets.makers.predictions import Ingesting
from platform_assets.makers.raw import Landing
from platform_assets.makers.validated import Validation
from platform_assets.specs.base import ProductSpec
from tests.doubles.products import hourly_temperature
from tests.goldens.comparing import FOLDER

PLACE = FOLDER / "digests.json"


def makers(spec: ProductSpec) -> dict[str, Any]:
    """Return the maker of each stage, and of each source."""
    of_sources = {
        naming.stage(stage, source.name): maker.of(spec, source)
        for source in spec.sources
        for stage, maker in (("raw", Landing), ("validated", Validation))
    }
    return {
        **of_sources,
        "features": Building.of(spec),
        "outcomes": Labelling.of(spec),
        "predictions": Ingesting.of(spec),
        "drift": Judging.of(spec),
        "performance": Measuring.of(spec, measures_of(spec.task)),
        "checkpoint": Learning.of(spec),
        "onnx": Exporting.of(spec),
        "evaluation": Evaluating.of(spec, measures_of(spec.task)),
    }


def digests_of(spec: ProductSpec) -> dict[str, str]:
    """Return the code digest of each stage."""
    result = {stage: digests.code_digest(maker) for stage, maker in makers(spec).items()}
    return result | {"decision": digests.modules_digest("platform_assets.compute.policy")}


def now() -> dict[str, dict[str, str]]:
    """Return the digests of the shipped products and of the odd one, by product."""
    return {spec.name: digests_of(spec) for spec in (*specs.load_all(), hourly_temperature.SPEC)}


def recorded() -> dict[str, dict[str, str]]:
    """Return the recorded digests."""
    result: dict[str, dict[str, str]] = json.loads(PLACE.read_text(encoding="utf-8"))
    return result


def record() -> None:
    """Record the current digests."""
    PLACE.write_text(json.dumps(now(), indent=1) + "\n", encoding="utf-8")
