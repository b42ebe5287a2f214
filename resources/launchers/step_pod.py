"""Build an attempt's pod from the settings: image, namespace, identity, environment."""

from __future__ import annotations

import json
from collections.abc import Mapping

from platform_assets import accounts
from platform_assets.records.attempts import Launch
from platform_assets.settings import Settings
from resources.launchers import manifest, records
from resources.launchers.endings import Try
from resources.launchers.image import environment, step_image
from resources.launchers.objects import Manifest
from resources.launchers.pod_status import Pod

FACTS = "driftline-attempt"
"""The annotation with the attempt's facts, for a run that takes the pod over."""


def name_of(launch: Launch) -> str:
    """Return the name of an attempt's pod: a repeated request gets the same name."""
    return manifest.pod_name(records.work_of(launch), launch.id)


def pod_of(settings: Settings, name: str, module: str, plan: Try, launch: Launch, pipes: Mapping[str, str]) -> Manifest:
    """Return the manifest of an attempt's pod.

    Args:
        pipes: Dagster Pipes' variables, which name the step's input and messages.

    Raises:
        SettingsProblem: no image is set, or it is a tag.
    """
    work = records.work_of(launch)
    return manifest.pod(
        name=name,
        namespace=settings.namespace,
        image=step_image(settings, plan.profile),
        module=module,
        environment=environment(settings, pipes, plan.profile),
        secret=accounts.of_product(settings.step_secret, work.product),
        service_account=accounts.of_product(settings.step_service_account, work.product),
        priority_class=settings.spot_priority_class if plan.profile.is_spot else settings.step_priority_class,
        plan=plan,
        work=work,
        attempt=launch.id,
        run_id=launch.run_id,
        annotations={FACTS: json.dumps(launch.document(), sort_keys=True)},
    )


def launch_of(pod: Pod) -> Launch | None:
    """Return the facts of the attempt whose pod this is; None for a pod that no launcher created."""
    text = pod.annotations.get(FACTS)
    return Launch.read(json.loads(text)) if text else None
