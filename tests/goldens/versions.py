"""The content of each stage's golden by the version of its rows: equal versions must have made equal content.

Entries are added and never changed, so a golden that moves needs a maker with another number.
"""

import json
from typing import Any

from platform_assets.base import naming
from platform_assets.engine import product_files
from platform_assets.product.spec import Product
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.training import versions
from tests.doubles.products import hourly_temperature
from tests.goldens.comparing import FOLDER, path_of

PLACE = FOLDER / "versions.json"
LENGTH = 16
Contents = dict[str, dict[str, dict[str, str]]]
"""By product and stage: the digest of the golden's content, by version."""


def content_of(spec: Product, golden: dict[str, Any]) -> dict[str, str]:
    """Return a digest of what a golden holds of each stage that has a version."""
    data = golden["data"]
    together = {
        naming.stage("validated", source.name): naming.stage("quarantine", source.name) for source in spec.sources
    }
    return {
        stage: sha256(canonical([data[stage], data.get(together.get(stage, ""))]))[:LENGTH]
        for stage in versions.current(spec)
    }


def now() -> dict[str, dict[str, tuple[str, str]]]:
    """Return the present version and the golden's content of each stage, by product."""
    return {
        spec.name: {
            stage: (versions.current(spec)[stage], content)
            for stage, content in content_of(spec, json.loads(path_of(spec.name).read_text(encoding="utf-8"))).items()
        }
        for spec in (*product_files.load_all(), hourly_temperature.SPEC)
    }


def recorded() -> Contents:
    """Return the recorded contents."""
    return json.loads(PLACE.read_text(encoding="utf-8")) if PLACE.exists() else {}


def moved(contents: Contents) -> list[str]:
    """Return the stages whose golden moved while their version did not."""
    return [
        f"{product}.{stage}"
        for product, stages in now().items()
        for stage, (version, content) in stages.items()
        if contents.get(product, {}).get(stage, {}).get(version, content) != content
    ]


def record() -> None:
    """Add the present versions; refuse to change the content of one that is there."""
    contents = recorded()
    if names := moved(contents):
        raise SystemExit(
            f"the goldens of {', '.join(names)} moved and their versions did not: raise the maker's NUMBER."
        )
    for product, stages in now().items():
        for stage, (version, content) in stages.items():
            contents.setdefault(product, {}).setdefault(stage, {})[version] = content
    PLACE.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
