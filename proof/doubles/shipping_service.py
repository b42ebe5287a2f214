"""A service that ships its log to a real S3 server behind a proxy, and what its metrics say."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platform_assets.base.settings import Settings
from platform_assets.serving.run import build
from platform_assets.serving.run import child as serving
from platform_assets.store.artifacts import ArtifactStore
from tests.doubles import models, pods
from tests.doubles.s3_server import S3Server


def built(base: Path, document: dict[str, object] | None = None) -> build.Built:
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(base)})
    store = ArtifactStore(str(base / "workshop"))
    return build.build(settings, store, models.write_bundle(store, document=document))


def settings_of(
    base: Path, name: str, server: S3Server, endpoint: str, **variables: object
) -> tuple[Settings, dict[str, str]]:
    """Return settings and variables of a service with a state folder of its own and a bucket as its store.

    Args:
        variables: of the settings, without `DRIFTLINE_`, in lower case.
    """
    chosen = {"root": f"s3://{name}", "state": base / name, "serving_ships": "true", **variables}
    settings = Settings.from_environment({f"DRIFTLINE_{key.upper()}": str(value) for key, value in chosen.items()})
    return settings, server.environment(endpoint)


@contextmanager
def serve(
    base: Path, bento: Path, name: str, server: S3Server, endpoint: str, **variables: object
) -> Iterator[tuple[Settings, serving.Server]]:
    """Serve a Bento as a pod does; see `settings_of`."""
    settings, environment = settings_of(base, name, server, endpoint, **variables)
    with pods.serving(settings, bento, environment=environment) as running:
        yield settings, running


def figure(text: str, name: str, label: str = "") -> list[float]:
    """Return the values of a metric, one per label."""
    samples = re.findall(rf"^{name}(?:{{([^}}]*)}})? (\S+)$", text, re.MULTILINE)
    return [float(value) for labels, value in samples if label in labels]
