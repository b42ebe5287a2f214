"""The three images, and platform and trainer with a product of tests as the only one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import ModuleType

from tests.cluster import trainer
from tests.cluster.cluster import Cluster
from tests.cluster.platform import Images
from tests.cluster.trainer import TrainerImage

INPUTS = (*trainer.INPUTS, "deploy/dagster", "resources", "sensors", "workspace.yaml")
ONLY = """\
FROM {image}
USER 0:0
RUN cd /app/platform_assets/products && ls *.py | grep -vxE '__init__[.]py' | xargs rm
COPY {product} /app/platform_assets/products/
USER 10001:10001
"""


def built(repository: Path, image: str) -> str:
    """Return an image by digest: the one that DRIFTLINE_PLATFORM_IMAGE or its like names, or build it."""
    if given := os.environ.get(f"DRIFTLINE_{image.upper()}_IMAGE"):
        return given
    name = f"localhost/driftline-{trainer.digest(repository, INPUTS)}"
    return trainer.run([str(repository / "deploy/images/build.sh"), image], repository, NAME=name).splitlines()[-1]


def pushed(cluster: Cluster, repository: Path, trained_in: TrainerImage, product: ModuleType) -> Images:
    """Return the images, with one product of tests, by their digests in the cluster's registry."""
    with_product = {
        "platform": _with_only(repository, built(repository, "platform"), product),
        "trainer": _with_only(repository, trained_in.name, product),
    }
    names = with_product | {"service": built(repository, "service")}
    with cluster.network():
        by_digest = {name: cluster.registry.push_built(name, image) for name, image in names.items()}
    return Images(**by_digest, libraries=trained_in.libraries)


def pushed_platform(cluster: Cluster, repository: Path, product: ModuleType) -> Images:
    """Return the platform's image alone, with one product of tests: for tests that start no step and no service."""
    image = _with_only(repository, built(repository, "platform"), product)
    with cluster.network():
        name = cluster.registry.push_built("platform", image)
    return Images(platform=name, trainer=name, service=name, libraries="")


def _with_only(repository: Path, image: str, product: ModuleType) -> str:
    """Return an image in which a product of tests is the only one."""
    file = Path(str(product.__file__)).relative_to(repository)
    text = ONLY.format(image=image, product=file)
    content = hashlib.sha256(f"{text} {trainer.digest(repository, (str(file),))}".encode()).hexdigest()[:16]
    return trainer.layer(repository, f"localhost/driftline-only-{content}", text)
