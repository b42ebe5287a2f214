"""Dagster's launcher of runs as pods, which takes nothing that decides what a pod may do from a run's row.

For our own jobs it computes account, secrets, image, command and code from this process's settings and files
(`platform_assets.instance.own_runs`), and refuses a row that says otherwise. Jobs of other code locations run as
dagster-k8s runs them, with one account that has none of our secrets. It also tells each of our runs its product,
because building the definitions of all products would cost every run CPU time that grows with their number (row P11).

`deploy/kubernetes/base/dagster.yaml` names this class. Written for dagster-k8s 0.29.27 and tested with it.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.base import RunLauncher as AnyRunLauncher
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import UserDefinedDagsterK8sConfig
from dagster_shared.record import copy as changed
from kubernetes.config.incluster_config import SERVICE_TOKEN_FILENAME

from platform_assets.base import accounts, naming
from platform_assets.base.settings import ONLY_PRODUCT
from platform_assets.engine import product_files
from platform_assets.instance import own_runs
from platform_assets.instance.run_coordinator import RunRefused
from platform_assets.launch.labels import attribution_labels

SIGNING_SECRET = "driftline-signing"
COMPONENT = "app.kubernetes.io/component"
OTHER_COMPONENT = "other-run"
"""By which networks.yaml and admission.yaml know the pod of a run of another code location."""
SILENT_S = 300.0
"""How long a run of a terminal may say nothing: ten times as long as between two signs of life."""
_OUR_SECRET = re.compile(r"driftline-(?:postgres|signing|store)(?:-.*)?")
_OUR_LABEL = re.compile(r"(?:driftline|app\.kubernetes\.io)/.*")


class RunLauncher(K8sRunLauncher):
    """The launcher of runs.

    Attributes:
        other_env_secrets: secrets whose entries become the environment of runs of other code locations.
    """

    def __init__(self, other_env_secrets: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(**settings)
        self.other_env_secrets = list(other_env_secrets)

    @classmethod
    def config_type(cls) -> Any:
        """Return the schema of dagster-k8s' settings and of ours."""
        secrets = dg.Field([str], is_required=False, description="secrets of runs of other code locations")
        return {**super().config_type(), "other_env_secrets": secrets}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Any:
        """Return the launcher; in a pod without a token one that launches nothing."""
        # Dagster loads its launcher in every process, also where none may ask Kubernetes for anything.
        if config_value["load_incluster_config"] and not Path(SERVICE_TOKEN_FILENAME).exists():
            return WithoutToken(inst_data, config_value.get("job_image"))
        return cls(inst_data=inst_data, **config_value)

    def get_container_context_for_run(self, dagster_run: dg.DagsterRun) -> K8sContainerContext:
        """Return what a run's pod has, but for image and command."""
        run = dagster_run
        if not own_runs.is_own(run):
            settings = copy.copy(self)
            settings._env_secrets = self.other_env_secrets
            config = UserDefinedDagsterK8sConfig(
                pod_spec_config={"service_account_name": accounts.OTHER_RUNS, "automount_service_account_token": False},
                pod_template_spec_metadata={"labels": {COMPONENT: OTHER_COMPONENT}},
            )
            forced = K8sContainerContext(namespace=self.job_namespace, run_k8s_config=config)
            return K8sContainerContext.create_for_run(run, settings, include_run_tags=True).merge(forced)
        account, product = own_runs.account_of(run), own_runs.only_product(run)
        secrets = [account.store_secret(), *([SIGNING_SECRET] if account.signs else [])]
        # Optional: workload identity replaces the key, and unsigned releases need no secret.
        sources = [{"secret_ref": {"name": name, "optional": True}} for name in secrets]
        pod = {
            "service_account_name": account.service_account(),
            "automount_service_account_token": account.asks_kubernetes,
        }
        # Of the product's file: a row decides nothing, not even who pays.
        labels = attribution_labels(product, product_files.owner_of(product)) if product else {}
        config = UserDefinedDagsterK8sConfig(
            container_config={"env_from": sources}, pod_spec_config=pod, pod_template_spec_metadata={"labels": labels}
        )
        shared = K8sContainerContext.create_for_run(dg.DagsterRun(run.job_name), self, include_run_tags=False)
        variables = [{"name": ONLY_PRODUCT, "value": product}] if product else []
        return shared.merge(K8sContainerContext(env=variables, run_k8s_config=config))

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether a run is alive: by its Job, or one of a terminal, which has none, by its own signs of life."""
        if (seen := run.tags.get(naming.TAG_ALIVE)) is None:
            return super().check_run_worker_health(run)
        silent_s = time.time() - float(seen)
        if silent_s < SILENT_S:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"its process, of a terminal, is silent for {silent_s:.0f} s")

    def _launch_k8s_job_with_args(self, job_name: str, args: Sequence[str] | None, run: dg.DagsterRun) -> None:
        """Create a run's Job.

        Raises:
            RunRefused: its row says what only our files may say, or names a secret or label of ours.
        """
        is_own = own_runs.is_own(run)
        for problem in own_runs.problems(run, self.job_image) if is_own else _problems_of_other(run):
            raise RunRefused(problem)
        if is_own:
            args = own_runs.command(run)
            # Without its tags: anybody who reaches the UI can set `dagster-k8s/config`, from which dagster-k8s makes
            # the pod.
            run = changed(run, job_code_origin=own_runs.origin(run.job_name), tags={})
        super()._launch_k8s_job_with_args(job_name, args, run)


class WithoutToken(AnyRunLauncher, ConfigurableClass):
    """What a process without a token of Kubernetes has instead: runs, the migration, the read-only webserver.

    Attributes:
        job_image: of our own runs.
    """

    def __init__(self, inst_data: ConfigurableClassData | None, job_image: str | None) -> None:
        super().__init__()
        self._inst_data, self.job_image = inst_data, job_image

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """The settings' place, for Dagster."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        """Return the schema of the launcher that it stands for."""
        return RunLauncher.config_type()

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Any:
        """Return it."""
        return cls(inst_data, config_value.get("job_image"))

    def launch_run(self, context: Any) -> None:
        """Refuse to launch a run."""
        raise RunRefused("this pod has no token of Kubernetes; only the daemon launches runs.")

    def terminate(self, run_id: str) -> bool:
        """Refuse to end a run."""
        raise RunRefused("this pod has no token of Kubernetes; only the daemon and the webserver end runs.")


def _problems_of_other(run: dg.DagsterRun) -> Iterator[str]:
    """Yield why a run of another code location is refused: its row names what is ours."""
    name, config = f"run {run.run_id} of {run.job_name}", own_runs.pod_config(run)
    # dagster-k8s takes a variable without a value from this process, which has our secrets.
    taken = [text for field, text in _texts("", config) if field == "env_vars" and "=" not in text]
    for variable in (*taken, *own_runs.variables_read(config)):
        yield f"{name} takes the variable {variable} from the daemon; write its value, or name a secret of yours."
    for field, text in _texts("", config):
        if _OUR_SECRET.fullmatch(text):
            yield (
                f"{name} names the secret {text}, and is not a job of this deployment. Runs of other code locations "
                "take secrets of their own."
            )
        elif field == "labels" and _OUR_LABEL.fullmatch(text):
            yield (
                f"{name} sets the label {text}, by which Driftline's own pods are known. Remove it from the run's tags "
                "and from the container context of its code location."
            )


def _texts(field: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield every text in a config with the name of its field; the names themselves count as texts of the outer one."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield field, name
            yield from _texts(name, item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(field, item)
