"""Who asked for a run: a person, a sensor, a schedule, a backfill, or nobody that we know."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import dagster as dg

from platform_assets.base import naming
from platform_assets.base.settings import Settings

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


class StampsRequesters:
    """A run coordinator that says in a run's tags who asked for it, and refuses a run that says so itself."""


def requester_of(context: dg.OpExecutionContext | dg.AssetExecutionContext, settings: Settings) -> Requester:
    """Return who asked for this run.

    A run that was not submitted to our coordinator, such as one of `dg launch`, runs in the process that asks: on a
    laptop that is the user's, in a cluster nobody's. What its tags say is not believed.
    """
    run = context.run
    # Dagster submits no run without a remote origin, and gives none to a run that it executes in the same process.
    if run.remote_job_origin is not None and isinstance(context.instance.run_coordinator, StampsRequesters):
        return Requester(run.tags[naming.TAG_BY], cast("Kind", run.tags[naming.TAG_BY_KIND]))
    return NOBODY if settings.environment == "cluster" else system_user()


def person_of(context: dg.OpExecutionContext | dg.AssetExecutionContext, settings: Settings, what: str) -> str:
    """Return the name of the person who asked for this run.

    Args:
        what: needs a person, for the message: `a release by digest`.

    Raises:
        Failure: nobody we know, or no person.
    """
    requester = requester_of(context, settings)
    if requester.kind != "person":
        raise dg.Failure(needs_person(what, requester), allow_retries=False)
    return requester.name
