"""Who asked for a run: a person, a sensor, a schedule, a backfill, or nobody that we know."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from platform_assets import naming

Kind: TypeAlias = Literal["person", "sensor", "schedule", "backfill", "nobody"]
SENSOR, SCHEDULE, BACKFILL = "dagster/sensor_name", "dagster/schedule_name", "dagster/backfill"


@dataclass(frozen=True)
class Requester:
    """Whoever asked for a run.

    Attributes:
        name: a record's `by`.
    """

    name: str
    kind: Kind

    @property
    def tags(self) -> dict[str, str]:
        """The tags of a run that this requester asked for."""
        return {naming.TAG_BY: self.name, naming.TAG_BY_KIND: self.kind}


NOBODY = Requester("nobody", "nobody")


def system_user() -> Requester:
    """Return the user of the operating system that this process belongs to."""
    return Requester(getpass.getuser(), "person")


def of_daemon(tags: Mapping[str, str]) -> Requester | None:
    """Return what made the daemon submit a run with these tags; None if none of them says so.

    A backfill's tags come from whoever started it, so they are believed in nothing else.
    """
    if BACKFILL in tags:
        return Requester(f"backfill {tags[BACKFILL]}", "backfill")
    if SENSOR in tags:
        return Requester(tags[SENSOR], "sensor")
    return Requester(tags[SCHEDULE], "schedule") if SCHEDULE in tags else None


def needs_person(what: str, requester: Requester) -> str:
    """Return why something is refused that only a person may ask for."""
    by = "the requester of this run is unknown"
    if requester.kind != "nobody":
        by = f"this run was requested by {requester.name} ({requester.kind})"
    return (
        f"{what} needs a person, and {by}. Launch it in "
        "Dagster's UI through the proxy that names you, or with `driftline` or `dg` on a laptop."
    )
