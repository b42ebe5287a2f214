"""Name each kind of alert in one row: its text, its severity, and what Alertmanager knows it as. To add one, add a row.

Whoever raises an alert names its row, so there is no alert without one. Where deploy/monitoring/rules.yaml has an alert
about the same, ours has its name, severity and labels: Alertmanager then sees one alert from two sides, and tells
people once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from platform_assets.store.artifacts import sha256
from platform_assets.store.records.alerts import Severity

MAX_ID = 120
"""Longest id, in characters."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is known of a kind of alert.

    Attributes:
        name: its label `alertname` in Alertmanager.
        meaning: what it says, as in the table of docs/operate.md.
        remedy: what to do, as in that table.
        severity: `page`: somebody is woken; `ticket`: in working hours.
        is_rule: whether rules.yaml has the same alert.
        labels: more labels, with the name of the detail that is their value.
        lasts_s: seconds for which it is repeated to Alertmanager without an episode; None: until its episode has ended.
    """

    name: str
    meaning: str
    remedy: str
    severity: Severity = "ticket"
    is_rule: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    lasts_s: float | None = None


class Kind(Enum):
    """The kinds of alerts. A record has the name of its kind in small letters."""

    FAULT = Row(name="KeyHeld", is_rule=True, meaning="a delivery is broken", remedy="[a key is held](#a-key-is-held)")
    STALE = Row(
        name="StageStale",
        labels={"stage": "stage"},
        meaning="a stage lacks keys that are due",
        remedy="deliver the files, or look at the runs of `advance__product`",
    )
    CHANGED = Row(
        name="FileChanged",
        labels={"source": "source"},
        meaning="a landed file differs from the one that its closed key (of the last 31) was made of, or came after "
        "the key was closed",
        remedy="`repair__product` takes it in; do nothing, and the key stays as it was closed",
    )
    UNLABELLED = Row(
        name="LabelsMissing",
        is_rule=True,
        meaning="[labels were given up](#labels-do-not-come)",
        remedy="deliver the files; nothing else waits for them",
    )
    DECAY = Row(
        name="PromisesBroken",
        is_rule=True,
        meaning="the live model fails [a test of its promises](#does-the-model-keep-its-promises)",
        remedy="read the decision; `driftline report` shows quality and calibration; or [roll back](#roll-back)",
    )
    DRIFT = Row(
        name="DataDrifted",
        meaning="the newest keys are [unlike the training rows](#is-it-drift)",
        remedy="the asset `drift` names the fields: repair a broken source, or launch `retrain__product`",
    )
    SKEW = Row(
        name="FeaturesSkewed",
        meaning="callers send [other features](#were-we-asked-with-the-right-features) than the platform's",
        remedy="the check `served_features_equal` names the fields; correct the callers",
    )
    SLOW_ANSWERS = Row(
        name="AnswersSlow",
        meaning="more requests are slower than `Service.latency_ms` than chance explains",
        remedy="[metrics of the services](serve.md#watch-a-service): which processes answer, how busy they are, which "
        "requests take long",
    )
    SILENT = Row(
        name="ServiceSilent",
        meaning="a model is live, and no process of its service sent anything in a key, which is measured without "
        "answers",
        remedy="check that the service runs and may write to the store: `/readyz` says so",
    )
    STALE_MODEL = Row(
        name="ModelStale",
        is_rule=True,
        meaning="the newest training is older than `max_age` and one more decision, and none is decided",
        remedy="the text says what prevents it: fix that, or launch `retrain__product` for the cutoff",
    )
    OLDER_ROWS = Row(
        name="RowsOlder",
        meaning="a training waits for keys that [an earlier version](#rows-of-an-earlier-version) of the product made, "
        "and making them again costs more than `Retraining.rebuild_usd`",
        remedy="`rebuild__product`",
    )
    GAVE_UP = Row(
        name="RunsGivenUp",
        labels={"job_name": "job"},
        meaning="runs fail again and again",
        remedy="read the failed run, correct the file or the code",
    )
    FAILURE = Row(
        name="RunsFail",
        is_rule=True,
        labels={"job_name": "job", "location": "location"},
        # With the 10 minutes for which Alertmanager keeps it then, the 15 minutes at which the rule looks back.
        lasts_s=300,
        meaning="a run failed",
        remedy="read the failed run; sensors try it again after growing pauses",
    )
    RELEASE = Row(
        name="ContractChanged",
        lasts_s=300,
        meaning="a release has another request contract; the running service keeps the last model of its own",
        remedy=r"roll out the new Bento; on a cluster `driftline manifests PRODUCT \| kubectl apply --filename=-`",
    )
    TEST = Row(name="DriftlineTest", lasts_s=0, meaning="`driftline doctor receivers` was run", remedy="nothing")

    @property
    def recorded(self) -> str:
        """Its name in records."""
        return self.name.lower()


FEED_DEAD = Row(
    name="FeedDead",
    severity="page",
    is_rule=True,
    labels={"source": "source"},
    meaning=Kind.FAULT.value.meaning,
    remedy=Kind.FAULT.value.remedy,
)
"""A fault that wakes somebody: a source delivered nothing."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alert to raise, once per episode.

    Attributes:
        id: from `episode_id`; the same for the same episode.
        text: what happened, the numbers, what to do next.
        details: JSON values by name.
    """

    id: str
    kind: Kind
    text: str
    details: object = field(default_factory=dict)


def row_of(kind: str, details: object) -> Row:
    """Return the row of a recorded alert with these details."""
    if kind == Kind.FAULT.recorded and value(details, "check") == "missing_delivery":
        return FEED_DEAD
    return Kind[kind.upper()].value


def value(details: object, name: str) -> str:
    """Return a detail of an alert as text; the empty text for none."""
    detail = details.get(name) if isinstance(details, Mapping) else None
    return "" if detail is None else f"{detail}"


def episode_id(*parts: str) -> str:
    """Return an alert's id from the parts that name its episode: `fault-2013-03-09-weather-frozen_columns`.

    Characters that no ledger accepts become underscores. An id that would be too long, or whose characters were
    replaced, ends with a digest of the whole.
    """
    plain = "-".join(parts)
    clean = re.sub(r"[^A-Za-z0-9_.-]", "_", plain).lstrip("_.-")
    if clean == plain and len(clean) <= MAX_ID:
        return clean
    return f"{clean[: MAX_ID - 9] or 'alert'}-{sha256(plain.encode())[:8]}"
