"""Build the metadata of a decision: the action, its reasons, and the numbers that Dagster plots over keys."""

from __future__ import annotations

from platform_assets.engine.metadata import Metadata, bullets
from platform_assets.engine.outside import Shown
from platform_assets.store.records.decisions import Decision


def view(shown: Shown) -> tuple[str, Metadata]:
    """Show a key's decision; unknown numbers are left out."""
    decision: Decision = shown.facts
    numbers = decision.numbers
    performance, skew, latency = numbers.performance, numbers.skew, decision.measured.latency
    plotted = {
        "model_age_keys": numbers.model_age_keys,
        "training_age_keys": numbers.training_age_keys,
        "drift_percentile": numbers.drift_percentile,
        "answers_percentile": numbers.answers_percentile,
        "excess_log_loss": None if performance is None else performance.excess,
        "excess_p_value": None if performance is None else performance.p_value,
        "served_equal_share": None if skew is None else skew.share,
        "held_keys": len(numbers.held),
        "given_up_keys": len(numbers.given_up),
        "slow_requests_share": None if latency is None else latency.share,
    }
    failing = () if performance is None else performance.failing
    return (
        f"{decision.action.replace('_', ' ')}: {' '.join(decision.reasons)}",
        {
            "action": decision.action,
            "reasons": bullets(decision.reasons),
            "cutoff": decision.cutoff or "none",
            "failing_tests": ", ".join(failing) or "none",
            **{name: value for name, value in plotted.items() if value is not None},
        },
    )
