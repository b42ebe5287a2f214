"""Run steps by one of Dagster's own Pipes clients instead of our launchers; a code location needs one line for that.

    build_defs(resources={"launcher": ClientLauncher(PipesK8sClient(), as_pod(settings))})

A client tries once and fails as it fails: there are no failure classes or budgets, no last try on demand, no larger
memory, and no pod is taken over. Attempts are recorded by the step itself only; an export leaves no record.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import TypedDict, TypeVar

import dagster as dg

from platform_assets.base.failures import CODE
from platform_assets.base.settings import Settings
from platform_assets.kubernetes import manifest
from platform_assets.kubernetes.manifest import Spec
from platform_assets.launch import pipes
from platform_assets.launch.attempt import StepRequest, begin, prepare
from platform_assets.launch.endings import Ending, first_try
from platform_assets.launch.image import trainer_image
from platform_assets.launch.profiles import StepProfile
from platform_assets.launch.tries import StepFailure, StepLauncher, result_of
from platform_assets.store.records.attempts import Launch


class PodOptions(TypedDict):
    """Options of `PipesK8sClient` for a step."""

    namespace: str
    base_pod_meta: dict[str, dict[str, str]]
    base_pod_spec: Spec


class ProcessOptions(TypedDict):
    """Options of `PipesSubprocessClient` for a step."""

    command: list[str]
    env: dict[str, str]


O_co = TypeVar("O_co", covariant=True)
Options = Callable[[str, StepProfile, Launch], O_co]
"""`(module, size, launch) -> options of the client's run()`, next to context and extras."""


class ClientLauncher(StepLauncher):
    """Runs each step by a Pipes client.

    Args:
        client: `dagster_k8s.PipesK8sClient`, `dg.PipesSubprocessClient`, or another that takes a step's module.
        options: options of its `run` for a step: `as_pod(settings)`, `as_process(settings)`, or your own.
    """

    def __init__(self, client: dg.PipesClient, options: Options[Mapping[str, object]]) -> None:
        self.client, self.options = client, options

    def run_step(self, request: StepRequest) -> object:
        name, context, module = type(self.client).__name__, request.context, request.module
        launch = begin(request.work, request.plan, run_id=context.run.run_id, launcher=name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # of Dagster's own session, see pipes.py
            done = self.client.run(
                context=context.op_execution_context,
                extras=pipes.with_attempt(request.extras, launch),
                **self.options(module, request.plan.profile, launch),
            )
        result = result_of(done.get_custom_messages())
        if result is None:
            evidence = f"{name} reported success, but the step reported no result"
            raise StepFailure(module, Ending(failure=CODE, evidence=evidence), [])
        return result


def as_pod(settings: Settings) -> Options[PodOptions]:
    """Return options for `PipesK8sClient`: the pod that `KubernetesLauncher` would create, of the profile's size.

    Raises:
        SettingsProblem: no image is set, or it is a tag.
    """
    trainer_image(settings)

    def options(module: str, size: StepProfile, launch: Launch) -> PodOptions:
        pod = manifest.pod(settings, module, first_try(size), prepare(settings.root, launch), {})
        metadata = {"labels": pod["metadata"]["labels"], "annotations": pod["metadata"]["annotations"]}
        return {"namespace": settings.namespace, "base_pod_meta": metadata, "base_pod_spec": pod["spec"]}

    return options


def as_process(settings: Settings) -> Options[ProcessOptions]:
    """Return options for `dg.PipesSubprocessClient`; the profile's size is not enforced."""

    def options(module: str, _size: StepProfile, _launch: Launch) -> ProcessOptions:
        return {"command": [sys.executable, "-m", module], "env": settings.child_environment()}

    return options
