"""Read a request whose body is an image file, with the rest of its row in the query string.

Content types `image/png` and `image/jpeg`, for contracts whose only field is an image. `pictures` reads the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from platform_assets.serving.answer import pictures
from platform_assets.serving.answer.requests import MOMENTS, Between, Refused, Request, Row, check_moments, refusal

if TYPE_CHECKING:
    from platform_assets.serving.answer.contract import Contract

REQUIRED, OPTIONAL = ("entity", *MOMENTS), ("idempotency_key",)
EXAMPLE = "/predict?entity=...&service_time=2013-03-01T05:00:00Z&asked_at=2013-03-01T05:00:00Z"
"""A query string next to a body that is an image file."""
_PARTS_MAX = 16
_JSON = b"application/json"
_CONTENT_TYPES = (*(name.encode() for name in pictures.CONTENT_TYPES), b"image/jpg")
"""The last one is not registered, but often sent."""


def is_file(fields: Mapping[bytes, bytes]) -> bool:
    """Return whether a request's headers announce an image file; without a content type the body is JSON.

    Raises:
        Refused: (415) it is neither an image file of a supported format nor JSON in UTF-8.
    """
    value = fields.get(b"content-type", b"")
    if value == _JSON:
        return False
    kind, *parameters = (part.strip().lower() for part in value.split(b";"))
    if kind in _CONTENT_TYPES:
        return True
    is_text_known = all(part.replace(b'"', b"") in (b"", b"charset=utf-8") for part in parameters)
    if kind in (b"", _JSON) and is_text_known:
        return False
    raise Refused(
        415,
        f"the content type is {value.decode('latin-1')[:60]!r}; expected application/json in UTF-8 or, for a product "
        f"whose only field is an image, {' or '.join(pictures.CONTENT_TYPES)} with the rest of the row in the query "
        f"string ({EXAMPLE}).",
    )


def check_none(contract: Contract, body: bytes | bytearray) -> None:
    """Raise `Refused` (415) for a body that is an image file under the content type of JSON."""
    kind = pictures.format_of(body)
    if kind is None:
        return
    if not contract.takes_files:
        raise _unexpected(contract)
    raise Refused(
        415,
        f"the body is a {kind} file, but its content type does not say so; expected `Content-Type: "
        f"image/{kind.lower()}` with the rest of the row in the query string ({EXAMPLE}), or JSON.",
    )


def decode(contract: Contract, body: bytes | bytearray, query: bytes, now: datetime | None = None) -> Request:
    """Return the row of a body that is an image file, as if it had been sent as JSON.

    Args:
        body: the file.
        query: the URL's part after the question mark.
        now: as in `Contract.between`.

    Raises:
        Refused: (415) the contract has other fields; (422) the query or the file does not match the contract.
    """
    image = contract.image
    if image is None or not contract.takes_files:
        raise _unexpected(contract)
    pairs = _pairs(query)
    if len(values := dict(pairs)) < len(pairs) or "features" in values:
        raise Refused(422, f"the query string has a parameter twice, or one that is not its own; expected {EXAMPLE}.")
    row = _row({**values, "features": None}, contract.between(now))
    row.features = contract.features_type(pictures.of_file(body, image.sized, f"features.{image.name}"))
    return Request([row], is_list=False)


def check_query(contract: Contract, query: bytes) -> None:
    """Raise for a query next to a body of JSON with a parameter that the OpenAPI document does not allow.

    Others are ignored, and so are all where no body may be a file.
    """
    if query and contract.takes_files:
        good = {
            "entity": "-",
            "features": None,
            **{name: begins for name, (begins, _) in zip(MOMENTS, contract.moments, strict=True)},
        }
        parameters = {name: value for name, value in _pairs(query) if name in (*REQUIRED, *OPTIONAL)}
        _row({**good, **parameters}, contract.moments)


def _row(values: Mapping[str, str | datetime | None], between: Between) -> Row[Any]:
    try:
        row = msgspec.convert(values, Row[Any])
    except msgspec.ValidationError as failure:
        raise refusal(failure) from None
    check_moments(row, "", between)
    return row


def _unexpected(contract: Contract) -> Refused:
    """Return the refusal of an image file by a product that does not accept one."""
    reason = "has no image" if contract.image is None else "has other fields too"
    return Refused(
        415,
        f"the body is an image file, but a request to {contract.product} {reason}; expected JSON, see /openapi.json.",
    )


def _pairs(query: bytes) -> list[tuple[str, str]]:
    if not query.isascii():
        raw = next(byte for byte in query if byte > 0x7F)
        raise Refused(
            422,
            f"the query string contains the raw byte 0x{raw:02x}; expected characters beyond ASCII as percent-escaped "
            "UTF-8: %C3%A9 for é.",
        )
    try:
        return parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_PARTS_MAX, separator="&"
        )
    except ValueError as problem:
        reason = "escapes that are not UTF-8" if isinstance(problem, UnicodeError) else f"more than {_PARTS_MAX} parts"
        raise Refused(422, f"the query string cannot be read ({reason}); expected {EXAMPLE}.") from problem
