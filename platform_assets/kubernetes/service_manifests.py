"""Print the manifests of a product's service: what must run on Kubernetes for its newest release."""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

import jinja2

from platform_assets.base.accounts import SERVICE
from platform_assets.base.settings import AUTHORITIES, PRODUCT, STORE_VARIABLES, Settings
from platform_assets.launch.labels import TEAM, attribution_labels
from platform_assets.launch.step_profile import IMAGE_BY_DIGEST
from platform_assets.serving.service_memory import model_bytes, needed_bytes
from platform_assets.store.artifacts import ArtifactProblem
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.notes import Service
from platform_assets.store.records.releases import Release

ROOM_BYTES = 2 * 1024**3
"""For the log until it is shipped, and the copy of the last model."""
DRAIN_S, GOODBYE_S = 5, 60  # for balancers to notice the end, and for a store that is away
WORTH = 5
"""How many times the product's latency a request may wait: after that its caller has given up."""
PLATFORM = ("code", "daemon", "exporter", "webserver", "webserver-read-only")
"""Names that the platform's own Deployments have after `driftline-`."""
NAME_LENGTH = 63
_TEMPLATE = Path(__file__).with_name("service.yaml.jinja")
_MEBIBYTE, _GIGABYTE = 1024**2, 1024**3


def name_of(product: str) -> str:
    """Return the name of all Kubernetes objects of a product's service, a DNS label.

    Raises:
        ValueError: Kubernetes refuses it, or the platform has it.
    """
    name = f"driftline-{product.replace('_', '-')}"
    if name.removeprefix("driftline-") in PLATFORM or len(name) > NAME_LENGTH or name.endswith("-"):
        raise ValueError(
            f"the service of {product} would be called {name}; expected at most {NAME_LENGTH} characters, a letter or "
            "digit at the end, and a name that none of the platform's own Deployments has "
            f"({', '.join(PLATFORM)}): rename the product."
        )
    return name


def manifests(product: ProductStore, replicas: int | None = None) -> str:
    """Return the YAML of all Kubernetes objects of a product's service.

    The image is generic, and an init container fetches the Bento of the newest release by its digest.

    Args:
        replicas: number of pods, instead of an autoscaler between the limits of the product's file.

    Raises:
        ValueError: the product has no release, its Bento is not in the store, its model needs more memory than its
            file grants, its name is taken, or no image is set by digest.
    """
    spec, settings = product.spec.pods, product.settings
    name, image = name_of(product.name), settings.service_image
    if image is None or not IMAGE_BY_DIGEST.fullmatch(image):
        state = "not set" if image is None else repr(image)
        raise ValueError(
            f"DRIFTLINE_SERVICE_IMAGE is {state}; expected the image of services by its digest, name@sha256:..., as "
            "`make images` prints it for this machine, and deploy/kubernetes/push.sh writes it for a registry."
        )
    number, release, service = released(product)
    # Less would not load the model, or not a newer one of its size next to it.
    if spec.memory_gb * _GIGABYTE < (needed := needed_bytes(product, release)):
        raise ValueError(
            f"Pods.memory_gb of {product.name} is {spec.memory_gb:g}; expected at least {needed / _GIGABYTE:.2f}, as "
            f"the service and the trial of the next model load the model of release {number}, which has "
            f"{model_bytes(product, release) / _MEBIBYTE:.1f} MiB."
        )
    store_networks, store_port = _store(settings)
    networks = settings.service_networks.split(",") if settings.service_networks else []
    if replicas is None and spec.replicas == spec.replicas_max:
        replicas = spec.replicas
    # By default a misspelt name would render as nothing.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        product=product.name,
        team_label=TEAM,
        team=attribution_labels(product.name, product.spec.owner)[TEAM],
        name=name,
        namespace=settings.namespace,
        release=number,
        tag=service.tag,
        bento=service.stored,
        image=image,
        account=SERVICE.service_account(product.name if PRODUCT in (settings.step_service_account or "") else ""),
        own_secret=SERVICE.store_secret(product.name) if settings.has_product_accounts else "",
        replicas=replicas,
        replicas_min=spec.replicas,
        replicas_max=spec.replicas_max,
        cpu=_cores(spec.cores),
        cpu_target=max(1, round(100 * spec.scales_at)),
        memory=_memory(spec.memory_gb),
        drain_s=DRAIN_S,
        goodbye_s=GOODBYE_S,
        wait_s=f"{WORTH * product.spec.service.latency_ms / 1000:g}",
        room_bytes=ROOM_BYTES,
        needs_store="true" if settings.serving_needs_store else "false",
        serving_keys=",".join(settings.serving_keys),
        store_variables=STORE_VARIABLES,
        authorities=AUTHORITIES,
        callers=[str(ipaddress.ip_network(part)) for part in networks],
        scraper_namespace=settings.scraper_namespace,
        scraper_label=settings.scraper_label.split("="),
        dns_port=settings.dns_port,
        store_networks=store_networks,
        store_port=store_port,
    )


def released(product: ProductStore) -> tuple[int, Release, Service]:
    """Return the newest release with its number, and its Bento.

    Raises:
        ValueError: nothing is released, or its Bento is not in the store.
    """
    newest = product.history.live()
    if newest is None:
        raise ValueError(f"{product.name} has no release in {product.settings.root}: there is nothing to serve yet.")
    number, release = newest
    # Of its cutoff and contract: a cutoff may be trained again with another one.
    for record in product.tables.versions("service", release.cutoff):
        service, digest = Service.of(record), record.inputs.get("bundle", release.digest)
        with contextlib.suppress(ArtifactProblem):  # an earlier model may be gone
            if product.artifacts.bundle(digest).manifest.get("contract_sha256") == release.contract_sha256:
                return number, release, service
    raise ValueError(
        f"the Bento of release {number} of {product.name} (cutoff {release.cutoff}) is not in the store: its model "
        "was released before its service was tested. Train and release a model again."
    )


def _cores(cores: float) -> str:
    """Return cores as Kubernetes writes them back: an apply that changes nothing is `unchanged`."""
    thousandths = max(1, round(cores * 1000))
    return f"{thousandths}m" if thousandths % 1000 else f'"{thousandths // 1000}"'


def _memory(gigabytes: float) -> str:
    """Return memory as Kubernetes writes it back."""
    mebibytes = round(gigabytes * 1024)
    return f"{mebibytes}Mi" if mebibytes % 1024 else f"{mebibytes // 1024}Gi"


def _store(settings: Settings) -> tuple[list[str], int]:
    """Return the networks in which pods reach the store, none for any address, and its port."""
    address = urlsplit(dict(settings.store_environment).get("AWS_ENDPOINT_URL", "https://s3.amazonaws.com"))
    networks: list[str] = []
    with contextlib.suppress(ValueError):  # a name, whose addresses change
        networks = [str(ipaddress.ip_network(address.hostname or ""))]
    return networks, address.port or (80 if address.scheme == "http" else 443)
