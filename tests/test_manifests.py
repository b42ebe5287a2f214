"""`driftline manifests`: valid, restricted, by digest, and of the newest release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from platform_assets import naming
from platform_assets.handle import Product
from platform_assets.manifests import manifests, name_of
from platform_assets.settings import Settings
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore
from tests.doubles import models
from tests.doubles.products.slow_batches import SPEC

IMAGE = f"registry.example/driftline-service@sha256:{'a' * 64}"
BENTO, CUTOFF = "b" * 64, SPEC.grain.key_at(8)
NOTES: dict[str, Any] = {"tag": "slow_batches:1", "asked_rows": 64, "max_apart": 0.0, "request": {}, "cpu_s": 1.0}


def product(folder: Path, **settings: str) -> Product:
    variables = {"DRIFTLINE_STATE": str(folder), "DRIFTLINE_SERVICE_IMAGE": IMAGE, **settings}
    return Product(SPEC, Settings.from_environment(variables))


def release(product: Product, **notes: Any) -> None:
    record = models.release_record(1, "c" * 64, product=SPEC.name, cutoff=CUTOFF)
    Ledgers(product.settings.root, SPEC.name).create_number(naming.RELEASES, 1, record)
    tables = TableStore(product.settings.root, SPEC.name)
    tables.record("service", CUTOFF, content_digest="0", inputs={}, code="0", notes=NOTES | notes)


def test_they_are_valid_restricted_and_by_digest(tmp_path: Path) -> None:
    made = product(tmp_path)
    release(made, stored=BENTO)
    deployment, service = yaml.safe_load_all(manifests(made, replicas=3))
    for document in (deployment, service):
        assert kubernetes_validate.validate(document, "1.34", strict=True) == "1.34"
        assert document["metadata"]["name"] == name_of(SPEC.name) == "driftline-slow-batches"
    spec = deployment["spec"]["template"]["spec"]
    (fetch,), (serve,) = spec["initContainers"], spec["containers"]
    assert fetch["command"] == ["python", "-m", "platform_assets.serving.fetch", BENTO, "/bento"]
    assert {fetch["image"], serve["image"]} == {IMAGE}
    assert deployment["spec"]["replicas"] == 3
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("driftline-service", False)
    for container in (fetch, serve):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["envFrom"] == [{"secretRef": {"name": "driftline-store", "optional": True}}]
    ports = {port["name"]: port["containerPort"] for port in serve["ports"]}
    assert ports == {"http": 3000, "probes": 3001}
    assert {serve[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")} == {"probes"}
    template = deployment["spec"]["template"]["metadata"]
    assert template["annotations"]["prometheus.io/port"] == "3001"
    environment = {item["name"]: item.get("value") for item in serve["env"]}
    assert environment["DRIFTLINE_SERVING_PROBES_PORT"] == "3001"
    assert float(environment["DRIFTLINE_SERVING_DRAIN_S"]) < spec["terminationGracePeriodSeconds"]
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_without_a_release_there_is_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"slow_batches has no release in .*: there is nothing to serve yet"):
        manifests(product(tmp_path))


def test_a_release_of_code_that_stored_no_bento_is_named(tmp_path: Path) -> None:
    made = product(tmp_path)
    release(made)
    with pytest.raises(ValueError, match=rf"the Bento of release 1 of slow_batches \(cutoff {CUTOFF}\) is not in the"):
        manifests(made)


@pytest.mark.parametrize("image", ["", "driftline-service:latest", "driftline-service@sha256:abc"])
def test_an_image_without_its_digest_is_refused(tmp_path: Path, image: str) -> None:
    with pytest.raises(
        ValueError, match=r"DRIFTLINE_SERVICE_IMAGE is .*; expected the image of services by its digest"
    ):
        manifests(product(tmp_path, DRIFTLINE_SERVICE_IMAGE=image))
