"""Records as they are stored, for tests that need one and care about few of its members."""

from typing import Any

from platform_assets.store.records.performance import MEASURED, Measured, Tested

AT = "2020-01-05T04:00:00+00:00"


def advance(first: str, last: str | None = None, **members: Any) -> dict[str, Any]:
    result = {"kind": "advance", "first": first, "why": "a new file", "by": "a test", "at_utc": AT, **members}
    return result if last is None else {**result, "last": last}


def decision_request(key: str, **members: Any) -> dict[str, Any]:
    return {"kind": "decision", "key": key, "why": "stale", "by": "a test", "at_utc": AT, **members}


def failure(**members: Any) -> dict[str, Any]:
    location = {"first": None, "last": None, "step": None, "attempt": None, "sensor": None}
    return {"job": "advance__recorded", "run_id": "r1", "error": "no file", "at_utc": AT, **location, **members}


def fault(kind: str, key: str, source: str = "readings", **members: Any) -> dict[str, Any]:
    signed = {"product": "a_product", "key": key, "why": "planted", "by": "a test", "at_utc": AT}
    primary = {"source": source, "check": "volume", "column": None, "came": "2 rows", "expected": "9 rows"}
    of_kind: dict[str, dict[str, Any]] = {
        "fault": {**primary, "episode": key, "since": key, "labels_are_broken": False},
        "null": {"fault": 1, "source": source},
    }
    result = {"kind": kind, **signed, **of_kind.get(kind, {}), **members}
    if kind == "fault":
        result.setdefault("checks", [{**{name: result[name] for name in primary}, "digest": "d"}])
    return result


def release(cutoff: str = "2020-01-08", digest: str = "d" * 64, **members: Any) -> dict[str, Any]:
    """Return a release record without a predecessor."""
    return {
        "format": 3,
        "product": "a_product",
        "channels": {"live": {"digest": digest, "share": 1.0}},
        "contract_sha256": "c" * 64,
        "cutoff": cutoff,
        "outcome": "released",
        "why": "it is better",
        "by": "somebody",
        "at_utc": AT,
        "previous": None,
        "restores": None,
        **dict.fromkeys(("override", "previous_sha256", "verdict_sha256")),
        **members,
    }


def live_digest(release: dict[str, Any]) -> str:
    return release["channels"]["live"]["digest"]


def verdict(digest: str = "d" * 64, passed: bool = True, **members: Any) -> dict[str, Any]:
    """Return a verdict on a product with a binary task; `rows` are added to its own."""
    quality = {"auc": 0.7, "log_loss": 0.4, "brier": 0.1, "ece": 0.02}
    rows = {"labelled": 10, "without_label": 0, "keys": 2, "first_key": "0001", "last_key": "0002"}
    return {
        "format": 3,
        "product": "a_product",
        "digest": digest,
        "cutoff": "2020-01-08",
        "champion_digest": None,
        "passed": passed,
        "reasons": ["It was planted."],
        "notes": [],
        "gates": {"headline": "auc", "max_drop": 0.01, "confidence": 0.95},
        "models": {"challenger": quality, "baseline constant": quality},
        "comparisons": [],
        "decided": {},
        "calibration": {},
        "slices": {"challenger": []},
        **members,
        "rows": {**rows, **members.get("rows", {})},
    }


def decision(key: str = "2020-01-01", action: str = "wait", **members: Any) -> dict[str, Any]:
    """Return a decision; `numbers` are added to its own."""
    numbers = {
        "is_decision_key": True,
        "decide_every": 7,
        "model_age_keys": 1,
        "training_age_keys": 1,
        "live_digest": None,
        "max_age_keys": 28,
        "cooldown_keys": 7,
        "usable_keys": 60,
        "min_keys": 45,
        **{name: [] for name in ("unlabelled", "given_up", "given_up_now", "held")},
        "lacks_newest": False,
        "waited_keys": 0,
        "fresh_keys": None,
        "performance": None,
        "skew": None,
        "min_excess_loss": 0.01,
        "confidence": 0.99,
        "verdict": "fine",
        **dict.fromkeys(("drift_index", "drift_percentile", "answers_percentile")),
        "is_drift_enough": True,
        "budget_usd": None,
        "is_newest": True,
        "overdue_keys": None,
        "awaits_labels": False,
    }
    return {
        "product": "a_product",
        "key": key,
        "action": action,
        "cutoff": None,
        "reasons": ["so it is."],
        "is_free": True,
        "fault": None,
        "request": None,
        "at_utc": AT,
        "measured": {"spent_usd": 0, "next_usd": None, "latency": None},
        **members,
        "numbers": {**numbers, **members.get("numbers", {})},
    }


def overspending(cutoff: str, fingerprint: str, **members: Any) -> dict[str, Any]:
    numbers = {"budget_usd": 1.0, "spent_usd": 1.0, "next_usd": 1.5, "over_usd": 1.5}
    named = {"product": "a_product", "cutoff": cutoff, "fingerprint": fingerprint, "month": "2020-01", "run_id": "r"}
    return {**named, "why": "it must", "over": "it is too much.", "at_utc": AT, **numbers, **members}


def measured(**members: Any) -> Measured:
    """Return the numbers of a key without requests."""
    unset = dict.fromkeys(("decided", "digest", "excess_log_loss", "expected_log_loss", "quality"))
    return MEASURED.read({**unset, "labelled": 0, "labels": {}, "models": [], "rows": 0, **members}, "")


def tested(**members: Any) -> Tested:
    """Return a test of log loss that fails."""
    effect = {"effect": 0.02, "low": 0.01, "high": 0.03, "p_adjusted": 0.001, "p_value": 0.0002}
    return Tested(
        **{"name": "log_loss", "words": "log loss", "keys": 9, "margin": None, "side": 1, **effect, **members}
    )
