"""Read a request whose body is an image file, with the rest of its row in the query string.

Content types `image/png` and `image/jpeg`, for contracts whose only field is an image. `pictures` reads the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from platform_assets.serving import diagnosis, pictures
from platform_assets.serving.requests import MOMENT, Refused, Request, Row

if TYPE_CHECKING:
    from platform_assets.serving.contract import Contract

REQUIRED, OPTIONAL = ("entity", "service_time", "asked_at"), ("idempotency_key",)
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
        f"the content type is {diagnosis.printable(value.decode('latin-1'))}; expected application/json in UTF-8 or, "
        f"for a product whose only field is an image, {' or '.join(pictures.CONTENT_TYPES)} with the rest of the row "
        f"in the query string ({diagnosis.EXAMPLE}).",
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
        raise diagnosis.unexpected_file(contract)
    values = _values(query)
    diagnosis.check_head(values, "", contract.between(now))
    grey = pictures.of_file(body, image.sized, f"features.{image.name}")
    row = Row(
        entity=values["entity"],
        service_time=msgspec.convert(values["service_time"], MOMENT),
        asked_at=msgspec.convert(values["asked_at"], MOMENT),
        features=contract.features_type(grey),
        idempotency_key=values.get("idempotency_key", msgspec.UNSET),
    )
    return Request([row], is_list=False)


def check_query(contract: Contract, query: bytes) -> None:
    """Raise for a query next to a body of JSON with a parameter that the OpenAPI document does not allow.

    Others are ignored, and so are all where no body may be a file.
    """
    if query and contract.takes_files:
        parameters = {name: value for name, value in _pairs(query) if name in (*REQUIRED, *OPTIONAL)}
        diagnosis.check_head(parameters, "", contract.moments)


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
        raise Refused(
            422, f"the query string cannot be read ({_reason(problem)}); expected {diagnosis.EXAMPLE}."
        ) from problem


def _values(query: bytes) -> dict[str, str]:
    """Return the query's values by name: all the expected ones and no others."""
    values: dict[str, str] = {}
    for name, value in _pairs(query):
        label = diagnosis.printable(name)
        if name not in (*REQUIRED, *OPTIONAL):
            raise Refused(422, f"{label} is not a parameter of the query string; remove it.", label)
        if name in values:
            raise Refused(422, f"{name} appears twice in the query string; expected it once.", name)
        values[name] = value
    for name in REQUIRED:
        if name not in values:
            raise Refused(422, f"{name} is missing in the query string; expected {diagnosis.EXAMPLE}.", name)
    return values


def _reason(problem: ValueError) -> str:
    return "escapes that are not UTF-8" if isinstance(problem, UnicodeError) else f"more than {_PARTS_MAX} parts"
