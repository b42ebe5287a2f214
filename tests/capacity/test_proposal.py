"""What is proposed from a measurement, by hand and for any numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.capacity import Measured, Step, as_text, propose
from platform_assets.specs.base import Pods

GB = 1024**3


def step(per_second: float, p99_ms: float = 20.0, cores: float = 0.5, **changes: Any) -> Step:
    values = {"sent": 100, "failed": 0, "p50_ms": 5.0, "late_ms": 0.5, "cpu_ms": 1e3 * cores / per_second}
    return Step(per_second=per_second, p99_ms=p99_ms, cores=cores, **{**values, **changes})


def measured(*steps: Step, **changes: Any) -> Measured:
    values = {"machine": "core 1 of 2", "ready_s": 4.0, "memory_bytes": int(0.4 * GB), "bound_ms": 100.0}
    return Measured(steps=list(steps), **{**values, **changes})


LOADS = measured(step(100, cores=0.2), step(440, cores=0.88), step(500, 250.0, cores=1.0))


def test_the_target_leaves_room_for_a_lost_replica_and_the_autoscalers_tolerance() -> None:
    proposal = propose(LOADS, Pods(), 0.6 * GB, 1_000)
    assert LOADS.best == LOADS.steps[1]
    # At 88 % of a core p99 held; one of two may end, and 10 % above the target change nothing: 0.88 / 2 / 1.1.
    assert (proposal.replicas, proposal.cpu_target) == (2, 0.4)
    # 1,000 requests of 2 ms are 2 cores; at 40 % they need 5 reserved cores, on three times two pods.
    assert (proposal.cores, proposal.replicas_max) == (0.85, 6)
    assert proposal.used_after_loss == pytest.approx(2 / (5 * 0.85))
    assert proposal.memory_gb == 0.6


def test_more_replicas_need_less_room() -> None:
    assert propose(LOADS, Pods(replicas=3), 0.0, 1_000).cpu_target == 0.53
    assert propose(LOADS, Pods(replicas=1), 0.0, 1_000).replicas == 2


def test_memory_is_a_quarter_more_than_was_measured_where_that_is_more() -> None:
    assert propose(LOADS, Pods(), 0.1 * GB, 1_000).memory_gb == 0.5


def test_without_a_peak_the_files_pods_are_kept_and_the_peak_they_can_serve_is_stated() -> None:
    proposal = propose(LOADS, Pods(replicas=2, replicas_max=5, cores=0.3), 0.0)
    assert (proposal.replicas_max, proposal.cores) == (5, 0.3)
    assert proposal.peak_per_second == pytest.approx(5 * 0.4 * 0.3 / 0.002)


def test_a_load_beyond_the_first_that_failed_does_not_count() -> None:
    lucky = measured(step(100), step(200, 5_000.0, failed=3), step(300))
    assert lucky.best == lucky.steps[0]
    assert "at 200 it is 5000.0 ms, and 3 of 100 requests failed." in as_text(
        "parts", lucky, propose(lucky, Pods(), 0.0)
    )


def test_requests_that_failed_are_beyond_any_bound() -> None:
    slow = {"bound_ms": 10_000.0}  # above the 5 s that a failed request counts as
    assert measured(step(100, 5_000.0, failed=1), **slow).best is not None
    assert measured(step(100, 5_000.0, failed=2), **slow).best is None


def test_nothing_is_proposed_where_no_load_kept_the_bound() -> None:
    with pytest.raises(ValueError, match=r"did not even answer 10 requests per second within 100 ms \(p99 120\.0 ms"):
        propose(measured(step(10, 120.0)), Pods(), 0.0)


@pytest.mark.parametrize("peak", [0.0, -5.0, float("inf"), float("nan")])
def test_a_peak_that_is_not_a_positive_number_is_refused(peak: float) -> None:
    with pytest.raises(ValueError, match="expected a number above 0"):
        propose(LOADS, Pods(), 0.0, peak)


def test_the_text_has_the_line_for_the_products_file_and_the_figures_behind_it() -> None:
    text = as_text("parts", LOADS, propose(LOADS, Pods(), 0.6 * GB, 1_000))
    assert "pods=Pods(replicas=2, replicas_max=6, cores=0.85, memory_gb=0.6, cpu_target=0.4)" in text
    assert "p99 keeps the product's 100 ms up to 440 requests per second; at 500 it is 250.0 ms" in text
    assert "the others use 47% of their reserved CPU" in text


@given(
    st.floats(0.02, 1.5),
    st.floats(0.05, 50.0),
    st.floats(0.01, 1e5),
    st.integers(1, 6),
)
def test_after_a_loss_the_others_are_no_busier_than_the_replica_that_kept_the_bound(
    cores: float, cpu_ms: float, peak: float, replicas: int
) -> None:
    one = measured(step(100, cores=cores, cpu_ms=cpu_ms))
    proposal = propose(one, Pods(replicas=replicas), 0.0, peak)
    Pods(
        replicas=proposal.replicas,
        replicas_max=proposal.replicas_max,
        cores=proposal.cores,
        memory_gb=proposal.memory_gb,
        cpu_target=proposal.cpu_target,
    )
    used = peak * cpu_ms / 1e3 / ((proposal.replicas_max - 1) * proposal.cores)
    assert proposal.used_after_loss == pytest.approx(used)
    # The target is at least 1 %, also of a replica that used less than that.
    assert used <= max(min(1.0, cores), 0.022) + 1e-9
