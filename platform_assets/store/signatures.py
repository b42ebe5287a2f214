"""Sign releases and verdicts, and check signatures against pinned public keys.

What is signed is the kind of record (a verdict is not a release) and the sha256 of its bytes as they are stored,
without the member `signed`. Checking needs no parsing and no second encoding. Imports `cryptography` late, because most
processes neither sign nor check.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from platform_assets.base.problems import Problem
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.records.base import Document
from platform_assets.store.records.releases import Signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class SignatureProblem(Problem):
    """A record that is not signed by a pinned key; the message continues a sentence about the record."""


def public_key(key: Ed25519PrivateKey) -> str:
    """Return the public key of a private one, as services pin it."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode("ascii")


def sign(ledger: str, document: Document, key: Ed25519PrivateKey) -> Signature:
    """Return the signature of a record.

    Args:
        ledger: its name.
        document: the record as JSON values, without a signature.
    """
    value = key.sign(_message(ledger, canonical(document)))
    return Signature(key=public_key(key), value=base64.b64encode(value).decode("ascii"))


def check(ledger: str, stored: bytes, signature: Signature | None, pinned: Sequence[str]) -> None:
    """Check a record's signature.

    Args:
        ledger: its name.
        stored: the bytes of the record.
        signature: the one in these bytes.
        pinned: the public keys that count.

    Raises:
        SignatureProblem: there is none, it is by another key, or the bytes are not those that were signed.
    """
    from cryptography.exceptions import InvalidSignature

    if signature is None:
        raise SignatureProblem(f"is not signed; expected a signature by {_one_of(pinned)}")
    if signature.key not in pinned:
        raise SignatureProblem(f"is signed by {signature.key}; expected {_one_of(pinned)}")
    member = f',"signed":{{"key":"{signature.key}","value":"{signature.value}"}}'.encode()  # as `canonical` writes it
    before, _, after = stored.partition(member)
    try:
        _opened(signature.key).verify(base64.b64decode(signature.value), _message(ledger, before + after))
    except (InvalidSignature, ValueError):
        raise SignatureProblem(
            f"has a signature by {signature.key} that does not fit its content: it was changed or forged"
        ) from None


@functools.cache  # of pinned keys: unpacking one costs a third of a check
def _opened(public_key: str) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key))


def _message(ledger: str, data: bytes) -> bytes:
    # Ed25519 hashes with SHA-512, which is slower than SHA-256 where processors have instructions for that.
    return f"driftline {ledger} sha256 {sha256(data)}".encode()


def _one_of(pinned: Sequence[str]) -> str:
    return "the pinned key (DRIFTLINE_SERVING_KEYS)" if len(pinned) == 1 else "a pinned key (DRIFTLINE_SERVING_KEYS)"
