"""Check the image of a step, say whether a registry refuses it, and build the environment of a step in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from platform_assets.base.settings import Settings, SettingsProblem
from platform_assets.launch.step_profile import IMAGE_BY_DIGEST, StepProfile
from platform_assets.training import libraries

SCRATCH = "/scratch"
USER = 10_001
"""A number, because a kubelet cannot tell from a name whether it is root. The trainer image's folders belong to it."""
REFUSED = re.compile(
    r"\b(401|403|404)\b|unauthorized|forbidden|denied|not found|does not exist|manifest unknown|no match.* manifest",
    re.IGNORECASE,
)
"""What a registry says about an image or about us, which another try does not change."""
UNANSWERED = re.compile(
    r"\b(429|5\d\d) [A-Z]|(status|code)\D{0,20}\b(429|5\d\d)\b|toomanyrequests|time(d )?out|deadline exceeded|EOF"
    r"|connection (refused|reset)|no such host|server misbehaving|unreachable|temporar(y|ily)|unavailable",
    re.IGNORECASE,
)
"""What a registry that is busy, broken or away gives. The rest of such a message may name what was asked for."""


def trainer_image(settings: Settings) -> str:
    """Return the trainer image by digest: a training's fingerprint contains it, so it must never mean another image.

    Raises:
        SettingsProblem: it is not set, or is a tag.
    """
    image = settings.trainer_image
    if not image:
        raise SettingsProblem(
            f"DRIFTLINE_TRAINER_IMAGE is not set; with DRIFTLINE_LAUNCHER={settings.launcher}, steps need an image: "
            "name@sha256:digest. `make images` builds one and prints it."
        )
    if not IMAGE_BY_DIGEST.fullmatch(image):
        raise SettingsProblem(
            f"DRIFTLINE_TRAINER_IMAGE is {image!r}; expected name@sha256: and 64 hexadecimal digits, because a tag may "
            "point to another image tomorrow, and the same training would give another result. `make images` prints "
            "this form, and so does `podman push --digestfile`."
        )
    return image


def step_libraries(settings: Settings, size: StepProfile) -> dict[str, str]:
    """Return the library versions in a step's image, as profile or settings state them; otherwise the image's name.

    A step compares them with what is installed where it runs, and refuses to work if they differ.

    Raises:
        SettingsProblem: the profile's `libraries` or DRIFTLINE_TRAINER_LIBRARIES do not parse.
    """
    if size.image is None:
        return trainer_libraries(settings)
    if size.libraries is None:
        return {libraries.IMAGE: size.image}
    versions = libraries.from_text(size.libraries)
    if not versions or libraries.IMAGE in versions:
        raise SettingsProblem(
            f"StepProfile({size.name!r}).libraries is {size.libraries!r}; expected NAME=VERSION, separated by spaces: "
            "what `python -m platform_assets.training.libraries PACKAGE...` prints in its image."
        )
    return versions


def trainer_libraries(settings: Settings) -> dict[str, str]:
    """Return the library versions in the trainer image, as the settings state them; otherwise the image's name.

    Raises:
        SettingsProblem: DRIFTLINE_TRAINER_LIBRARIES does not parse.
    """
    text = settings.trainer_libraries
    if not text:
        return {libraries.IMAGE: trainer_image(settings)}
    versions = libraries.from_text(text)
    if not versions or not versions.keys() <= set(libraries.NAMES):
        raise SettingsProblem(
            f"DRIFTLINE_TRAINER_LIBRARIES is {text!r}; expected NAME=VERSION, separated by spaces, for each of "
            f"{', '.join(libraries.NAMES)} that the trainer image contains. `make images` prints it."
        )
    return versions


def environment(settings: Settings, pipes: Mapping[str, str], size: StepProfile) -> dict[str, str]:
    """Return the environment of a step in the image, without secrets.

    Everything but data is in `SCRATCH`. The pools of polars and OpenMP would otherwise count the node's processors;
    torch takes the number of threads that the product's file states.

    Args:
        pipes: Dagster Pipes' variables, which name the step's input and messages.
    """
    own = settings.replace(serving_digest=None, state=Path(SCRATCH), gpu_memory_gb=size.gpu_memory_gb)
    return {
        **own.to_environment(),
        **dict(settings.store_environment),
        "OMP_NUM_THREADS": str(size.threads),
        "POLARS_MAX_THREADS": str(size.threads),
        **pipes,
    }


def is_refusal(message: str) -> bool:
    """Return whether a message about a pull is a registry's refusal, and not its silence."""
    return REFUSED.search(message) is not None and not UNANSWERED.search(message)
