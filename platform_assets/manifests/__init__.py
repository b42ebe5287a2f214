"""Print the manifests of a product's service: what must run on Kubernetes for its newest release."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2

from platform_assets.handle import Product
from platform_assets.records.notes import Service
from platform_assets.settings import STORE_VARIABLES

REPLICAS, WORKERS = 2, 2
ROOM_BYTES = 2 * 1024**3
"""For the log until it is shipped, and the copy of the last model."""
_TEMPLATE = Path(__file__).with_name("service.yaml.jinja")
_BY_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


def name_of(product: str) -> str:
    """Return the name of a product's Deployment and Service, a DNS label."""
    return f"driftline-{product.replace('_', '-')}"


def manifests(product: Product, replicas: int = REPLICAS) -> str:
    """Return the YAML of a product's Deployment and Service.

    The image is generic, and an init container fetches the Bento of the newest release by its digest.

    Args:
        replicas: number of pods.

    Raises:
        ValueError: the product has no release, its Bento is not in the store, or no image is set by digest.
    """
    image = product.settings.service_image
    if image is None or not _BY_DIGEST.fullmatch(image):
        raise ValueError(
            f"DRIFTLINE_SERVICE_IMAGE is {image!r}; expected the image of services by its digest, name@sha256:..., as "
            "`make images` prints it."
        )
    number, service = _released(product)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        product=product.name,
        name=name_of(product.name),
        namespace=product.settings.namespace,
        release=number,
        tag=service.tag,
        bento=service.stored,
        image=image,
        replicas=replicas,
        workers=WORKERS,
        room_bytes=ROOM_BYTES,
        needs_store="true" if product.settings.serving_needs_store else "false",
        serving_keys=",".join(product.settings.serving_keys),
        store_variables=STORE_VARIABLES,
    )


def _released(product: Product) -> tuple[int, Service]:
    """Return the number of the newest release, and its Bento."""
    newest = product.history.live()
    if newest is None:
        raise ValueError(f"{product.name} has no release in {product.settings.root}: there is nothing to serve yet.")
    number, release = newest
    record = product.tables.records("service", [release.cutoff]).get(release.cutoff)
    service = None if record is None else Service.of(record)
    if service is None or service.stored is None:
        raise ValueError(
            f"the Bento of release {number} of {product.name} (cutoff {release.cutoff}) is not in the store: its model "
            "was released by code that stored none, or before its service was tested. Train and release a model again."
        )
    return number, service
