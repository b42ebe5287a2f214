"""Dagster's queue of runs, which also says who asked for a run.

Dagster has no users, and anybody who reaches its UI may put any tag on a run. So this class overwrites the tags that
name the requester. What a run's pod may do is the launcher's matter: a row in the database passes no queue.
`deploy/dagster/dagster.yaml` and `deploy/kubernetes/base/dagster.yaml` name this class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import dagster as dg

from platform_assets.base import accounts, naming
from platform_assets.base.problems import Problem
from platform_assets.engine.requesters import NOBODY, Requester, StampsRequesters, needs_person, of_daemon, system_user
from platform_assets.instance import own_runs

_HEADER = re.compile(r"[A-Za-z0-9-]+")


class RunRefused(Problem):
    """A run that may not start, or a queue that cannot tell who asks; the message says why."""


class RunCoordinator(dg.QueuedRunCoordinator, StampsRequesters):
    """The queue of runs.

    Attributes:
        identity_header: header in which a trusted proxy names the person; None: the process's own user is that person.
    """

    def __init__(self, identity_header: str | None = None, **queue: Any) -> None:
        super().__init__(**queue)
        if identity_header is not None and not _HEADER.fullmatch(identity_header):
            raise RunRefused(
                f"identity_header is {identity_header!r}; expected a header's name, such as X-Forwarded-User."
            )
        self.identity_header = identity_header

    @classmethod
    def config_type(cls) -> Any:
        """Return the schema of the queue's settings and of ours."""
        queue = super().config_type()
        assert isinstance(queue, Mapping)
        header = dg.Field(
            dg.StringSource, is_required=False, description="header in which a trusted proxy names the person"
        )
        return {**queue, "identity_header": header}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> RunCoordinator:
        """Return the coordinator with these settings."""
        return cls(inst_data=inst_data, **config_value)

    def submit_run(self, context: dg.SubmitRunContext) -> dg.DagsterRun:
        """Stamp a run and queue it.

        Raises:
            RunRefused: its requester does not permit it. Dagster marks the run as failed, with the message.
        """
        run = context.dagster_run
        if run.status == dg.DagsterRunStatus.NOT_STARTED:
            requester = self.requester(context)
            # The queue counts a product's runs by its tag, which those of our jobs have already.
            of_assets = {naming.TAG_PRODUCT: min(own_runs.products_of(run))} if own_runs.picked(run) else {}
            if accounts.needs_person(run.job_name) and requester.kind != "person":
                raise RunRefused(needs_person(run.job_name, requester))
            self._instance.add_run_tags(run.run_id, {**of_assets, **requester.tags})
        return super().submit_run(context)

    def requester(self, context: dg.SubmitRunContext) -> Requester:
        """Return who asked for a run: the person of a web request, or what made the daemon submit it."""
        if getattr(context.workspace, "source", None) is None:  # the daemon's workspace has none
            submitter = of_daemon(context.dagster_run.tags)
            return submitter or (NOBODY if self.identity_header else system_user())
        if self.identity_header is None:
            return system_user()
        name = (context.get_request_header(self.identity_header) or "").strip()
        return Requester(name, "person") if name.isprintable() and 0 < len(name) <= 200 else NOBODY
