"""Name each kind of alert as Alertmanager knows it. To add a kind, add a row.

Where deploy/monitoring/rules.yaml has an alert about the same, ours has its name, severity and labels: Alertmanager
then sees one alert from two sides, and tells people once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from platform_assets.store.records.alerts import Severity


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How Alertmanager knows a kind of alert.

    Attributes:
        name: its label `alertname`.
        severity: `page`: somebody is woken; `ticket`: in working hours.
        is_rule: whether rules.yaml has the same alert.
        labels: more labels, with the name of the detail that is their value.
        lasts_s: seconds for which it is repeated to Alertmanager without an episode; None: until its episode has ended.
    """

    name: str
    severity: Severity = "ticket"
    is_rule: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    lasts_s: float | None = None


FEED_DEAD = Kind(name="FeedDead", severity="page", is_rule=True, labels={"source": "source"})
JOB = {"job_name": "job"}
KINDS = {
    "fault": Kind(name="KeyHeld", is_rule=True),
    "unlabelled": Kind(name="LabelsMissing", is_rule=True),
    "stale_model": Kind(name="ModelStale", is_rule=True),
    "decay": Kind(name="PromisesBroken", is_rule=True),
    # With the 10 minutes for which Alertmanager keeps it then, the 15 minutes at which the rule looks back.
    "failure": Kind(name="RunsFail", is_rule=True, labels=JOB | {"location": "location"}, lasts_s=300),
    "gave_up": Kind(name="RunsGivenUp", labels=JOB),
    "stale": Kind(name="StageStale", labels={"stage": "stage"}),
    "changed": Kind(name="FileChanged", labels={"source": "source"}),
    "drift": Kind(name="DataDrifted"),
    "skew": Kind(name="FeaturesSkewed"),
    "slow_answers": Kind(name="AnswersSlow"),
    "silent": Kind(name="ServiceSilent"),
    "older_rows": Kind(name="RowsOlder"),
    "release": Kind(name="ContractChanged", lasts_s=300),
    "test": Kind(name="DriftlineTest", lasts_s=0),
}


def kind_of(kind: str, details: object) -> Kind:
    """Return how Alertmanager knows an alert with these details."""
    if kind == "fault" and value(details, "check") == "missing_delivery":
        return FEED_DEAD
    return KINDS[kind]


def value(details: object, name: str) -> str:
    """Return a detail of an alert as text; the empty text for none."""
    found = details.get(name) if isinstance(details, Mapping) else None
    return "" if found is None else f"{found}"
