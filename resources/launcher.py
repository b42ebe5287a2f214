"""The launcher of steps: where a training runs. `DRIFTLINE_LAUNCHER` chooses one of `LAUNCHERS`.

A subprocess needs nothing. A pod runs the image `DRIFTLINE_TRAINER_IMAGE`, by its digest, or the one that the product's
profile names (`Training.profile`, `DRIFTLINE_PROFILES`). A pod on a GPU is asked for by a profile
with accelerators, such as `gpu_spot`: its namespace is `DRIFTLINE_NAMESPACE`, its account
`DRIFTLINE_STEP_SERVICE_ACCOUNT`, and its node, tolerations, memory, deadline and price are the profile's
(`platform_assets/launch/step_profile.py`).
"""

from platform_assets.automation import resources

LAUNCHERS = {
    "subprocess": "platform_assets.launch.local:SubprocessLauncher",  # a child process, the default on one machine
    "kubernetes": "platform_assets.kubernetes.launcher:KubernetesLauncher",  # a pod, the default in a cluster
}
LAUNCHER = resources.launcher(LAUNCHERS)
