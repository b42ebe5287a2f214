"""The example that scales on requests in flight: it renders, is valid, and asks for metrics that services have."""

import os
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from platform_assets.kubernetes.service_manifests import manifests
from platform_assets.serving.run.metrics import IN_FLIGHT_ALERT, Metrics
from tests.doubles import kustomize
from tests.test_manifests import BENTO, product, release

EXAMPLES = kustomize.FOLDER / "examples"
AVERAGES = {"driftline_average_requests_in_flight": "4", "driftline_refusals": "1"}


@pytest.fixture(scope="module")
def settings_() -> dict[str, Any]:
    """The files in the example's ConfigMaps."""
    documents = yaml.safe_load_all((EXAMPLES / "prometheus-adapter.yaml").read_text(encoding="utf-8"))
    return {name: yaml.safe_load(text) for document in documents for name, text in document["data"].items()}


@pytest.mark.skipif(kustomize.kubectl() is None, reason=kustomize.MISSING)
def test_cpu_stays_first_and_the_others_follow(tmp_path: Path) -> None:
    built = product(tmp_path / "state")
    release(built, stored=BENTO)
    (tmp_path / "product.yaml").write_text(manifests(built), encoding="utf-8")
    component = os.path.relpath(EXAMPLES / "scale-on-requests", tmp_path)
    kustomization = {"resources": ["product.yaml"], "components": [component]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    (scaler,) = (one for one in kustomize.rendered(tmp_path) if one["kind"] == "HorizontalPodAutoscaler")
    assert kubernetes_validate.validate(scaler, "1.35", strict=True) == "1.35"
    first, *others = scaler["spec"]["metrics"]
    assert first["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 41}}
    asked = {one["pods"]["metric"]["name"]: one["pods"]["target"] for one in others}
    assert asked == {name: {"type": "AverageValue", "averageValue": value} for name, value in AVERAGES.items()}


def test_the_target_is_half_of_where_the_alert_begins() -> None:
    assert float(AVERAGES["driftline_average_requests_in_flight"]) * 2 == IN_FLIGHT_ALERT


def test_the_adapters_rules_make_these_metrics_of_what_services_export(settings_: dict[str, Any]) -> None:
    exported = set(re.findall(r"^(\w+)", Metrics().text().decode(), re.MULTILINE))
    rules = settings_["config.yaml"]["rules"]
    assert {rule["name"]["as"] for rule in rules} == set(AVERAGES)
    for rule in rules:
        series = rule["seriesQuery"].partition("{")[0]
        assert series in exported
        assert re.fullmatch(rule["name"]["matches"], series)
        assert rule["resources"]["overrides"] == {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}
        query = rule["metricsQuery"]
        assert set(re.findall(r"<<\.(\w+)>>", query)) == {"Series", "LabelMatchers", "GroupBy"}
        assert set(re.findall(r"driftline_\w+", query)) <= exported
        assert all(query.count(left) == query.count(right) for left, right in ("()", "{}", "[]"))


def test_prometheus_scrapes_the_port_of_probes_and_labels_by_namespace_and_pod(
    settings_: dict[str, Any], tmp_path: Path
) -> None:
    (job,) = settings_["driftline.yaml"]["scrape_configs"]
    filters = {
        rule["source_labels"][0]: rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep"
    }
    built = product(tmp_path)
    release(built, stored=BENTO)
    template = next(iter(yaml.safe_load_all(manifests(built))))["spec"]["template"]
    ports = [port["name"] for port in template["spec"]["containers"][0]["ports"]]
    labels = {
        f"__meta_kubernetes_pod_label_{re.sub(r'[^a-z]', '_', name)}": value
        for name, value in template["metadata"]["labels"].items()
    }
    assert filters.pop("__meta_kubernetes_pod_container_port_name") in ports
    assert filters.items() <= labels.items()
    targets = {rule["target_label"] for rule in job["relabel_configs"] if "target_label" in rule}
    assert targets == {"namespace", "pod"}
