"""Ask for the pod of an attempt by the settings: image, namespace, identity, environment.

Belongs here: what a pod has from the settings, for whoever creates it. Does not belong here: how a pod looks
(`manifest.py`), or creating it (`kubernetes.py`, `clients.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from platform_assets.records.attempts import Launch
from platform_assets.settings import Settings
from resources.launchers import manifest, records
from resources.launchers.endings import Try
from resources.launchers.image import environment, trainer_image
from resources.launchers.objects import Manifest
from resources.launchers.pod_status import Pod

FACTS = "driftline-attempt"
"""The annotation that holds what is known of the attempt, for whoever takes the pod over."""


def pod_of(settings: Settings, name: str, module: str, plan: Try, launch: Launch, told: Mapping[str, str]) -> Manifest:
    """Return the manifest of an attempt's pod.

    Args:
        launch: what is known of the attempt.
        told: variables by which Dagster Pipes tells the step where to look.

    Raises:
        SettingsProblem: no image is set, or a tag.
    """
    return manifest.pod(
        name=name,
        namespace=settings.namespace,
        image=trainer_image(settings),
        module=module,
        environment=environment(settings, told, manifest.SCRATCH),
        secret=settings.step_secret,
        service_account=settings.step_service_account,
        profile=plan.profile,
        memory_gb=plan.memory_gb,
        work=records.work_of(launch),
        attempt=launch.id,
        run_id=launch.run_id,
        annotations={FACTS: json.dumps(launch.document(), sort_keys=True)},
    )


def launch_of(pod: Pod) -> Launch | None:
    """Return what is known of the attempt whose pod this is; None for the pod of another hand."""
    text = pod.annotations.get(FACTS)
    return Launch.read(json.loads(text)) if text else None
