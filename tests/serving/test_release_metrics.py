"""Requests, latency, refusals and predictions are counted by release; a swap has one line, and is counted."""

import logging
import re
from typing import Any

import pytest

from platform_assets.serving.run.metrics import RELEASES_MAX
from tests.doubles import models

LABEL = re.compile(r'^driftline_(\w+)\{.*release="(\w+)".*\} (\S+)$', re.MULTILINE)
NAMES = {
    "requests_total",
    "refused_requests_total",
    "predictions_total",
    *(f"request_seconds_{part}" for part in ("bucket", "count", "sum")),
}


def by_release(app: Any, name: str) -> dict[str, float]:
    """Return the sums of a metric by release."""
    sums: dict[str, float] = {}
    for found, release, value in LABEL.findall(app.metrics()):
        if found == name:
            sums[release] = sums.get(release, 0.0) + float(value)
    return sums


def release(app: Any, bias: float) -> str:
    digest = app.release(bias=bias)
    app.follower.look()
    app.middleware.health.note()
    return digest


def test_counters_are_at_zero_from_the_start(app: Any) -> None:
    text = app.metrics()
    for line in (
        "driftline_model_swaps_total 0.0",
        "driftline_process_deaths_total 0.0",
        'driftline_requests_total{release="none",status="503"} 0.0',
        'driftline_refused_requests_total{release="none"} 0.0',
        'driftline_predictions_total{release="none"} 0.0',
        'driftline_request_seconds_count{release="none"} 0.0',
        'driftline_http_requests_total{path="/predict",status="gone"} 0.0',
    ):
        assert line in text
    counters = re.findall(r"^# TYPE (\w+) counter$", text, re.MULTILINE)
    assert [name for name in counters if not re.search(rf"^{name}[ {{]", text, re.MULTILINE)] == [
        "driftline_shipping_requests_total"  # only where the log is shipped
    ]


def test_each_request_counts_for_the_release_that_answered(app: Any) -> None:
    app.follower.look()
    for bias in (1.0, 2.0):
        release(app, bias)
        app.predict([models.row("a"), models.row("b")])
        app.predict(b"{")
    app.runtime.metrics.count_refused("/predict")
    assert by_release(app, "requests_total") == {"none": 0.0, "1": 2.0, "2": 3.0}
    assert by_release(app, "request_seconds_count") == {"none": 0.0, "1": 2.0, "2": 2.0}
    assert by_release(app, "predictions_total") == {"none": 0.0, "1": 2.0, "2": 2.0}
    assert by_release(app, "refused_requests_total") == {"none": 0.0, "1": 0.0, "2": 1.0}


def test_series_of_old_releases_are_removed(app: Any) -> None:
    first = None
    for count in range(3 * RELEASES_MAX):
        release(app, float(count))
        first = first or app.follower.live
        app.predict(models.row())
    kept = {str(number) for number in range(2 * RELEASES_MAX + 1, 3 * RELEASES_MAX + 1)}
    found = LABEL.findall(app.metrics())
    assert {name for name, _, _ in found if not name.endswith("_created")} == NAMES
    assert {label for _, label, _ in found} == {"none", *kept}
    # A slow request of the first release ends only now.
    app.runtime.metrics.end("/predict", 200, 1.0, first)
    assert by_release(app, "requests_total") == {"none": 0.0, "older": 1.0, **dict.fromkeys(kept, 1.0)}


def test_a_swap_is_one_line_and_counted(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bentoml.driftline"):
        first = release(app, 1.0)  # the first look: nobody has asked yet
        second = release(app, 2.0)
        app.follower.look()
        models.release(str(app.folder / "store"), first)
        app.follower.look()
    lines = [line for line in caplog.messages if "bundle" in line]
    patterns = (
        rf"tiny: serves release 1, bundle {first}, in [0-9.]+ s\.",
        rf"tiny: swapped the model from release 1 to release 2, bundle {second}, in [0-9.]+ s\.",
        rf"tiny: swapped the model from release 2 to release 3, bundle {first}, in [0-9.]+ s\.",
    )
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    assert "driftline_model_swaps_total 2.0" in app.metrics()


def test_a_peak_stays_visible_for_whoever_scrapes_once_a_minute(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("platform_assets.serving.run.metrics.time.monotonic", lambda: now[0])
    metrics = app.runtime.metrics
    metrics.note_lag(0.7, 9)
    for now[0] in range(1001, 1066):
        metrics.note_lag(0.0, 0)
    assert "driftline_event_loop_lag_seconds 0.7" in metrics.text().decode()
    assert "driftline_in_flight_requests 9.0" in metrics.text().decode()
    now[0] = 1080.0
    metrics.note_lag(0.0, 0)
    assert "driftline_in_flight_requests 0.0" in metrics.text().decode()
