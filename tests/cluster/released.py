"""Release a small model that nobody trained, so that the service of a product can start."""

from pathlib import Path

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.serving.run import build
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from tests.doubles import documents, models
from tests.doubles.products.live_parts import SPEC

CUTOFF = SPEC.grain.key_at(8)


def release(product: ProductStore, folder: Path, bias: float = 0.0) -> str:
    """Release a model with its verdict and its Bento; return its digest.

    Args:
        folder: for the build, may be empty.
    """
    document = models.contract(product=product.name)
    digest = models.write_bundle(product.artifacts, bias=bias, document=document)
    here = Settings(root=product.settings.root, state=folder / "state")
    stored = build.stored(product.artifacts, build.build(here, product.artifacts, digest))
    Ledgers(product.settings.root, product.name).create(naming.VERDICTS, digest, documents.verdict(digest))
    record(product, 1, digest)
    notes = {"tag": f"{product.name}:1", "asked_rows": 1, "max_apart": 0.0, "request": {}, "cpu_s": 1.0}
    product.tables.record("service", CUTOFF, content_digest="0", inputs={}, code="0", notes=notes | {"stored": stored})
    return digest


def record(product: ProductStore, number: int, digest: str) -> None:
    """Record a release of a model with the contract of `release`."""
    contract = sha256(canonical(models.contract(product=product.name)))
    document = models.release_record(number, digest, product=product.name, cutoff=CUTOFF, contract_sha256=contract)
    Ledgers(product.settings.root, product.name).create_number(naming.RELEASES, number, document)
