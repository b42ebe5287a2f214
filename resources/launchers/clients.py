"""Run steps by one of Dagster's own Pipes clients, in place of our launchers; one line of a code location does it.

Belongs here: what makes a `dg.PipesClient` a `StepLauncher`, and the options that a client wants for a step. Does not
belong here: our own launchers, which do what a client does not.

    build_defs(resources={"launcher": ClientLauncher(PipesK8sClient(), as_pod(settings))})

A client tries once and fails as it fails: no class of failure, no budget, no last try on demand, no larger memory, no
taking over of a pod. The records of attempts are the step's own; an export leaves none.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import TypedDict, TypeVar

import dagster as dg

from platform_assets.failures import CODE
from platform_assets.profiles import StepProfile
from platform_assets.records.attempts import Launch
from platform_assets.settings import Settings
from resources.launchers import pipes, records, step_pod
from resources.launchers.endings import Ending, first_try
from resources.launchers.image import trainer_image
from resources.launchers.objects import Spec
from resources.launchers.tries import Asked, StepFailure, StepLauncher, result_of


class PodOptions(TypedDict):
    """What `PipesK8sClient` wants of a step."""

    namespace: str
    base_pod_meta: dict[str, dict[str, str]]
    base_pod_spec: Spec


class ProcessOptions(TypedDict):
    """What `PipesSubprocessClient` wants of a step."""

    command: list[str]
    env: dict[str, str]


O_co = TypeVar("O_co", covariant=True)
Options = Callable[[str, StepProfile, Launch], O_co]
"""`(module, size, launch) -> what the client's run() wants` with context and extras."""


class ClientLauncher(StepLauncher):
    """Runs each step by a Pipes client.

    Args:
        client: `dagster_k8s.PipesK8sClient`, `dg.PipesSubprocessClient`, or another that takes a step's module.
        options: what its `run` is given for a step: `as_pod(settings)`, `as_process(settings)`, or your own.
    """

    def __init__(self, client: dg.PipesClient, options: Options[Mapping[str, object]]) -> None:
        self.client, self.options = client, options

    def run_step(self, asked: Asked) -> object:
        name, context, module = type(self.client).__name__, asked.context, asked.module
        launch = records.begun(asked.work, asked.plan, run_id=context.run.run_id, launcher=name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # of Dagster's own session, see pipes.py
            done = self.client.run(
                context=context.op_execution_context,
                extras=pipes.with_attempt(asked.extras, launch),
                **self.options(module, asked.plan.profile, launch),
            )
        result = result_of(done.get_custom_messages())
        if result is None:
            said = f"{name} says that it ended well, and it reported no result"
            raise StepFailure(module, Ending(failure=CODE, said=said), [])
        return result


def as_pod(settings: Settings) -> Options[PodOptions]:
    """Return options for `PipesK8sClient`: the pod that `KubernetesLauncher` would ask for, of the profile's size.

    Raises:
        SettingsProblem: no image is set, or a tag.
    """
    trainer_image(settings)

    def options(module: str, size: StepProfile, launch: Launch) -> PodOptions:
        pod = step_pod.pod_of(settings, "named-by-the-client", module, first_try(size), launch, {})
        told = {"labels": pod["metadata"]["labels"], "annotations": pod["metadata"]["annotations"]}
        return {"namespace": settings.namespace, "base_pod_meta": told, "base_pod_spec": pod["spec"]}

    return options


def as_process(settings: Settings) -> Options[ProcessOptions]:
    """Return options for `dg.PipesSubprocessClient`; the profile's size is not enforced."""

    def options(module: str, _size: StepProfile, _launch: Launch) -> ProcessOptions:
        return {"command": [sys.executable, "-m", module], "env": settings.child_environment()}

    return options
