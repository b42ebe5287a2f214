"""What deploy/monitoring/ holds is current, valid, and reads metrics that exist."""

import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import jsonschema
import pytest
import yaml
from prometheus_client import generate_latest

from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.operations import exporter
from platform_assets.operations.exporter import products
from platform_assets.serving.run.metrics import Metrics
from tests.doubles import kustomize, promql, recorded
from tests.test_manifests import documents

pytestmark = pytest.mark.slow

CRDS = REPOSITORY.parent / "shared" / "kubernetes" / "crds"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")
MONITORS = ("podmonitor.yaml", "servicemonitor.yaml")


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(REPOSITORY / ".ci" / "monitoring.py"))


def load(name: str) -> Any:
    return yaml.safe_load((promql.FOLDER / name).read_text(encoding="utf-8"))


def test_the_files_are_up_to_date(generator: dict[str, Any]) -> None:
    written = generator["written"]()
    for name, text in written.items():
        assert (promql.FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: run `make reference`"
    page = generator["PAGE"].read_text(encoding="utf-8")
    assert page == generator["page"](), "docs/alerts.md: run `make reference`"
    assert load("prometheusrule.yaml")["spec"]["groups"] == load("rules.yaml")["groups"]
    applied = load("kustomization.yaml")
    listed = {*applied["resources"], *applied["configMapGenerator"][0]["files"]}
    assert listed == {*written, *MONITORS}


@pytest.mark.skipif(kustomize.kubectl() is None, reason=kustomize.MISSING)
def test_kustomize_labels_the_boards_for_the_sidecar() -> None:
    rendered = {item["kind"]: item for item in kustomize.rendered(promql.FOLDER)}
    assert rendered.keys() == {"ConfigMap", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
    assert {item["metadata"]["namespace"] for item in rendered.values()} == {"driftline"}
    assert rendered["ConfigMap"]["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert len(rendered["ConfigMap"]["data"]) == 2


@needs_promtool
@pytest.mark.parametrize("name", ["rules.yaml", "prometheusrule.yaml"])
def test_promtool_accepts_the_rules(name: str, tmp_path: Path) -> None:
    rules, file = load(name), tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rules.get("spec", rules)), encoding="utf-8")
    assert PROMTOOL is not None
    result = subprocess.run([PROMTOOL, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    assert (result.returncode, f"{len(promql.rules())} rules found" in output) == (0, True), output


def edited(old: str, new: str) -> str:
    text = promql.RULES.read_text(encoding="utf-8")
    assert old in text
    return text.replace(old, new, 1)


LOG_PROBLEM = "max by (namespace, product) (driftline_log_has_problem)"
MISTAKES = {
    "a bracket": (LOG_PROBLEM, LOG_PROBLEM[:-1], "LogProblem has an expression that Prometheus cannot read: "),
    "no metric": ("expr: vector(1)", "expr: ''", "Watchdog has an expression that Prometheus cannot read: "),
    "a field": ("for: 1h", "fore: 1h", "AlertsUnsent has 'fore'; expected alert, annotations, expr, for, "),
    "severity": ("severity: none", "severity: low", "Watchdog has the severity 'low'; expected page, ticket, none"),
    "no owner": (", owner: platform", "", "Watchdog needs one owner: `group_left (owner)` in its expression, or "),
    "no command": ("          command: df --human-readable\n", "", "DiskFull has no command"),
    "twice": ("alert: QueueLong", "alert: RunStuck", "RunStuck is there twice"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_rule_is_one_sentence_that_names_it(generator: dict[str, Any], mistake: str) -> None:
    old, new, sentence = MISTAKES[mistake]
    first, *others = generator["mistakes"](edited(old, new))
    assert first.startswith(f"the rule {sentence}")
    assert first.endswith(".") and "\n" not in first
    assert len(others) == (mistake == "twice")


def test_a_file_that_is_not_yaml_is_one_sentence(generator: dict[str, Any]) -> None:
    (sentence,) = generator["mistakes"](edited("groups:", "groups: ["))
    assert re.fullmatch(r"is not YAML: .* line \d+.*\.", sentence)


def test_nothing_is_written_of_rules_with_a_mistake(
    generator: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(edited("severity: none", "severity: low"), encoding="utf-8")
    for name, value in {"ROOT": tmp_path, "FOLDER": tmp_path, "RULES": rules, "PAGE": tmp_path / "alerts.md"}.items():
        monkeypatch.setitem(generator["main"].__globals__, name, value)
    assert generator["main"]() == 1
    assert capsys.readouterr().out.startswith("rules.yaml: the rule Watchdog has the severity 'low'")
    assert [path.name for path in tmp_path.iterdir()] == ["rules.yaml"]


def strict(schema: Any) -> Any:
    """Return a schema of a custom resource as JSON schema that refuses fields which it does not name."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        result.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    return result


def refusals(manifest: dict[str, Any]) -> list[str]:
    """Return what the custom resource's own schema has against an object."""
    (crd,) = (
        crd
        for file in CRDS.glob("*.yaml")
        if (crd := yaml.safe_load(file.read_text(encoding="utf-8")))["spec"]["names"]["kind"] == manifest["kind"]
    )
    (version,) = crd["spec"]["versions"]
    assert manifest["apiVersion"] == f"{crd['spec']['group']}/{version['name']}"
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {}
    return [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(strict(schema)).iter_errors(manifest)
    ]


needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason="needs the custom resources: ../shared/kubernetes/crds")


@needs_crds
@pytest.mark.parametrize("name", ["prometheusrule.yaml", *MONITORS])
def test_objects_of_the_operator_are_strictly_valid(name: str) -> None:
    assert refusals(load(name)) == []


@needs_crds
def test_the_schemas_refuse_what_they_do_not_know() -> None:
    monitor, rule = load("podmonitor.yaml"), load("prometheusrule.yaml")
    monitor["spec"]["podMetricsEndpoints"][0]["ports"] = "probes"
    rule["spec"]["groups"][0]["rules"][0]["for"] = "a while"
    assert [refusal.partition(":")[0] for refusal in refusals(monitor)] == ["$.spec.podMetricsEndpoints[0]"]
    assert [refusal.partition(":")[0] for refusal in refusals(rule)] == ["$.spec.groups[0].rules[0].for"]


def relabeled(name: str) -> str:
    """Return Prometheus' name of a pod's label."""
    return f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9_]', '_', name)}"


def test_both_ways_to_scrape_services_find_the_pods_of_manifests(tmp_path: Path) -> None:
    template = documents(tmp_path)["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    ports = [port["name"] for container in template["spec"]["containers"] for port in container["ports"]]
    monitor = load("podmonitor.yaml")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert endpoint["port"] in ports
    assert endpoint["relabelings"] == [{"sourceLabels": [relabeled("driftline/product")], "targetLabel": "product"}]
    assert labels["driftline/product"] == "slow_batches"
    job = {job["job_name"]: job for job in load("scrape.yaml")["scrape_configs"]}["driftline-services"]
    kept = {rule["source_labels"][0]: rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep"}
    wanted = {relabeled(name): value for name, value in monitor["selector"]["matchLabels"].items()}
    assert kept == wanted | {"__meta_kubernetes_pod_container_port_name": endpoint["port"]}
    named = {
        rule["target_label"]: rule["source_labels"][0] for rule in job["relabel_configs"] if "target_label" in rule
    }
    assert named["product"] == endpoint["relabelings"][0]["sourceLabels"][0]
    assert named["namespace"] == "__meta_kubernetes_namespace"


@needs_promtool
def test_prometheus_reads_the_shipped_jobs(tmp_path: Path) -> None:
    config = {"scrape_config_files": [str(promql.FOLDER / "scrape.yaml")], "rule_files": [str(promql.RULES)]}
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert PROMTOOL is not None
    subprocess.run([PROMTOOL, "check", "config", str(file)], capture_output=True, check=True)


OF_OTHERS = {
    *("ALERTS", "up"),
    *("node_filesystem_avail_bytes", "node_filesystem_size_bytes"),
    *("kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"),
    "dagster_code_location_loaded",  # asks a webserver: tests/operations/test_alert_commands.py
}
TARGET_LABELS = {"job", "instance", "namespace", "pod", "container", "service", "endpoint", "node", "severity"}
"""Labels that Prometheus or a rule gives; a metric's own of that name would be lost or renamed."""


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> str:
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")

    @dg.op
    def work() -> None: ...

    @dg.job
    def works() -> None:
        work()

    with dg.DagsterInstance.from_config(str(home)) as instance:
        works.execute_in_process(instance=instance)
    settings = Settings(root=str(home / "store"), state=home / "state")
    text = generate_latest(exporter.metrics(settings, [recorded.SPEC], home)).decode()
    return text + Metrics().text().decode()


def declared(text: str) -> Iterator[str]:
    """Yield the metrics of an exposition, by the names of their samples."""
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)", text, re.MULTILINE):
        yield name
        yield from (f"{name}_{suffix}" for suffix in ("bucket", "count", "sum") if kind == "histogram")


def test_rules_and_boards_read_metrics_that_exist(metrics: str) -> None:
    known = {*declared(metrics), *promql.rules(), *OF_OTHERS}
    asked = {name: f"{rule['expr']}" for name, rule in promql.rules().items()} | promql.board_expressions()
    unknown = {place: names for place, expr in asked.items() if (names := promql.metrics(expr) - known)}
    assert unknown == {}
    assert len(promql.board_expressions()) > 50


def test_no_metric_has_a_label_that_prometheus_gives(metrics: str) -> None:
    """`job` becomes `exported_job` when it is scraped, and a rule that asks for it finds the name of the scrape."""
    samples = re.findall(r"^\w+\{(.*)\} ", metrics, re.MULTILINE)
    own = {label for labels in samples for label in re.findall(r'(\w+)="', labels)}
    own |= {label for _, labels in products.GAUGES.values() for label in labels}
    assert own & TARGET_LABELS == set()
    assert {"product", "job_name", "owner", "le"} <= own


def test_panels_have_a_place_of_their_own() -> None:
    for board in promql.boards():
        places = [
            (x, y)
            for panel in board["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(places) == len({*places})
        assert max(x for x, _ in places) < 24
        assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "namespace", "product"}
