"""Dagster's queue of runs, which also says who asked for a run, chooses its account, and refuses foreign tags.

Dagster has no users, and anybody who reaches its UI may put any tag on a run. So this class overwrites the tags that
name the requester, and refuses tags by which a run would get another image, account, secret or command than its job
has. `deploy/dagster/dagster.yaml` and `deploy/kubernetes/base/dagster.yaml` name it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import dagster as dg

from platform_assets import accounts, naming
from platform_assets.problems import Problem
from platform_assets.settings import Settings
from resources.requesters import NOBODY, Kind, Requester, needs_person, of_daemon, system_user

RUN_CONFIG = "dagster-k8s/config"
RESERVED = ("dagster-k8s/", "dagster/image")
"""Beginnings of tags that decide in which pod a run works; `dagster/image` is what the launcher notes afterwards."""
SIGNING_SECRET = "driftline-signing"
NAME_CHARACTERS = 200
_HEADER = re.compile(r"[A-Za-z0-9-]+")


class RunRefused(Problem):
    """A run that may not start, or a queue that cannot tell who asks; the message says why."""


class RunCoordinator(dg.QueuedRunCoordinator):
    """The queue of runs.

    Attributes:
        identity_header: header in which a trusted proxy names the person; None: the process's own user is that person.
        has_accounts: each run gets the Kubernetes account and the keys of what it was asked for.
    """

    def __init__(self, identity_header: str | None = None, has_accounts: bool = False, **queue: Any) -> None:
        super().__init__(**queue)
        if identity_header is not None and not _HEADER.fullmatch(identity_header):
            raise RunRefused(
                f"identity_header is {identity_header!r}; expected a header's name, such as X-Forwarded-User."
            )
        self.identity_header = identity_header
        self.has_accounts = has_accounts

    @classmethod
    def config_type(cls) -> Any:
        """Return the schema of the queue's settings and of ours."""
        queue = super().config_type()
        assert isinstance(queue, Mapping)
        header = dg.Field(
            dg.StringSource, is_required=False, description="header in which a trusted proxy names the person"
        )
        chosen = dg.Field(bool, is_required=False, description="whether each run gets the account of its kind")
        return {**queue, "identity_header": header, "has_accounts": chosen}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> RunCoordinator:
        """Return the coordinator with these settings."""
        return cls(inst_data=inst_data, **config_value)

    def submit_run(self, context: dg.SubmitRunContext) -> dg.DagsterRun:
        """Stamp a run and queue it.

        Raises:
            RunRefused: its tags or its requester do not permit it. Dagster marks the run as failed, with the message.
        """
        run = context.dagster_run
        if run.status == dg.DagsterRunStatus.NOT_STARTED:
            requester = self.requester(context)
            # The queue counts a product's runs by its tag, which those of our jobs have already.
            of_assets = {naming.TAG_PRODUCT: min(products_of(run))} if _picked(run) else {}
            new_tags = {**self.pod_tags(run), **of_assets, **requester.tags}
            for problem in (
                *self._tag_problems(run, new_tags),
                *self._config_problems(run),
                *_requester_problems(run, requester),
            ):
                raise RunRefused(problem)
            self._instance.add_run_tags(run.run_id, new_tags)
        return super().submit_run(context)

    def requester(self, context: dg.SubmitRunContext) -> Requester:
        """Return who asked for a run: the person of a web request, or what made the daemon submit it."""
        if getattr(context.workspace, "source", None) is None:
            submitter = of_daemon(context.dagster_run.tags)
            return submitter or (NOBODY if self.identity_header else system_user())
        if self.identity_header is None:
            return system_user()
        name = (context.get_request_header(self.identity_header) or "").strip()
        return Requester(name, "person") if name.isprintable() and 0 < len(name) <= NAME_CHARACTERS else NOBODY

    def pod_tags(self, run: dg.DagsterRun) -> dict[str, str]:
        """Return the tag from which the launcher takes a run's account and keys."""
        if not self.has_accounts:
            return {}
        account = accounts.of_run(run.job_name, _stages(run))
        secrets = [account.store_secret(), *([SIGNING_SECRET] if account.signs else [])]
        # Optional: workload identity replaces the key, and unsigned releases need no secret.
        sources = [{"secret_ref": {"name": name, "optional": True}} for name in secrets]
        config = {
            "container_config": {"env_from": sources},
            "pod_spec_config": {"service_account_name": account.service_account()},
        }
        return {RUN_CONFIG: json.dumps(config, sort_keys=True)}

    def _tag_problems(self, run: dg.DagsterRun, new_tags: Mapping[str, str]) -> Iterator[str]:
        """Yield why a run is refused for its tags. A repeated run has those of the run before, which ran with them."""
        reserved = {name: text for name, text in run.tags.items() if name.startswith(RESERVED)}
        if not reserved:
            return
        before = self._instance.get_run_record_by_id(run.parent_run_id) if run.parent_run_id else None
        parent_tags = before.dagster_run.tags if before is not None and before.start_time is not None else {}
        for name, text in sorted(reserved.items()):
            if text not in (new_tags.get(name), parent_tags.get(name)):
                yield (
                    f"run {run.run_id} of {run.job_name} has the tag {name}, and image, account, secrets and command "
                    "of a run are not chosen by tags. Remove the tag; what runs have is in dagster.yaml."
                )

    def _config_problems(self, run: dg.DagsterRun) -> Iterator[str]:
        """Yield why a run is refused for its config: the store's variables name image, account and secret of steps."""
        resources = run.run_config.get("resources") if self.has_accounts else None
        for name, entry in sorted(resources.items()) if isinstance(resources, Mapping) else ():
            config = entry.get("config") if isinstance(entry, Mapping) else entry
            values = config.values() if isinstance(config, Mapping) else [config]
            if any(value is not None for value in values):  # the UI's scaffold names all of them, as null
                yield (
                    f"run {run.run_id} of {run.job_name} configures the resource {name}; only the deployment "
                    "configures resources. Remove it from the run's config."
                )


def products_of(run: dg.DagsterRun) -> set[str]:
    """Return the products of a run: those of the picked assets, or the one in its job's name, `advance__orders`."""
    verb, _, product = run.job_name.partition("__")
    return {key.path[0] for key in _picked(run)} or ({product} if verb else set())


def requester_of(context: dg.OpExecutionContext | dg.AssetExecutionContext, settings: Settings) -> Requester:
    """Return who asked for this run.

    A run that was not submitted to our coordinator, such as one of `dg launch`, runs in the process that asks: on a
    laptop that is the user's, in a cluster nobody's. What its tags say is not believed.
    """
    run = context.run
    # Dagster submits no run without a remote origin, and gives none to a run that it executes in the same process.
    if run.remote_job_origin is not None and isinstance(context.instance.run_coordinator, RunCoordinator):
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


def _requester_problems(run: dg.DagsterRun, requester: Requester) -> Iterator[str]:
    """Yield why a run is refused for whoever asked for it."""
    if accounts.needs_person(run.job_name) and requester.kind != "person":
        yield needs_person(run.job_name, requester)


def _stages(run: dg.DagsterRun) -> set[str]:
    """Return the stages of the assets and checks that were picked; none if the job decides."""
    return {key.path[-1] for key in _picked(run)}


def _picked(run: dg.DagsterRun) -> list[dg.AssetKey]:
    return [*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())]
