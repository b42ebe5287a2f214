"""Define the signature of a release or verdict."""

from __future__ import annotations

from typing import Annotated

import msgspec

from platform_assets.store.records.base import Part

PublicKey = Annotated[str, msgspec.Meta(pattern="^[0-9A-Za-z+/]{43}=$")]
"""32 bytes of an Ed25519 public key, in base64."""


class Signature(Part, frozen=True, kw_only=True):
    """An Ed25519 signature (64 bytes, in base64) of the record's bytes without this member."""

    key: PublicKey
    value: Annotated[str, msgspec.Meta(pattern="^[0-9A-Za-z+/]{86}==$")]
