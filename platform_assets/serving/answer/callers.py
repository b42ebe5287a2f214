"""Admit the callers that a file of API keys names. Without a file everybody may ask.

The file is TOML: a caller's name, and the sha256 of its keys. It is read at the start. What a caller may ask for, and
how often, is the business of the gateway in front.
"""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from platform_assets.base.problems import Problem
from platform_assets.serving.answer.requests import Refused

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.@-]{1,64}$")]
_BEARER = b"bearer "
_KEY_BYTES_MAX = 512
_PREFIX = 8


class CallersProblem(Problem, ValueError):
    """A file of callers that cannot be used."""


class Unknown(Refused):
    """A request whose API key is missing or not known."""

    def __init__(self, reason: str) -> None:
        super().__init__(401, f"{reason}; expected the header Authorization: Bearer KEY.")


class Callers:
    """The callers of a service."""

    def __init__(self, file: Path | None = None) -> None:
        """Read the file.

        Raises:
            CallersProblem: it is missing or malformed.
        """
        self._by_prefix: dict[bytes, tuple[bytes, str]] | None = None
        if file is None:
            return
        try:
            listed = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), dict[Name, list[Digest]])
        except OSError as problem:
            raise CallersProblem(f"{file} (DRIFTLINE_SERVING_CALLERS) cannot be read: {problem.strerror}.") from None
        except ValueError as problem:  # of TOML, msgspec and UTF-8 alike
            raise CallersProblem(
                f"{file} (DRIFTLINE_SERVING_CALLERS) is not a file of callers: {problem}. Expected lines such as "
                'mobile_app = ["SHA256 OF A KEY"].'
            ) from None
        keys = [(bytes.fromhex(text), name) for name, texts in listed.items() for text in texts]
        self._by_prefix = {digest[:_PREFIX]: (digest, name) for digest, name in keys}
        if len(self._by_prefix) < len(keys):
            raise CallersProblem(f"{file} lists a sha256 twice; expected each key once.")

    def name_of(self, fields: Mapping[bytes, bytes]) -> str | None:
        """Return whose key a request's headers hold; None where everybody may ask.

        Raises:
            Unknown: nobody's.
        """
        if self._by_prefix is None:
            return None
        value = fields.get(b"authorization", b"")
        if not value:
            raise Unknown("there is no API key")
        if value[: len(_BEARER)].lower() != _BEARER or len(value) > _KEY_BYTES_MAX:
            raise Unknown("the API key cannot be read")
        digest = hashlib.sha256(value[len(_BEARER) :].strip()).digest()
        # The prefix of a digest tells nothing about a key of 256 random bits; the rest is compared in constant time.
        expected, name = self._by_prefix.get(digest[:_PREFIX], (b"", ""))
        if not hmac.compare_digest(expected, digest):
            raise Unknown("the API key is not known")
        return name
