"""Say which image steps run in, and refuse a name that may mean another image tomorrow.

Belongs here: what both launchers of images ask of the setting. Does not belong here: pulling or building one.
"""

from __future__ import annotations

import re

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
