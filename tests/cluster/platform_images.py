"""The three images, and platform and trainer with a product of tests as the only one."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from tests.cluster import trainer
from tests.cluster.cluster import Cluster
from tests.cluster.platform import Images
from tests.cluster.trainer import TrainerImage

INPUTS = (*trainer.INPUTS, "deploy/dagster", "resources", "sensors", "workspace.yaml")
WITHOUT = """\
FROM {image}
USER 0:0
RUN cd /app/platform_assets/products && ls *.py | grep -vxE '__init__[.]py' | xargs rm
"""
ONLY = f"""\
{WITHOUT}COPY {{product}} /app/platform_assets/products/
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


def pushed_files(cluster: Cluster, repository: Path, files: Mapping[str, str]) -> Images:
    """Return the images of platform and service, with only products of these files: for tests that start no step.

    Args:
        files: texts of product files by name.
    """
    names = {
        "platform": _with_files(repository, built(repository, "platform"), files),
        "service": built(repository, "service"),
    }
    with cluster.network():
        by_digest = {name: cluster.registry.push_built(name, image) for name, image in names.items()}
    return Images(**by_digest, trainer=by_digest["platform"], libraries="")


def _with_files(repository: Path, image: str, files: Mapping[str, str]) -> str:
    """Return an image in which products of these files are the only ones."""
    writes = "".join(f"COPY <<'END' /app/platform_assets/products/{name}\n{text}END\n" for name, text in files.items())
    text = WITHOUT.format(image=image) + writes + "USER 10001:10001\n"
    content = hashlib.sha256(text.encode()).hexdigest()[:16]
    return trainer.layer(repository, f"localhost/driftline-only-{content}", text)


def _with_only(repository: Path, image: str, product: ModuleType) -> str:
    """Return an image in which a product of tests is the only one."""
    file = Path(str(product.__file__)).relative_to(repository)
    text = ONLY.format(image=image, product=file)
    content = hashlib.sha256(f"{text} {trainer.digest(repository, (str(file),))}".encode()).hexdigest()[:16]
    return trainer.layer(repository, f"localhost/driftline-only-{content}", text)
