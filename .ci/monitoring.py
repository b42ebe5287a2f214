"""Write what deploy/monitoring/ holds for Prometheus' operator and for Grafana: `make reference`.

rules.yaml is written by hand. The same rules become a PrometheusRule, after a look at what promtool does not ask for.
boards.yaml becomes Grafana's JSON (boards.py).
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "monitoring"
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


def main() -> int:
    """Write the files; return 1 after printing what is wrong with a rule."""
    try:
        for place, text in written().items():
            (FOLDER / place).write_text(text, encoding="utf-8")
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
