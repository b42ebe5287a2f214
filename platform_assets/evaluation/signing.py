"""Write releases and verdicts, signed where a key is set, and make the key.

A release holds the hash of the release before it, and the hash of its model's verdict. The private key is read when it
is needed and held nowhere.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from platform_assets.base import naming
from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings
from platform_assets.store import signatures
from platform_assets.store.artifacts import sha256
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.releases import RELEASES, Override, Release
from platform_assets.store.records.verdicts import VERDICTS, Verdict

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

log = logging.getLogger("driftline.signing")
UNSIGNED = (
    "Releases of {} are not signed: whoever can write to the store can release a model. `driftline keys` makes a key; "
    "docs/operate.md says where to put it."
)


class KeyProblem(Problem, ValueError):
    """The private key cannot be used; the message names its setting, never its content."""


def write_verdict(product: ProductStore, digest: str, verdict: Verdict) -> None:
    """Write the verdict on a bundle.

    Raises:
        RecordExists: the bundle has a verdict.
        KeyProblem: the private key cannot be used.
    """
    key = private_key(product.settings)
    if key is not None:
        verdict = replace(verdict, signed=signatures.sign(naming.VERDICTS, verdict.document(), key))
    product.ledgers.of(VERDICTS).create(digest, verdict)


def write_release(
    product: ProductStore, record: Release, warn: Callable[[str], None] = log.warning
) -> tuple[int, Release]:
    """Write the next release; return its number, and the record as written.

    Args:
        product: whose release.
        record: without hashes and signature.
        warn: called with a sentence when a release is unsigned, and is the first or follows a signed one.

    Raises:
        RecordExists: somebody else released in between.
        KeyProblem: the private key cannot be used, or the model's verdict is not signed.
    """
    history, previous, key = product.history, record.previous, private_key(product.settings)
    verdict = history.stored_verdict(record.digest)
    record = replace(
        record,
        previous_sha256=None if previous is None else history.release_sha256(previous),
        verdict_sha256=None if verdict is None else sha256(verdict[0]),
    )
    if key is not None:
        record = _with_trusted_verdict(product, record, verdict, signatures.public_key(key))
        record = replace(record, signed=signatures.sign(naming.RELEASES, record.document(), key))
    elif previous is None or _is_signed(product, previous):
        warn(UNSIGNED.format(product.name))
    number = (previous or 0) + 1
    # Fails if another release came meanwhile: a record is signed with the hash of the one before it.
    product.ledgers.of(RELEASES).create_number(number, record)
    return number, record


def _is_signed(product: ProductStore, number: int) -> bool:
    record = product.history.release(number)
    return record is not None and record.signed is not None


def _with_trusted_verdict(
    product: ProductStore, record: Release, verdict: tuple[bytes, Verdict] | None, public_key: str
) -> Release:
    """Return a release that services with pinned keys follow; refuse one whose verdict is not signed.

    A rollback to a release from before signatures names its author as responsible instead.
    """
    if record.override or verdict is None:
        return record
    data, content = verdict
    try:
        signatures.check(naming.VERDICTS, data, content.signed, (public_key, *product.settings.serving_keys))
    except signatures.SignatureProblem as problem:
        is_older = record.restores is not None and not _is_signed(product, record.restores)
        if not (is_older and content.signed is None):
            raise KeyProblem(
                f"{record.digest} is not released: its verdict {problem}. `driftline release --override` releases it "
                "under your name."
            ) from None
        reason = f"{record.why}; its verdict is older than signatures"
        return replace(record, override=Override(by=record.by, reason=reason))
    return record


def private_key(settings: Settings) -> Ed25519PrivateKey | None:
    """Return the key that signs, or None where none is set.

    Raises:
        KeyProblem: it cannot be read, or is not an Ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if settings.signing_key is not None:
        name, data = "DRIFTLINE_SIGNING_KEY", settings.signing_key.get_secret_value().encode()
    elif settings.signing_key_file is not None:
        name = f"DRIFTLINE_SIGNING_KEY_FILE ({settings.signing_key_file})"
        try:
            data = settings.signing_key_file.read_bytes()
        except OSError as problem:
            raise KeyProblem(f"{name} cannot be read: {problem.strerror}.") from None
    else:
        return None
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyProblem(f"{name} is not an Ed25519 private key in PEM without a password; `driftline keys` makes one.")
    return key


def make_key(path: Path) -> str:
    """Make a private key in a file that only its owner reads, unless the file exists; return the public key.

    Raises:
        KeyProblem: the file exists and is not such a key.
        OSError: it cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    try:
        # With its mode from the first moment: there is none at which others may read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        try:
            existing = private_key(Settings(root="unused", state=path.parent, signing_key_file=path))
        except KeyProblem:
            raise KeyProblem(
                f"{path} exists and is not an Ed25519 private key in PEM without a password; name another file."
            ) from None
        assert existing is not None
        return signatures.public_key(existing)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return signatures.public_key(key)
