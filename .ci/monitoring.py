"""Write what deploy/monitoring/ holds for Prometheus' operator and for Grafana, and docs/alerts.md: `make reference`.

rules.yaml is written by hand. The same rules become a PrometheusRule and a table, after a look at what promtool does
not ask for. boards.yaml becomes Grafana's JSON (boards.py).
"""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "monitoring"
PAGE = ROOT / "docs" / "alerts.md"
RULES = FOLDER / "rules.yaml"
KEYS = {"alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations"}
SEVERITIES = ("page", "ticket", "none")
ANNOTATIONS = ("summary", "runbook", "command")
OWNED = "group_left (owner)"
"""In an expression whose alerts have an owner of their own."""
HEAD = """\
# Written by `make reference` from rules.yaml, for Prometheus' operator.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: driftline
  namespace: driftline
  labels: {app.kubernetes.io/part-of: driftline}
spec:
"""
PAGE_HEAD = """\
# Alerts and boards

Written by `make reference` from [rules.yaml](../deploy/monitoring/rules.yaml) and
[boards.yaml](../deploy/monitoring/boards.yaml). The exporter and the services serve the metrics that these read; how to
start and scrape them: [operate](operate.md#alerts). What scraping costs: [P20](benchmarks.md#p20).

An exporter of others, [dagster-prometheus-exporter](https://github.com/HirofumiTsuda/dagster-prometheus-exporter) (July
2026), polls Dagster's webserver for runs, ticks, daemons, pools, code locations and assets. Beyond it, ours reads the
database, so that queue and daemons are known while the webserver is away; counts ticks by outcome, so that a failure
between two scrapes is not lost; has histograms of durations, errors of daemons, the intervals of sensors and the
events that are stored; and knows the products. It has what ours lacks: each asset's state and last materialisation,
and Dagster+.

## Alerts
`page` wakes somebody, `ticket` waits for working hours. The owner is that of the product's file, where there is a
product, and else the platform. Most fire after the cause has lasted for some minutes and stop when it has gone. What
stands in capitals is a label. The command is in the alert, with its labels filled in; `QUERY` is one for `promtool
query instant`, which shows which processes it concerns. How soon ten of them fire on a cluster:
[measured](benchmarks.md#alerts).

![Prometheus' page of alerts while some of them fire](alerts.png)

| alert | who | it says | after | what to do |
|---|---|---|---|---|
"""
PAGE_COST = """
## What a month takes
For ten products, from sizes measured on one machine on 2026-12-01; logs are JSON (`DRIFTLINE_LOG_FORMAT`). As text they
take a quarter less and have no line per answer. Nothing of it is kept in the store.

| what | measured | a month |
|---|---|---|
| metrics in Prometheus, scraped every 30 s | [P20](benchmarks.md#p20) | 79 MB |
| answers' lines, at 10,000 answers a day and product | 245 bytes each | 740 MB |
| 300 runs of a day each, and 40 trainings | 36 and 40 kB each | 12 MB |
| Dagster's daemon, which tells each tick | 526 bytes per second, with two products | 1.4 GB |
"""
PAGE_BOARDS = """
## Boards
Two boards for Grafana, loaded by its sidecar from a ConfigMap with the label `grafana_dashboard`
([kustomization.yaml](../deploy/monitoring/kustomization.yaml)), or by hand. They ask which Prometheus, namespaces and
products. **No Grafana was at hand when they were made**: that each line is an expression of Prometheus and returns
series on a cluster is tested; how they look has not been seen. Nothing here imitates Grafana.

| board | row | panels |
|---|---|---|
"""


def main() -> int:
    """Write the files; return 1 after printing what is wrong with a rule."""
    try:
        for place, text in written().items():
            (FOLDER / place).write_text(text, encoding="utf-8")
        PAGE.write_text(page(), encoding="utf-8")
    except ValueError as problem:
        print(problem)
        return 1
    return 0


def written() -> dict[str, str]:
    """Return the text of each file by its place.

    Raises:
        ValueError: a rule has a mistake.
    """
    text = RULES.read_text(encoding="utf-8")
    for problem in mistakes(text):
        raise ValueError(f"{RULES.relative_to(ROOT)}: {problem}")
    _, _, groups = text.partition("\ngroups:\n")
    lines = ["groups:", *groups.splitlines()]
    boards = runpy.run_path(str(Path(__file__).with_name("boards.py")))["boards"](FOLDER / "boards.yaml")
    return {
        "prometheusrule.yaml": HEAD + "".join(f"  {line}".rstrip() + "\n" for line in lines),
        **{f"{board['uid']}.json": json.dumps(board, indent=1) + "\n" for board in boards},
    }


def page() -> str:
    """Return docs/alerts.md."""
    rules = [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
    alerts = "".join(f"| {' | '.join(_row(rule))} |\n" for rule in rules if "alert" in rule)
    boards = yaml.safe_load((FOLDER / "boards.yaml").read_text(encoding="utf-8"))["boards"]
    panels = "".join(
        f"| {board['title']} | {row} | {'; '.join(panel['title'] for panel in panels)} |\n"
        for board in boards
        for row, panels in board["rows"].items()
    )
    return PAGE_HEAD + alerts + PAGE_COST + PAGE_BOARDS + panels


def _row(alert: dict[str, Any]) -> tuple[str, ...]:
    labels, annotations = alert["labels"], alert["annotations"]
    command = annotations["command"]
    shown = "`QUERY`" if command.startswith("promtool query") else f"`{_plain(command)}`"
    what = f"{_plain(annotations['runbook'])} {shown}"
    who = f"{labels['severity']}, {'platform' if 'owner' in labels else 'owner'}"
    return f"`{alert['alert']}`", who, _plain(annotations["summary"]), alert.get("for", "at once"), what


def _plain(template: str) -> str:
    """Return a template of Prometheus with labels in capitals, and its other parts left out."""
    text = re.sub(r"\}\}\{\{ \$", "}} or {{ $", template)
    text = re.sub(r"\{\{ with .*?\{\{ end \}\}", "...", text)
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda label: label[1].upper(), text)
    return re.sub(r"\{\{.*?\}\}", "N", text)


def mistakes(text: str) -> Iterator[str]:
    """Yield what is wrong with the rules, each in a sentence that names the rule."""
    try:
        rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    except yaml.YAMLError as error:
        yield " ".join(f"is not YAML: {error}.".split())
        return
    for number, rule in enumerate(rules, 1):
        name = rule.get("alert") or rule.get("record") or f"number {number}"
        if problem := _mistake(rule):
            yield f"the rule {name} {problem}."
        elif [other.get("alert") for other in rules].count(name) > 1:
            yield f"the rule {name} is there twice."


def _mistake(rule: dict[str, Any]) -> str | None:
    if unknown := sorted(rule.keys() - KEYS):
        return f"has {unknown[0]!r}; expected {', '.join(sorted(KEYS))}"
    try:
        promql_parser.parse(f"{rule.get('expr', '')}")
    except ValueError as error:
        return f"has an expression that Prometheus cannot read: {error}"
    if "record" in rule:
        return None
    labels, annotations = rule.get("labels", {}), rule.get("annotations", {})
    if labels.get("severity") not in SEVERITIES:
        return f"has the severity {labels.get('severity')!r}; expected {', '.join(SEVERITIES)}"
    if ("owner" in labels) == (OWNED in rule["expr"]):
        return f"needs one owner: `{OWNED}` in its expression, or the label owner"
    missing = [name for name in ANNOTATIONS if not annotations.get(name)]
    return f"has no {missing[0]}" if missing else None


if __name__ == "__main__":
    raise SystemExit(main())
