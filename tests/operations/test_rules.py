"""Every shipped alert fires on its cause, stays quiet on the near miss, and resolves: evaluated by promtool."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from platform_assets.cli import main
from platform_assets.operations.exporter import products
from platform_assets.serving.run.metrics import Metrics

RULES = Path("deploy/monitoring/rules.yaml")
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")
PHASE = 120
"""Minutes of the near miss, then of the cause, then of what comes after: longer than the window."""
LONG = {"ServiceErrorsSlow": 480, "ServiceSlow": 480}
"""Those with a window of six hours."""
At = Callable[[int, int], float | None]
"""Value of a series at a minute, with phases of so many minutes; None for none."""
P = 'product="shop"'


def phases(miss: float, cause: float) -> At:
    """A gauge: its value in the near miss and after the cause, and that of the cause."""
    return lambda minute, phase: (miss, cause, miss)[min(minute // phase, 2)]


def ages(miss_s: float, cause_s: float) -> At:
    """A moment that lies so many seconds back."""
    age = phases(miss_s, cause_s)
    return lambda minute, phase: max(0.0, minute * 60 - (age(minute, phase) or 0.0))


def rates(miss: float, cause: float) -> At:
    """A counter that grows by so much per minute."""

    def total(minute: int, phase: int) -> float:
        of_cause = max(0, min(minute - phase, phase))
        return miss * (minute - of_cause) + cause * of_cause

    return total


def gone_while(minute: int, phase: int) -> float | None:
    return None if phase <= minute < 2 * phase else 1.0


CAUSES: dict[str, dict[str, At]] = {
    "ExporterDown": {'driftline_exporter_part_up{part="dagster"}': gone_while},
    "ExporterPartDown": {'driftline_exporter_part_up{part="products"}': phases(1, 0)},
    "DaemonFrozen": {
        'dagster_daemon_heartbeat_timestamp_seconds{daemon="sensor"}': ages(290, 310),
        'dagster_daemon_required{daemon="sensor"}': phases(1, 1),
        'dagster_daemon_heartbeat_timestamp_seconds{daemon="backfill"}': ages(9000, 9000),
        'dagster_daemon_required{daemon="backfill"}': phases(0, 0),
    },
    "QueueLong": {
        'dagster_oldest_run_created_timestamp_seconds{state="queued"}': ages(1790, 1810),
        'dagster_oldest_run_created_timestamp_seconds{state="started"}': ages(90000, 90000),
    },
    "RunStuck": {'dagster_oldest_run_created_timestamp_seconds{state="starting"}': ages(890, 910)},
    "RunsFail": {
        'dagster_runs_ended_total{location="a",job="advance__shop",state="failure"}': rates(0, 0.2),
        'dagster_runs_ended_total{location="a",job="verify__shop",state="failure"}': rates(1, 1),
        'dagster_runs_ended_total{location="a",job="advance__shop",state="success"}': rates(1, 1),
    },
    "TicksFail": {
        'dagster_ticks_total{kind="sensor",name="landings",outcome="failure"}': rates(0.1, 0.3),
        'dagster_ticks_total{kind="sensor",name="landings",outcome="skipped"}': rates(9, 9),
    },
    "TicksLate": {
        'dagster_instigator_running{kind="sensor",name="landings"}': phases(1, 1),
        'dagster_tick_timestamp_seconds{kind="sensor",name="landings"}': ages(590, 620),
        'dagster_sensor_interval_seconds{kind="sensor",name="landings"}': phases(30, 30),
        'dagster_instigator_running{kind="sensor",name="off"}': phases(0, 0),
        'dagster_tick_timestamp_seconds{kind="sensor",name="off"}': ages(90000, 90000),
        'dagster_sensor_interval_seconds{kind="sensor",name="off"}': phases(30, 30),
    },
    "CodeLocationBroken": {'dagster_code_location_loaded{location="shop"}': phases(1, 0)},
    "DiskFull": {
        'node_filesystem_avail_bytes{mountpoint="/"}': phases(11, 9),
        'node_filesystem_size_bytes{mountpoint="/"}': phases(100, 100),
    },
    "ProductUnreadable": {f"driftline_product_up{{{P}}}": phases(1, 0)},
    "FeedDead": {
        f'driftline_held_keys{{{P},source="orders",check="missing_delivery"}}': phases(0, 1),
        f'driftline_held_keys{{{P},source="orders",check="frozen_columns"}}': phases(1, 1),
    },
    "KeyHeld": {
        f'driftline_held_keys{{{P},source="orders",check="frozen_columns"}}': phases(0, 2),
        f'driftline_held_keys{{{P},source="orders",check="missing_delivery"}}': phases(1, 1),
    },
    "LabelsMissing": {
        f"driftline_awaited_labels_keys{{{P}}}": phases(7, 8),
        f"driftline_label_patience_keys{{{P}}}": phases(7, 7),
    },
    "ModelStale": {
        f"driftline_model_age_keys{{{P}}}": phases(35, 36),
        f"driftline_model_age_limit_keys{{{P}}}": phases(28, 28),
    },
    "ModelRefused": {f"driftline_refused_models{{{P}}}": phases(0, 1)},
    "PromisesBroken": {f"driftline_failing_promises{{{P}}}": phases(0, 1)},
    "BudgetSpent": {
        f"driftline_month_spent_usd{{{P}}}": phases(4.4, 4.5),
        f"driftline_month_budget_usd{{{P}}}": phases(5, 5),
    },
    "AlertsUnsent": {f"driftline_unsent_alerts{{{P}}}": phases(0, 1)},
    "ServiceErrorsFast": {
        f'driftline_requests_total{{{P},status="200"}}': rates(1000, 1000),
        f'driftline_requests_total{{{P},status="503"}}': rates(14, 15),
    },
    "ServiceErrorsSlow": {
        f'driftline_requests_total{{{P},status="200"}}': rates(1000, 1000),
        f'driftline_requests_total{{{P},status="503"}}': rates(5.9, 6.2),
    },
    "ServiceSlowFast": {
        f'driftline_request_seconds_bucket{{{P},le="0.1"}}': rates(986, 985),
        f"driftline_request_seconds_count{{{P}}}": rates(1000, 1000),
    },
    "ServiceSlow": {
        f'driftline_request_seconds_bucket{{{P},le="0.1"}}': rates(994.2, 993.8),
        f"driftline_request_seconds_count{{{P}}}": rates(1000, 1000),
    },
    "ServiceDown": {
        f'driftline_ready{{{P},pod="a"}}': phases(0, 0),
        f'driftline_ready{{{P},pod="b"}}': phases(1, 0),
    },
    "FollowerProblem": {f"driftline_release_has_problem{{{P}}}": phases(0, 1)},
    "ModelProblem": {f"driftline_model_has_problem{{{P}}}": phases(0, 1)},
    "LogProblem": {f"driftline_log_has_problem{{{P}}}": phases(0, 1)},
    "AnswersUnshipped": {f"driftline_log_unshipped_seconds{{{P}}}": phases(290, 310)},
    "ClockWrong": {f"driftline_clock_offset_seconds{{{P}}}": phases(-29, -31)},
    "ServiceRestarts": {f"driftline_process_deaths_total{{{P}}}": rates(0.05, 0.2)},
    "ServiceBusy": {f"driftline_in_flight_requests{{{P}}}": phases(8, 9)},
}
"""Of each alert: series of the near miss, of the cause, and of what comes after it."""


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def series(at: At, phase: int) -> str:
    values = [at(minute, phase) for minute in range(3 * phase)]
    return " ".join("_" if value is None else f"{value:g}" if value < 1e6 else f"{value:.0f}" for value in values)


def test_every_alert_has_a_cause_a_severity_a_runbook_and_a_command() -> None:
    assert CAUSES.keys() == alerts().keys() - {"Watchdog"}
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket", "none"), name
        assert {"summary", "runbook", "command"} <= rule["annotations"].keys(), name


@needs_promtool
@pytest.mark.parametrize("name", CAUSES)
def test_an_alert_fires_on_its_cause_only(name: str, tmp_path: Path) -> None:
    causes = {f'driftline_product_info{{{P},owner="team:shop"}}': phases(1, 1), **CAUSES[name]}
    if name != "ExporterDown":
        causes.setdefault('driftline_exporter_part_up{part="dagster"}', phases(1, 1))
    phase = LONG.get(name, PHASE)
    firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
    expected = {phase - 1: [], 2 * phase - 1: [{"value": 1}], 3 * phase - 1: []}
    document = {
        "rule_files": [str(RULES.absolute())],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": label, "values": series(at, phase)} for label, at in causes.items()],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": f"{minute}m", "exp_samples": samples}
                    for minute, samples in expected.items()
                ],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert PROMTOOL is not None
    result = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_alerts_of_a_product_have_its_owner() -> None:
    """The route of Alertmanager goes by severity and owner."""
    of_owner = [name for name, rule in alerts().items() if "driftline_product_info" in rule["expr"]]
    assert {"FeedDead", "KeyHeld", "LabelsMissing", "ModelStale", "BudgetSpent"} <= {*of_owner}


def test_the_rules_read_metrics_that_exist() -> None:
    of_services = Metrics().text().decode()
    known = {*re.findall(r"^# TYPE (\S+)", of_services, re.MULTILINE), *products.GAUGES}
    known |= {f"{name}_total" for name in products.COUNTERS} | {
        "driftline_exporter_part_up", "driftline_request_seconds_bucket", "driftline_request_seconds_count",
    }  # fmt: skip
    named = set(re.findall(r"\bdriftline_\w+", RULES.read_text(encoding="utf-8")))
    assert named - known == set()


def test_the_commands_of_the_rules_run(capsys: pytest.CaptureFixture[str]) -> None:
    commands = {rule["annotations"]["command"] for rule in alerts().values()}
    ours = {command.split()[1] for command in commands if command.startswith("driftline ")}
    for verb in ours:
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0, capsys.readouterr().err
