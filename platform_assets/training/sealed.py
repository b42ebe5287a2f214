"""Read from a store what serving uses of a bundle: the graph, its contract, what it learned, and its golden rows.

Everything is verified, nothing is parsed but the manifest. Other blobs, such as weights, are not read.
"""

from __future__ import annotations

import msgspec

from platform_assets.base.problems import Problem
from platform_assets.store.artifacts import ArtifactStore, sha256
from platform_assets.training import golden

GRAPH, CONTRACT, LEARNED = "model.onnx", "contract.json", "learned.json"
USED = (GRAPH, CONTRACT, LEARNED, golden.NAME)
MANIFEST_BYTES_MAX = 64 * 2**20
"""A manifest names every training key with its digest: about 150 bytes per key."""


class ModelProblem(Problem):
    """A bundle is intact but cannot be served; the message names its digest."""


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """The verified blobs of a bundle that serving uses, by name."""

    digest: str
    blobs: dict[str, bytes]

    @staticmethod
    def read(
        store: ArtifactStore, digest: str, contract_sha256: str | None = None, bytes_max: int | None = None
    ) -> Sealed:
        """Read and verify a bundle.

        Args:
            store: the store with the bundle.
            digest: of the bundle.
            contract_sha256: the only accepted contract, or None for any.
            bytes_max: the largest accepted sum of the blobs' sizes; a larger bundle is not read. None for any.

        Raises:
            ArtifactProblem: a blob is missing or changed.
            ModelProblem: it has another contract, lacks a blob, or is too large.
        """
        bundle = store.bundle(digest, MANIFEST_BYTES_MAX)
        stated = bundle.manifest.get("contract_sha256")
        if contract_sha256 is not None and stated != contract_sha256:
            raise ModelProblem(
                f"bundle {digest} has contract {stated!r:.100}, this Bento {contract_sha256}; build a Bento for it."
            )
        if missing := [name for name in USED if name not in bundle.names]:
            raise ModelProblem(
                f"bundle {digest} has no blob {missing[0]!r}; it has {list(bundle.names)}. Export it again."
            )
        sizes = {name: bundle.manifest["blobs"][name].get("bytes") for name in USED}
        if wrong := [name for name, size in sizes.items() if type(size) is not int or size < 0]:
            raise ModelProblem(
                f"bundle {digest} states {sizes[wrong[0]]!r:.100} as the bytes of {wrong[0]}; expected a number."
            )
        if bytes_max is not None and (total := sum(sizes.values())) > bytes_max:
            raise ModelProblem(f"bundle {digest} has {total} bytes for serving; expected at most {bytes_max}.")
        blobs = {name: bundle.read(name, sizes[name]) for name in USED}
        if (actual := sha256(blobs[CONTRACT])) != stated:
            raise ModelProblem(
                f"bundle {digest} names contract {stated!r:.100}, but its {CONTRACT} has {actual}. Export it again."
            )
        return Sealed(digest=digest, blobs=blobs)
