"""Say which image steps run in, refusing a name that may mean another image tomorrow, and what they find in it.

Belongs here: what every launcher of images asks of the settings. Does not belong here: pulling or building one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from platform_assets import libraries
from platform_assets.settings import Settings, SettingsProblem

_BY_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


def trainer_image(settings: Settings) -> str:
    """Return the trainer image, by digest: the fingerprint of a training holds it, so it must name one thing for ever.

    Raises:
        SettingsProblem: it is not set, or is a tag.
    """
    image = settings.trainer_image
    if not image:
        raise SettingsProblem(
            f"DRIFTLINE_TRAINER_IMAGE is not set; with DRIFTLINE_LAUNCHER={settings.launcher} steps need an image: "
            "name@sha256:digest. `make image` builds one here and prints it."
        )
    if not _BY_DIGEST.fullmatch(image):
        raise SettingsProblem(
            f"DRIFTLINE_TRAINER_IMAGE is {image!r}; expected name@sha256: and 64 hexadecimal digits, because a tag may "
            "be another image tomorrow and the same training would not be the same. `make image` prints that form, "
            "so does `podman push --digestfile`."
        )
    return image


def trainer_libraries(settings: Settings) -> dict[str, str]:
    """Return the versions in the trainer image as the settings tell them, or else which image it is.

    A step compares them with what is installed where it runs, and refuses to work where they differ.

    Raises:
        SettingsProblem: what is set is not the text of such a label.
    """
    text = settings.trainer_libraries
    if not text:
        return {libraries.IMAGE: trainer_image(settings)}
    versions = libraries.from_text(text)
    if not versions or not versions.keys() <= set(libraries.NAMES):
        raise SettingsProblem(
            f"DRIFTLINE_TRAINER_LIBRARIES is {text!r}; expected NAME=VERSION of each of {', '.join(libraries.NAMES)} "
            "that the trainer image holds, with spaces between. `make image` prints it."
        )
    return versions


def environment(settings: Settings, told: Mapping[str, str], state: str) -> dict[str, str]:
    """Return the environment of a step in the image; nothing secret.

    Args:
        told: variables by which Dagster Pipes tells the step where to look.
        state: the folder inside of the image for what is no data.
    """
    return {
        **settings.replace(serving_digest=None).to_environment(),
        **dict(settings.store_environment),
        "DRIFTLINE_STATE": state,
        "DAGSTER_HOME": state,
        "BENTOML_HOME": state,
        **told,
    }
