"""Render boards for Grafana as its JSON, from deploy/monitoring/boards.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
IN = 'namespace=~"$namespace"'
OF = f'{IN},product=~"$product"'
WIDE, HIGH = 24, 8


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel of a board, as boards.yaml describes it.

    Attributes:
        lines: expressions by the legend of their series.
        unit: Grafana's name of it.
        width: of the board's 24 columns.
    """

    title: str
    lines: dict[str, str]
    show: str = "timeseries"
    unit: str = "short"
    width: int = 6
    bad_above: float | None = None
    bad_below: float | None = None

    def render(self) -> dict[str, Any]:
        """Return it without its place."""
        is_chart, is_good_above = self.show == "timeseries", self.bad_below is not None
        colors = ["red", "green"] if is_good_above else ["green", "red"]
        limit = self.bad_below if is_good_above else self.bad_above
        steps = [{"color": colors[0], "value": None}, {"color": colors[1], "value": limit}]
        defaults: dict[str, Any] = {"unit": self.unit}
        if limit is not None:
            defaults["thresholds"] = {"mode": "absolute", "steps": steps}
            defaults["custom"] = {"thresholdsStyle": {"mode": "line"}} if is_chart else {}
        form = {"datasource": SOURCE, "instant": not is_chart, "range": is_chart}
        form["format"] = "table" if self.show == "table" else "time_series"
        targets = [
            {"refId": chr(ord("A") + place), "expr": in_full(expr), "legendFormat": legend, **form}
            for place, (legend, expr) in enumerate(self.lines.items())
        ]
        return {
            "type": self.show,
            "title": self.title,
            "datasource": SOURCE,
            "targets": targets,
            "fieldConfig": {"defaults": defaults, "overrides": []},
        }


def in_full(expr: str) -> str:
    """Return an expression with the board's variables."""
    return expr.replace("OF}", f"{OF}}}").replace("IN}", f"{IN}}}")


def render(uid: str, title: str, rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return a board whose rows are filled from left to right."""
    panels: list[dict[str, Any]] = []
    y = 0
    for name, row in rows.items():
        place = {"x": 0, "y": y, "w": WIDE, "h": 1}
        panels.append({"type": "row", "title": name, "collapsed": False, "panels": [], "gridPos": place})
        x, y = 0, y + 1
        for panel in (Panel(**values) for values in row):
            if x + panel.width > WIDE:
                x, y = 0, y + HIGH
            panels.append(panel.render() | {"gridPos": {"x": x, "y": y, "w": panel.width, "h": HIGH}})
            x += panel.width
        y += HIGH
    chosen = {"current": {"text": "All", "value": "$__all"}}
    every = chosen | {
        "type": "query",
        "datasource": SOURCE,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
    }
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        every | {"name": "namespace", "query": "label_values(driftline_exporter_part_up, namespace)"},
        every | {"name": "product", "query": f"label_values(driftline_product_info{{{IN}}}, product)"},
    ]
    return {
        "uid": uid,
        "title": title,
        "tags": ["driftline"],
        "schemaVersion": 39,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": variables},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def boards(file: Path) -> list[dict[str, Any]]:
    """Return the boards of a file."""
    return [render(**board) for board in yaml.safe_load(file.read_text(encoding="utf-8"))["boards"]]
