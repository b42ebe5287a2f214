"""Release a model from a shell: without a passing verdict, or the previous one. The record names person and reason."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Callable, Iterator

from platform_assets.base.problems import RecordExists
from platform_assets.evaluation import releases, signing
from platform_assets.serving import trials
from platform_assets.store.artifacts import ArtifactProblem
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.releases import Override, Release


def override(product: ProductStore, digest: str, reason: str) -> str:
    """Release a model without a passing verdict; return what was released, as a sentence.

    It answers logged requests first; what they show is in the sentence and on record, and does not prevent the release.

    Args:
        digest: of the model's bundle, or its first letters.
        reason: recorded with the person's name.

    Raises:
        ValueError: no reason, or the digest is not one of a model of the product.
    """
    author = getpass.getuser()
    if not reason.strip():
        raise ValueError(
            "--override is empty; expected the reason why this model is released without a passing verdict."
        )
    digest = whole(product, digest)
    try:
        manifest = product.artifacts.bundle(digest).manifest
    except ArtifactProblem as problem:
        raise ValueError(f"{digest} cannot be released: {problem}") from problem
    if manifest.get("product") != product.name:
        raise ValueError(f"{digest} is a model of {manifest.get('product')!r}; expected one of {product.name!r}.")

    try:
        trial = trials.trial_of(product, digest)
    except (trials.Refused, trials.Untried) as problem:
        trial = str(problem)

    def record(history: Iterator[tuple[int, Release]]) -> Release:
        newest = next(history, None)
        return releases.next_release(
            product=product.name,
            digest=digest,
            contract_sha256=manifest["contract_sha256"],
            cutoff=manifest["cutoff"],
            reason=f"without a passing verdict: {reason.rstrip('.')}. {trial}".rstrip("."),
            author=author,
            at=product.now,
            previous=None if newest is None else newest[0],
            override=Override(by=author, reason=reason),
        )

    return _write(product, record)


def roll_back(product: ProductStore, reason: str | None) -> str:
    """Roll back to the previous model; return what was released, as a sentence.

    Raises:
        ValueError: there is none.
    """

    def record(history: Iterator[tuple[int, Release]]) -> Release:
        at = product.now
        return releases.rollback(history, author=getpass.getuser(), at=at, reason=reason)

    return _write(product, record)


def whole(product: ProductStore, digest: str) -> str:
    """Return the whole digest of the product's bundle that begins so; pages print the first twelve letters."""
    if len(digest) == 64:
        return digest
    bundles = product.tables.records("onnx").values()
    matches = sorted({record.content_digest for record in bundles if record.content_digest.startswith(digest)})
    if len(matches) != 1:
        raise ValueError(
            f"{len(matches)} models of {product.name} have a digest that begins with {digest!r}; expected one. "
            "`driftline status` and the report name them."
        )
    return matches[0]


def _write(product: ProductStore, record_of: Callable[[Iterator[tuple[int, Release]]], Release]) -> str:
    """Write the next release record; compute it again when somebody else releases in between."""
    import dagster as dg

    from platform_assets.instance import home
    from platform_assets.serving.release import event_of

    while True:
        with contextlib.suppress(RecordExists):
            number, record = signing.write_release(product, record_of(product.history.releases_newest_first()))
            break
    # No run made this release, so nothing else shows it in Dagster's UI.
    with dg.DagsterInstance.from_config(str(home.prepare(product.settings))) as instance:
        instance.report_runless_asset_event(event_of(product.name, number, record))
    return f"release {number} of {product.name}: model {record.digest}, cutoff {record.cutoff}; {record.why}."
