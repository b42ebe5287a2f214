"""Every shipped alert fires on its cause, stays quiet on the near miss, and resolves: evaluated by promtool."""

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from platform_assets.alerts.alertmanager import Alertmanager, Message
from platform_assets.base.settings import Settings
from platform_assets.monitoring import alert_kinds
from platform_assets.store.records.alerts import Alert
from tests.doubles import promql

pytestmark = pytest.mark.slow

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


OWN_OBJECTIVE = {
    f'driftline_latency_objective_seconds{{{P},bucket="0.25"}}': phases(0.2, 0.2),
    f'driftline_request_seconds_bucket{{{P},le="0.1"}}': rates(500, 500),
    f"driftline_request_seconds_count{{{P}}}": rates(1000, 1000),
    f'driftline_requests_total{{{P},status="200"}}': rates(1000, 1000),
}
"""Half of the requests take longer than the 100 ms of other products: 200 ms are asked for, and 250 ms are measured."""
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
        'dagster_runs_ended_total{location="a",job_name="advance__shop",state="failure"}': rates(0, 0.2),
        'dagster_runs_ended_total{location="a",job_name="verify__shop",state="failure"}': rates(1, 1),
        'dagster_runs_ended_total{location="a",job_name="advance__shop",state="success"}': rates(1, 1),
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
        'node_filesystem_avail_bytes{device="sda",fstype="ext4",mountpoint="/"}': phases(11, 9),
        'node_filesystem_size_bytes{device="sda",fstype="ext4",mountpoint="/"}': phases(100, 100),
        'node_filesystem_avail_bytes{device="snap",fstype="squashfs",mountpoint="/snap"}': phases(0, 0),
        'node_filesystem_size_bytes{device="snap",fstype="squashfs",mountpoint="/snap"}': phases(9, 9),
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
        f"driftline_awaited_labels_keys{{{P}}}": phases(6, 7),
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
    "ServiceSlowFast": {**OWN_OBJECTIVE, f'driftline_request_seconds_bucket{{{P},le="0.25"}}': rates(986, 985)},
    "ServiceSlow": {**OWN_OBJECTIVE, f'driftline_request_seconds_bucket{{{P},le="0.25"}}': rates(994.2, 993.8)},
    "ServiceDown": {f'driftline_ready{{{P},pod="a"}}': phases(0, 0), f'driftline_ready{{{P},pod="b"}}': phases(1, 0)},
    "ServiceProcessDown": {f'up{{{P},instance="b"}}': phases(1, 0), 'up{job="other",instance="c"}': phases(0, 0)},
    "FollowerProblem": {f"driftline_release_has_problem{{{P}}}": phases(0, 1)},
    "ModelProblem": {f"driftline_model_has_problem{{{P}}}": phases(0, 1)},
    "LogProblem": {f"driftline_log_has_problem{{{P}}}": phases(0, 1)},
    "AnswersUnshipped": {f"driftline_log_unshipped_seconds{{{P}}}": phases(290, 310)},
    "ClockWrong": {f"driftline_clock_offset_seconds{{{P}}}": phases(-29, -31)},
    "ServiceRestarts": {f"driftline_process_deaths_total{{{P}}}": rates(0.05, 0.2)},
    "ServiceBusy": {f"driftline_in_flight_requests{{{P}}}": phases(8, 9)},
}
"""Of each alert: series of the near miss, of the cause, and of what comes after it."""


def series(at: At, phase: int) -> str:
    values = [at(minute, phase) for minute in range(3 * phase)]
    return " ".join("_" if value is None else f"{value:g}" if value < 1e6 else f"{value:.0f}" for value in values)


def scraped(causes: Mapping[str, At]) -> dict[str, At]:
    """Give series the labels of their targets; what the exporter says comes from two, the old one and the new."""
    result: dict[str, At] = {}
    for name, at in causes.items():
        metric, _, labels = name.rstrip("}").partition("{")
        is_of_exporter = metric.startswith("dagster_") or metric in OF_EXPORTER
        for instance in ("a", "b") if is_of_exporter else ("a",):
            own = {"namespace": "ml", "instance": instance}
            target = [f'{label}="{value}"' for label, value in own.items() if f"{label}=" not in labels]
            parts = [*filter(None, [labels]), *target]
            result[f"{metric}{{{','.join(parts)}}}"] = at
    return result


OF_EXPORTER = {
    *("driftline_exporter_part_up", "driftline_awaited_labels_keys", "driftline_label_patience_keys"),
    *("driftline_model_age_keys", "driftline_model_age_limit_keys", "driftline_product_info", "driftline_product_up"),
    *("driftline_month_spent_usd", "driftline_month_budget_usd", "driftline_held_keys", "driftline_unsent_alerts"),
    *("driftline_latency_objective_seconds", "driftline_refused_models", "driftline_failing_promises"),
}
INFO = {f'driftline_product_info{{{P},owner="team:shop"}}': phases(1, 1)}
UP = {'driftline_exporter_part_up{part="dagster"}': phases(1, 1)}


def promtool_test(folder: Path, causes: Mapping[str, At], phase: int, **tests: list[dict[str, Any]]) -> str:
    """Let promtool evaluate the rules minute by minute; return what it prints of failures."""
    test = {
        "interval": "1m",
        "input_series": [{"series": label, "values": series(at, phase)} for label, at in scraped(causes).items()],
        **tests,
    }
    document = {"rule_files": [str(promql.RULES)], "evaluation_interval": "1m", "tests": [test]}
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert PROMTOOL is not None
    result = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    return result.stdout + result.stderr if result.returncode else ""


def expect(expr: str, counts: Mapping[int, int]) -> list[dict[str, Any]]:
    """Return the expected values of an expression by minute; none for 0."""
    return [
        {"expr": expr, "eval_time": f"{minute}m", "exp_samples": [{"value": count}] if count else []}
        for minute, count in counts.items()
    ]


def firing(name: str, **labels: str) -> str:
    """Return how many alerts of a name fire that have these labels and none of a process."""
    wanted = {"alertname": name, "alertstate": "firing", "pod": "", **labels}
    matchers = ",".join(f'{label}="{value}"' for label, value in wanted.items())
    return f"count(ALERTS{{{matchers}}})"


def test_every_alert_has_a_cause_a_severity_a_runbook_and_a_command() -> None:
    assert CAUSES.keys() == promql.alerts().keys() - {"Watchdog"}
    for name, rule in promql.alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket", "none"), name
        assert {"summary", "runbook", "command"} <= rule["annotations"].keys(), name


@pytest.mark.costly
@needs_promtool
@pytest.mark.parametrize("name", CAUSES)
def test_an_alert_fires_on_its_cause_only(name: str, tmp_path: Path) -> None:
    """Once, whatever the number of processes, with the product's owner."""
    causes = INFO | ({} if name == "ExporterDown" else UP) | CAUSES[name]
    phase = LONG.get(name, PHASE)
    owner = "platform" if "owner" in promql.alerts()[name]["labels"] else "team:shop"
    instance = {} if name == "DiskFull" else {"instance": ""}
    one = expect(firing(name, owner=owner, **instance), {phase - 1: 0, 2 * phase - 1: 1, 3 * phase - 1: 0})
    every = expect(f'count(ALERTS{{alertname="{name}"}})', {2 * phase - 1: 1})
    # Promtool prints an alert that it was told not to expect, with its text.
    printed = [{"eval_time": f"{2 * phase - 1}m", "alertname": name, "exp_alerts": []}]
    output = promtool_test(tmp_path, causes, phase, promql_expr_test=[*one, *every], alert_rule_test=printed)
    assert "expr:" not in output, output
    text = re.sub(r'command="(?:[^"\\]|\\.)*"', "", output.partition("got:")[2])  # promtool has no externalURL
    assert "summary=" in text and not re.search(r"<error|no value|\{\{|%!", text), output
    if "$labels.product" in promql.alerts()[name]["annotations"]["summary"]:
        assert "shop" in text, text
    if name.startswith("ServiceSlow"):
        assert "longer than 200ms" in text, text


DETAILS = {
    "fault": {"source": "orders", "check": "frozen_columns"},
    "FeedDead": {"source": "orders", "check": "missing_delivery"},
    "failure": {"job": "advance__shop", "location": "a"},
}
"""Of our own alerts, by kind or, where that has several, by name."""


@pytest.mark.costly
@needs_promtool
@pytest.mark.parametrize("kind", [kind.recorded for kind in alert_kinds.Kind if kind.value.is_rule] + ["FeedDead"])
def test_what_our_sensors_raise_about_the_same_is_the_same_alert(kind: str, tmp_path: Path) -> None:
    """Alertmanager takes two alerts for one if all their labels are equal."""
    details = DETAILS.get(kind, {})
    kind = "fault" if kind == "FeedDead" else kind
    known = alert_kinds.row_of(kind, details)
    cluster = Settings(
        root="s3://bucket", state=tmp_path, environment="cluster", namespace="ml", alertmanager="http://a"
    )
    alert = Alert(id="a", product="shop", kind=kind, text="t", at_utc="", details=details, severity=known.severity)
    labels = Alertmanager(cluster).labels(Message(alert=alert, owner="team:shop"))
    of_rule = ",".join(f'{name}="{value}"' for name, value in {**labels, "alertstate": "firing"}.items())
    expr = f'ALERTS{{alertname="{known.name}"}}'
    samples = [{"labels": f"ALERTS{{{of_rule}}}", "value": 1}]
    one = [{"expr": expr, "eval_time": f"{2 * PHASE - 1}m", "exp_samples": samples}]
    assert promtool_test(tmp_path, INFO | UP | CAUSES[known.name], PHASE, promql_expr_test=one) == ""


def test_every_kind_of_alert_that_a_rule_has_too_says_so() -> None:
    known = [*(kind.value for kind in alert_kinds.Kind), alert_kinds.FEED_DEAD]
    assert {kind.name for kind in known if kind.is_rule} == {kind.name for kind in known} & promql.alerts().keys()


@pytest.mark.costly
@needs_promtool
def test_an_owner_stays_while_the_exporter_is_away_and_is_unknown_before_it_was_there(tmp_path: Path) -> None:
    causes = {
        f'driftline_product_info{{{P},owner="team:shop"}}': gone_while,
        f"driftline_ready{{{P}}}": phases(1, 0),
        'driftline_ready{product="new"}': phases(1, 0),
    }
    counts = [
        *expect(firing("ServiceDown", product="shop", owner="team:shop"), {2 * PHASE - 1: 1}),
        *expect(firing("ServiceDown", product="new", owner="unknown"), {2 * PHASE - 1: 1}),
        *expect(firing("ServiceDown"), {2 * PHASE - 1: 2}),
    ]
    assert promtool_test(tmp_path, causes, PHASE, promql_expr_test=counts) == ""


@pytest.mark.costly
@needs_promtool
def test_a_service_whose_processes_are_gone_is_down_and_a_product_that_nobody_serves_is_not(tmp_path: Path) -> None:
    causes = {
        **INFO,
        f'driftline_ready{{{P},pod="a"}}': gone_while,
        'driftline_product_info{product="batch",owner="team:batch"}': phases(1, 1),
        'driftline_newest_release{product="batch"}': phases(3, 3),
    }
    counts = expect(firing("ServiceDown", product="shop"), {PHASE - 1: 0, 2 * PHASE - 1: 1, 3 * PHASE - 1: 0})
    counts += expect(firing("ServiceDown", product="batch"), {2 * PHASE - 1: 0})
    assert promtool_test(tmp_path, causes, PHASE, promql_expr_test=counts) == ""


@needs_promtool
def test_a_new_owner_gets_the_alerts_within_a_minute(tmp_path: Path) -> None:
    causes = {
        f'driftline_product_info{{{P},owner="team:shop"}}': lambda m, _: 1.0 if m < PHASE else None,
        f'driftline_product_info{{{P},owner="team:new"}}': lambda m, _: 1.0 if m >= PHASE else None,
    }
    owners = []
    for minute, owner in {PHASE - 1: "team:shop", PHASE + 1: "team:new"}.items():
        labels = f'driftline:product:owner{{namespace="ml", owner="{owner}", product="shop"}}'
        samples = [{"labels": labels, "value": 1}]
        owners.append({"expr": "driftline:product:owner", "eval_time": f"{minute}m", "exp_samples": samples})
    assert promtool_test(tmp_path, causes, PHASE, promql_expr_test=owners) == ""


@pytest.mark.costly
@needs_promtool
def test_a_failed_job_of_no_product_is_the_platforms(tmp_path: Path) -> None:
    causes = {
        f'dagster_runs_ended_total{{location="a",job_name="{job}",state="failure"}}': rates(0, 0.2)
        for job in ("nightly", "load__warehouse", "advance__shop")
    }
    counts = [
        *expect(firing("RunsFail", owner="platform"), {2 * PHASE - 1: 2}),
        *expect(firing("RunsFail", owner="team:shop", product="shop"), {2 * PHASE - 1: 1}),
    ]
    assert promtool_test(tmp_path, INFO | UP | causes, PHASE, promql_expr_test=counts) == ""


@pytest.mark.costly
@needs_promtool
def test_a_few_failed_requests_at_night_wake_nobody(tmp_path: Path) -> None:
    """Nine of ten requests of an hour: a ticket."""
    causes = {
        f'driftline_requests_total{{{P},status="200"}}': rates(1 / 60, 1 / 60),
        f'driftline_requests_total{{{P},status="503"}}': rates(0, 9 / 60),
    }
    counts = [
        *expect(firing("ServiceErrorsFast"), {2 * 480 - 1: 0}),
        *expect(firing("ServiceErrorsSlow"), {2 * 480 - 1: 1}),
    ]
    assert promtool_test(tmp_path, INFO | UP | causes, 480, promql_expr_test=counts) == ""


@pytest.mark.costly
@needs_promtool
def test_a_product_in_two_namespaces_is_two_products(tmp_path: Path) -> None:
    """A service that is ready for staging does not hide that production has none."""
    causes = {f"driftline_ready{{{P}}}": phases(1, 0), f'driftline_ready{{{P},namespace="staging"}}': phases(1, 1)}
    counts = expect(firing("ServiceDown", namespace="ml"), {PHASE - 1: 0, 2 * PHASE - 1: 1})
    assert promtool_test(tmp_path, INFO | UP | causes, PHASE, promql_expr_test=counts) == ""
