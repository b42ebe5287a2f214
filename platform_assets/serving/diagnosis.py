"""Tell a caller precisely what is wrong with a request.

Belongs here: the slow, patient reading of what the fast path refused. It accepts exactly what `Contract.decode` accepts
(a property test holds them together). Does not belong here: anything that runs for a good request.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from platform_assets.serving import pictures, plain_files
from platform_assets.serving.reading import JsonObject, Reading
from platform_assets.serving.requests import INTEGER_MAX, MOMENT, MOMENTS, TEXT, TEXT_MAX, Refused, Row
from platform_assets.serving.turns import Steps, finish

if TYPE_CHECKING:
    from platform_assets.serving.contract import Contract, ContractField
    from platform_assets.serving.requests import Between

EXAMPLE = "/predict?entity=...&service_time=2013-03-01T05:00:00Z&asked_at=2013-03-01T05:00:00Z"
"""A query string beside a body that is an image file."""
_SHOWN_MAX = 60


def steps(contract: Contract, body: bytes, between: Between) -> Steps[Refused | None]:
    """Return the first thing wrong with a body; look at one row per slice."""
    if (found := _is_no_text(contract, body)) is not None:
        return found
    reading = Reading(body.decode("utf-8"), contract.decoding.row_bytes_max)
    if not reading.sees("["):
        return _alone(contract, reading, between)
    reading.at += 1
    if reading.sees("]"):
        return empty_list(contract)
    place = 0
    while True:
        if place == contract.max_rows:
            return Refused(
                422,
                f"the list holds more than {contract.max_rows} rows; expected at most {contract.max_rows}. "
                "Send several requests.",
            )
        row = reading.value(f"[{place}]")
        if isinstance(row, Refused) or (found := _row(contract, row, f"[{place}]", between)):
            return row if isinstance(row, Refused) else found
        place += 1
        yield
        if reading.sees("]"):
            reading.at += 1
            return reading.rest()
        if not reading.sees(","):
            return reading.broken("Expecting ',' delimiter", reading.at)
        reading.at += 1


def of_row(contract: Contract, part: bytes, path: str, between: Between) -> Refused | None:
    """Return the first thing wrong with one row.

    Args:
        part: the row's JSON.
        path: where it stands in a list (`[3]`); empty for a body that is one row.
    """
    if not path:
        return finish(steps(contract, part, between))
    try:
        text = part.decode("utf-8")
    except UnicodeDecodeError as problem:
        return Refused(422, f"{path} is not UTF-8: it holds byte 0x{part[problem.start]:02x}.", path)
    row = Reading(text, contract.decoding.row_bytes_max).value(path)
    return row if isinstance(row, Refused) else _row(contract, row, path, between)


def empty_list(contract: Contract) -> Refused:
    """Return the refusal of a list without rows."""
    return Refused(422, f"the list is empty; expected 1 to {contract.max_rows} rows.")


def _is_no_text(contract: Contract, body: bytes) -> Refused | None:
    if not body.strip():
        return Refused(422, "the body is empty; expected a JSON object, or a list of them.")
    if kind := plain_files.format_of(body):
        return _file(contract, kind)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as problem:
        return Refused(422, f"the body is not UTF-8: byte 0x{body[problem.start]:02x} at offset {problem.start}.")
    if text.startswith("\ufeff"):
        return Refused(422, "the body is no JSON: it begins with a byte order mark (BOM); leave that out.")
    return None


def _alone(contract: Contract, reading: Reading, between: Between) -> Refused | None:
    """Return what is wrong with a body that is no list."""
    document = reading.value("")
    if isinstance(document, Refused):
        return document
    if (found := reading.rest()) is not None:
        return found
    if isinstance(document, dict):
        return _row(contract, document, "", between)
    return Refused(422, f"the body is {_shown(document)}; expected a JSON object, or a list of them.")


def unwanted_file(contract: Contract) -> Refused:
    """Return the refusal of an image file by a product that takes none."""
    return Refused(
        415,
        f"the body is an image file, and a request to {contract.product} holds "
        f"{'no image' if contract.image is None else 'other fields too'}; expected JSON, see /openapi.json.",
    )


def _file(contract: Contract, found: str) -> Refused:
    if not contract.takes_files:
        return unwanted_file(contract)
    return Refused(
        415,
        f"the body is a {found} file and its content type does not say so; expected `Content-Type: "
        f"image/{found.lower()}` with the rest of the row in the query string ({EXAMPLE}), or JSON.",
    )


def _row(contract: Contract, row: Any, path: str, between: Between) -> Refused | None:
    found = _keys(row, path, Row.__struct_fields__, optional=("idempotency_key",))
    if found:
        return found
    if found := head_problem(row, path, between):
        return found
    features, place = row["features"], _at(path, "features")
    found = _keys(features, place, tuple(item.name for item in contract.fields))
    if found:
        return found
    return next(
        (bad for item in contract.fields if (bad := _value(features[item.name], _at(place, item.name), item))), None
    )


def head_problem(row: JsonObject, path: str, between: Between) -> Refused | None:
    """Return the first thing wrong with a row beside its features, all of which are there."""
    wanted = f"text of 1 to {TEXT_MAX} characters"
    for name in ("entity", "idempotency_key"):
        is_absent = name == "idempotency_key" and row.get(name) is None
        if not is_absent and (found := _unless_fit(row[name], TEXT, _at(path, name), wanted)):
            return found
    for name, bounds in zip(MOMENTS, between, strict=True):
        if found := _moment(row[name], _at(path, name), bounds):
            return found
    return None


def _keys(value: Any, path: str, expected: tuple[str, ...], optional: tuple[str, ...] = ()) -> Refused | None:
    if not isinstance(value, JsonObject):
        return Refused(422, f"{path or 'the body'} is {_shown(value)}; expected an object.", path or None)
    if value.duplicate is not None:
        place = _at(path, value.duplicate)
        return Refused(422, f"{place} stands there twice; expected each key once.", place)
    for name in expected:
        if name not in value and name not in optional:
            place = _at(path, name)
            return Refused(
                422, f"{place} is missing; every field must be sent, null where the contract allows it.", place
            )
    for name in value:
        if name not in expected:
            place = _at(path, name)
            return Refused(
                422, f"{place} is not in the contract; leave it out, or see /openapi.json for the names.", place
            )
    return None


def _value(value: Any, path: str, item: ContractField) -> Refused | None:
    if item.dtype == "image" and value is not None:
        return _picture(value, path, item)
    return _unless_fit(value, item.type, path, expectation(item))


def _unless_fit(value: Any, kind: Any, path: str, wanted: str) -> Refused | None:
    """Return the refusal of a value that the decoder would not take for its type, or None."""
    try:
        msgspec.convert(value, kind)
        is_fit = not isinstance(value, str) or _is_unicode(value)
    except (msgspec.ValidationError, UnicodeEncodeError):
        is_fit = False
    return None if is_fit else Refused(422, f"{path} is {_shown(value)}; expected {wanted}.", path)


def _picture(value: Any, path: str, item: ContractField) -> Refused | None:
    if isinstance(value, str):
        try:
            pictures.grey_levels(value, item.sized, path)
        except Refused as refused:
            return refused
        return None
    if not isinstance(value, list):
        return Refused(422, f"{path} is {_shown(value)}; expected {expectation(item)}.", path)
    height, width = item.sized
    if len(value) != height:
        return Refused(422, f"{path} is a list of {len(value)} rows; expected {height} of {width} grey levels.", path)
    for place, row in enumerate(value):
        if not isinstance(row, list) or len(row) != width:
            return Refused(
                422, f"{path}[{place}] is {_shown(row)}; expected a list of {width} grey levels.", f"{path}[{place}]"
            )
        for column, level in enumerate(row):
            if not isinstance(level, int) or isinstance(level, bool) or not 0 <= level <= 255:
                spot = f"{path}[{place}][{column}]"
                return Refused(422, f"{spot} is {_shown(level)}; expected a whole number from 0 to 255.", spot)
    return None


def expectation(item: ContractField) -> str:
    """Return in words what a field takes: `a whole number from 0 to 59, or null`."""
    if item.dtype == "category":
        words = f"text of 1 to {TEXT_MAX} characters"
    elif item.dtype == "image":
        words = pictures.expectation(item.sized)
    elif item.dtype == "bool":
        words = "true or false"
    else:
        words = "a whole number" if item.dtype == "int" else "a number"
        low, high = item.bounds
        if item.low is not None and item.high is not None:
            words += f" from {low:.15g} to {high:.15g}"
        elif item.low is not None:
            words += f" of at least {low:.15g}"
        elif item.high is not None:
            words += f" of at most {high:.15g}"
        else:
            words += f" within ±{INTEGER_MAX}" if item.dtype == "int" else " that a float32 can hold"
    return words + (", or null" if item.is_nullable else "")


def _moment(value: Any, path: str, bounds: tuple[datetime, datetime]) -> Refused | None:
    try:
        moment = msgspec.convert(value, MOMENT) if isinstance(value, str) else None
    except (msgspec.ValidationError, UnicodeEncodeError):
        moment = None
    if moment is None or moment.tzinfo is not UTC:
        return Refused(422, f"{path} is {_shown(value)}; expected a UTC time such as 2013-03-01T05:00:00Z.", path)
    if not bounds[0] <= moment < bounds[1]:
        return Refused(422, f"{path} is {_shown(value)}; expected a UTC time {within(bounds)}.", path)
    return None


def within(bounds: tuple[datetime, datetime]) -> str:
    """Return bounds of a moment in words: `from 2013-01-01T05:00:00Z, before 2014-01-01T05:00:00Z`."""
    begins, ends = (moment.isoformat(timespec="seconds").replace("+00:00", "Z") for moment in bounds)
    return f"from {begins}, before {ends}"


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _at(path: str, name: str) -> str:
    """Join a path and a name that a stranger chose."""
    safe = shown_name(name)
    return f"{path}.{safe}" if path else safe


def shown_name(name: str) -> str:
    """Return a name that a stranger chose: cut, and what cannot be printed or carried by UTF-8 escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name[:_SHOWN_MAX])


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, float) and value != value:
        return "NaN"
    if isinstance(value, float) and abs(value) == float("inf"):
        return "infinite (or too large for a number)"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return "a number of very many digits"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"
