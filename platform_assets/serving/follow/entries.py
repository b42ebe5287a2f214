"""Find what is served under a name: a product's newest release, or one model of it, tried and measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import obstore

from platform_assets.base import naming
from platform_assets.base.problems import LedgerProblem, Problem
from platform_assets.base.settings import Settings
from platform_assets.serving.answer.contract import Contract, ContractProblem
from platform_assets.serving.follow import releases
from platform_assets.serving.follow.background import Overdue
from platform_assets.serving.follow.candidate import Trial
from platform_assets.serving.follow.follower import RECORD_BYTES_MAX, log
from platform_assets.serving.follow.local_copy import LocalCopy, LocalCopyProblem
from platform_assets.serving.follow.releases import Followed, Refusal
from platform_assets.serving.run import assembly
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.objects import is_there, reason
from platform_assets.training.sealed import CONTRACT, MANIFEST_BYTES_MAX, ModelProblem, Sealed

DIGEST_LETTERS = 12
"""Of a digest, in the path of one model."""
_NAME = re.compile(r"([a-z][a-z0-9_]*)(?:@([0-9a-f]{64}))?")
UNREADABLE = (obstore.exceptions.BaseError, OSError)
_PROBLEMS = (
    *(ArtifactProblem, ContractProblem, LedgerProblem, LocalCopyProblem, ModelProblem, Overdue, Refusal),
    *UNREADABLE,
)


class HostProblem(Problem):
    """Models that cannot be served together; the message names one."""


@dataclass(frozen=True)
class Entry:
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


def prepare(settings: Settings, name: str) -> Entry:
    """Find a product's model, try it, and measure its memory.

    Raises:
        HostProblem: the name is malformed, or it has no model that can be served.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise HostProblem(
            f"{name!r} is not a product, nor PRODUCT@DIGEST with the 64 hexadecimal digits of a bundle's digest."
        )
    product, pinned = match.groups()
    copy = LocalCopy(settings.serving_kept / product)
    finds: list[Callable[[], tuple[ArtifactStore, str] | None]] = [
        lambda: _newest(settings, product),
        lambda: _kept(copy),
    ]
    if pinned is not None:
        finds = [lambda: (ArtifactStore(settings.root), pinned)]
    problems = []
    for find in finds:
        try:
            if (model := find()) is not None:
                return _tried(settings, product, pinned, *model)
        except _PROBLEMS as problem:
            problems.append(reason(settings.root, problem) if isinstance(problem, UNREADABLE) else str(problem))
            log.warning("%s: %s", name, problems[-1])
    raise HostProblem(f"{name} cannot be served: {problems[0]}")


def _tried(settings: Settings, product: str, pinned: str | None, store: ArtifactStore, digest: str) -> Entry:
    """Try a model and measure its memory."""
    trial = assembly.make_trial(settings, product, measures=True)
    sealed = Sealed.read(store, digest, bytes_max=trial.blob_bytes_max)
    stated = store.bundle(digest, MANIFEST_BYTES_MAX).manifest.get("product")
    if stated != product:
        raise ModelProblem(f"{digest} is a model of {stated!r:.100}.")
    trial(sealed)
    path = product if pinned is None else f"{product}@{pinned[:DIGEST_LETTERS]}"
    return Entry(path, pinned, digest, Contract.from_bytes(sealed.blobs[CONTRACT]), trial)


def _kept(copy: LocalCopy) -> tuple[ArtifactStore, str] | None:
    """Return this machine's copy of an earlier release, if it has one."""
    note = copy.read()
    return None if note is None or note.digest is None else (copy.store, note.digest)


def _newest(settings: Settings, product: str) -> tuple[ArtifactStore, str]:
    if not is_there(settings.root):
        raise FileNotFoundError("the store does not exist; check DRIFTLINE_ROOT")
    ledgers = Ledgers(settings.root, product, RECORD_BYTES_MAX)
    number = ledgers.newest_number(naming.RELEASES)
    if number == 0:
        raise Refusal(f"it has no release in the store at {settings.root}.")
    release = releases.read(ledgers, number, Followed(), settings.serving_keys)
    return ArtifactStore(settings.root), release.digest
