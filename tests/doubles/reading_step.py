"""A step that reads one blob of the store, and records its try as a training does.

Its extra `blob` is the blob's sha256.
"""

from platform_assets.base.settings import Settings
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import Launch
from platform_assets.training.steps.attempt import Attempt
from platform_assets.training.steps.instructions import open_context


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
