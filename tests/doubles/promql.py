"""What the shipped rules and boards ask Prometheus, and which metrics that reads."""

import json
from typing import Any

import promql_parser
import yaml

from platform_assets.base.settings import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "monitoring"
RULES = FOLDER / "rules.yaml"
VARIABLES = {"$namespace": ".*", "$product": ".*", "$__rate_interval": "5m"}
"""What Grafana puts there when all are chosen."""


def rules() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule.get("alert") or rule["record"]: rule for group in groups for rule in group["rules"]}


def alerts() -> dict[str, dict[str, Any]]:
    return {name: rule for name, rule in rules().items() if "alert" in rule}


def boards() -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))]


def board_expressions() -> dict[str, str]:
    """Return what each line of each panel asks, without variables, by board, title and legend."""
    found = {}
    for board in boards():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                expr = target["expr"]
                for name, value in VARIABLES.items():
                    expr = expr.replace(name, value)
                found[f"{board['uid']}: {panel['title']}: {target['legendFormat']}"] = expr
    return found


def metrics(expr: str) -> set[str]:
    """Return the metrics that an expression reads.

    Raises:
        ValueError: it is none.
    """
    names: set[str] = set()

    def note(node: promql_parser.Expr) -> bool:
        selector = node.vector_selector if isinstance(node, promql_parser.MatrixSelector) else node
        if isinstance(selector, promql_parser.VectorSelector) and selector.name:
            names.add(selector.name)
        return True

    promql_parser.walk(promql_parser.parse(expr), note)
    return names
