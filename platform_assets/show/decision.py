"""Show a decision: what was decided, why, and the numbers that Dagster plots over keys.

Belongs here: from the record of a decision to metadata. Does not belong here: deciding (`compute.policy`).
"""

from __future__ import annotations

from msgspec import UnsetType

from platform_assets.records.decisions import Decision
from platform_assets.show import values


def metadata(decided: Decision) -> values.Metadata:
    """Return the metadata of a key; a number that it does not have is left out."""
    numbers = decided.numbers
    seen, skew, fast = numbers.performance, numbers.skew or None, decided.measured.latency or None
    plotted = {
        "model_age_keys": numbers.model_age_keys,
        "training_age_keys": numbers.training_age_keys,
        "drift_percentile": numbers.drift_percentile,
        "answers_percentile": None if isinstance(numbers.answers_percentile, UnsetType) else numbers.answers_percentile,
        "excess_log_loss": None if seen is None else seen.excess,
        "excess_p_value": None if seen is None else seen.p_value,
        "served_equal_share": None if skew is None else skew.share,
        "held_keys": len(numbers.held),
        "given_up_keys": len(numbers.given_up or ()),
        "slow_requests_share": None if fast is None else fast.share,
    }
    failing = () if seen is None else seen.failing or ()
    return {
        "action": decided.action,
        "reasons": values.bullets(decided.reasons),
        "cutoff": decided.cutoff or "none",
        "failing_tests": ", ".join(failing) or "none",
        **{name: value for name, value in plotted.items() if value is not None},
    }
