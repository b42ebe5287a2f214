"""Find what is served under a name: a product's newest release, or one model of it, tried and measured."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

import obstore

from platform_assets import naming
from platform_assets.problems import Problem
from platform_assets.serving import assembly, releases
from platform_assets.serving.background import Overdue
from platform_assets.serving.candidate import Trial
from platform_assets.serving.contract import Contract, ContractProblem
from platform_assets.serving.follow import RECORD_BYTES_MAX, log
from platform_assets.serving.local_copy import LocalCopy, LocalCopyProblem
from platform_assets.serving.releases import Followed, Refusal
from platform_assets.serving.sealed import CONTRACT, MANIFEST_BYTES_MAX, ModelProblem, Sealed
from platform_assets.settings import Settings
from platform_assets.storage.artifacts import ArtifactProblem, ArtifactStore
from platform_assets.storage.ledgers import LedgerProblem, Ledgers
from platform_assets.storage.objects import is_there, reason

DIGEST_LETTERS = 12
"""Of a digest, in the path of one model."""
_NAME = re.compile(r"([a-z][a-z0-9_]*)(?:@([0-9a-f]{64}))?")
_UNREADABLE = (
    ArtifactProblem,
    LedgerProblem,
    LocalCopyProblem,
    Overdue,
    Refusal,
    obstore.exceptions.BaseError,
    OSError,
)


class SharedProblem(Problem):
    """Models that cannot be served together; the message names one."""


@dataclass(frozen=True)
class Served:
    """What is served under a name.

    Attributes:
        name: the first part of its paths.
        pinned: the only model; None where releases are followed.
        digest: of the model that is served first.
        contract: of that model.
        trial: has measured it.
    """

    name: str
    pinned: str | None
    digest: str
    contract: Contract
    trial: Trial


def prepare(settings: Settings, name: str) -> Served:
    """Find a product's model, try it, and measure its memory.

    Raises:
        SharedProblem: the name is not one, or there is no model that can be served under it.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise SharedProblem(f"{name!r} is not a product, nor PRODUCT@DIGEST with the 64 letters of a bundle's digest.")
    product, pinned = match.groups()
    try:
        store, digest = _found(settings, product, pinned)
        trial = assembly.make_trial(settings, product, measures=True)
        sealed = Sealed.read(store, digest, bytes_max=trial.blob_bytes_max)
        stated = store.bundle(digest, MANIFEST_BYTES_MAX).manifest.get("product")
        if stated != product:
            raise SharedProblem(f"{name}: {digest} is a model of {stated!r:.100}.")
        trial(sealed)
        contract = Contract.from_bytes(sealed.blobs[CONTRACT])
    except (ContractProblem, ModelProblem, *_UNREADABLE) as problem:
        text = reason(settings.root, problem) if isinstance(problem, OSError) else problem
        raise SharedProblem(f"{name} cannot be served: {text}") from problem
    path = product if pinned is None else f"{product}@{pinned[:DIGEST_LETTERS]}"
    return Served(path, pinned, digest, contract, trial)


def _found(settings: Settings, product: str, pinned: str | None) -> tuple[ArtifactStore, str]:
    """Return where a product's model is, and its digest: the newest release, or this machine's copy of an earlier."""
    if pinned is not None:
        return ArtifactStore(settings.root), pinned
    copy = LocalCopy(settings.serving_kept / product)
    try:
        return ArtifactStore(settings.root), _newest(settings, product)
    except _UNREADABLE as problem:
        with contextlib.suppress(LocalCopyProblem):
            note = copy.read()
            if note is not None and note.digest is not None:
                log.warning("%s: starting from this machine's copy of release %s: %s", product, note.release, problem)
                return copy.store, note.digest
        raise


def _newest(settings: Settings, product: str) -> str:
    if not is_there(settings.root):
        raise FileNotFoundError("the store does not exist; check DRIFTLINE_ROOT")
    ledgers = Ledgers(settings.root, product, RECORD_BYTES_MAX)
    number = ledgers.newest_number(naming.RELEASES)
    if number == 0:
        raise Refusal(f"it has no release in the store at {settings.root}.")
    return releases.read(ledgers, number, Followed(), settings.serving_keys).digest
