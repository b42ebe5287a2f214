"""A step that reads one blob of the store, and records its try as a training does.

Its extra `blob` is the blob's sha256.
"""

from __future__ import annotations

from platform_assets.records.attempts import Launch
from platform_assets.settings import Settings
from platform_assets.steps.attempt import Attempt
from platform_assets.steps.instructions import open_context
from platform_assets.storage.artifacts import ArtifactStore
from platform_assets.storage.ledgers import Ledgers


def main() -> None:
    settings = Settings.from_environment()
    with open_context() as pipes:
        launch = Launch.read(pipes.extras["attempt"])
        assert launch.fingerprint is not None and launch.cutoff is not None and launch.product is not None
        attempt = Attempt(
            settings,
            Ledgers(settings.root, launch.product),
            fingerprint=launch.fingerprint,
            cutoff=launch.cutoff,
            profile_name="cpu_small",
            launch=launch,
        )
        with attempt:
            attempt.acquire(wait=lambda: True)
            blob = ArtifactStore(settings.root).get(pipes.extras["blob"])
        pipes.report_custom_message({"kind": "result", "value": len(blob)})


if __name__ == "__main__":
    main()
