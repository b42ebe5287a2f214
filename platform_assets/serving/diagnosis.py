"""Explain to a caller precisely what is wrong with a request that the fast path refused.

It accepts exactly what `Contract.decode` accepts (a property test compares them). It never runs for a valid request.
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
"""A query string next to a body that is an image file."""
_SHOWN_MAX = 60


def steps(contract: Contract, body: bytes, between: Between) -> Steps[Refused | None]:
    """Return the first problem of a body; check one row per slice."""
    if (problem := _check_text(contract, body)) is not None:
        return problem
    reading = Reading(body.decode("utf-8"), contract.decoding.row_bytes_max)
    if not reading.skip_to("["):
        return _single(contract, reading, between)
    reading.at += 1
    if reading.skip_to("]"):
        return empty_list(contract)
    index = 0
    while True:
        if index == contract.max_rows:
            return Refused(
                422,
                f"the list has more than {contract.max_rows} rows; expected at most {contract.max_rows}. "
                "Send several requests.",
            )
        row = reading.value(f"[{index}]")
        if isinstance(row, Refused) or (problem := _row(contract, row, f"[{index}]", between)):
            return row if isinstance(row, Refused) else problem
        index += 1
        yield
        if reading.skip_to("]"):
            reading.at += 1
            return reading.rest()
        if not reading.skip_to(","):
            return reading.broken("Expecting ',' delimiter", reading.at)
        reading.at += 1


def of_row(contract: Contract, part: bytes, path: str, between: Between) -> Refused | None:
    """Return the first problem of one row.

    Args:
        part: the row's JSON.
        path: its place in a list (`[3]`); empty for a body that is one row.
    """
    if not path:
        return finish(steps(contract, part, between))
    try:
        text = part.decode("utf-8")
    except UnicodeDecodeError as problem:
        return Refused(422, f"{path} is not UTF-8: it contains the byte 0x{part[problem.start]:02x}.", path)
    row = Reading(text, contract.decoding.row_bytes_max).value(path)
    return row if isinstance(row, Refused) else _row(contract, row, path, between)


def empty_list(contract: Contract) -> Refused:
    """Return the refusal of a list without rows."""
    return Refused(422, f"the list is empty; expected 1 to {contract.max_rows} rows.")


def _check_text(contract: Contract, body: bytes) -> Refused | None:
    if not body.strip():
        return Refused(422, "the body is empty; expected a JSON object, or a list of them.")
    if kind := plain_files.format_of(body):
        return _file(contract, kind)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as problem:
        return Refused(422, f"the body is not UTF-8: byte 0x{body[problem.start]:02x} at offset {problem.start}.")
    if text.startswith("\ufeff"):
        return Refused(422, "the body is not JSON: it begins with a byte order mark (BOM); remove that.")
    return None


def _single(contract: Contract, reading: Reading, between: Between) -> Refused | None:
    """Return the first problem of a body that is not a list."""
    document = reading.value("")
    if isinstance(document, Refused):
        return document
    if (problem := reading.rest()) is not None:
        return problem
    if isinstance(document, dict):
        return _row(contract, document, "", between)
    return Refused(422, f"the body is {_quoted(document)}; expected a JSON object, or a list of them.")


def unexpected_file(contract: Contract) -> Refused:
    """Return the refusal of an image file by a product that does not accept one."""
    reason = "has no image" if contract.image is None else "has other fields too"
    return Refused(
        415,
        f"the body is an image file, but a request to {contract.product} {reason}; expected JSON, see /openapi.json.",
    )


def _file(contract: Contract, problem: str) -> Refused:
    if not contract.takes_files:
        return unexpected_file(contract)
    return Refused(
        415,
        f"the body is a {problem} file, but its content type does not say so; expected `Content-Type: "
        f"image/{problem.lower()}` with the rest of the row in the query string ({EXAMPLE}), or JSON.",
    )


def _row(contract: Contract, row: Any, path: str, between: Between) -> Refused | None:
    problem = _keys(row, path, Row.__struct_fields__, optional=("idempotency_key",))
    if problem:
        return problem
    if problem := head_problem(row, path, between):
        return problem
    features, features_path = row["features"], _at(path, "features")
    problem = _keys(features, features_path, tuple(item.name for item in contract.fields))
    if problem:
        return problem
    problems = (_value(features[item.name], _at(features_path, item.name), item) for item in contract.fields)
    return next((problem for problem in problems if problem), None)


def head_problem(row: JsonObject, path: str, between: Between) -> Refused | None:
    """Return the first problem of a row apart from its features; all its keys are there."""
    expected = f"text of 1 to {TEXT_MAX} characters"
    for name in ("entity", "idempotency_key"):
        is_absent = name == "idempotency_key" and row.get(name) is None
        if not is_absent and (problem := _unless_fit(row[name], TEXT, _at(path, name), expected)):
            return problem
    for name, bounds in zip(MOMENTS, between, strict=True):
        if problem := _moment(row[name], _at(path, name), bounds):
            return problem
    return None


def _keys(value: Any, path: str, expected: tuple[str, ...], optional: tuple[str, ...] = ()) -> Refused | None:
    if not isinstance(value, JsonObject):
        return Refused(422, f"{path or 'the body'} is {_quoted(value)}; expected an object.", path or None)
    if value.duplicate is not None:
        spot = _at(path, value.duplicate)
        return Refused(422, f"{spot} appears twice; expected each key once.", spot)
    for name in expected:
        if name not in value and name not in optional:
            spot = _at(path, name)
            return Refused(422, f"{spot} is missing; every field is required, null where the contract allows it.", spot)
    for name in value:
        if name not in expected:
            spot = _at(path, name)
            return Refused(422, f"{spot} is not in the contract; remove it. The names are in /openapi.json.", spot)
    return None


def _value(value: Any, path: str, item: ContractField) -> Refused | None:
    if item.dtype == "image" and value is not None:
        return _picture(value, path, item)
    return _unless_fit(value, item.type, path, expectation(item))


def _unless_fit(value: Any, kind: Any, path: str, expected: str) -> Refused | None:
    """Return the refusal of a value that the decoder would not accept for its type, or None."""
    try:
        msgspec.convert(value, kind)
        is_fit = not isinstance(value, str) or _is_unicode(value)
    except (msgspec.ValidationError, UnicodeEncodeError):
        is_fit = False
    return None if is_fit else Refused(422, f"{path} is {_quoted(value)}; expected {expected}.", path)


def _picture(value: Any, path: str, item: ContractField) -> Refused | None:
    if isinstance(value, str):
        try:
            pictures.grey_levels(value, item.sized, path)
        except Refused as refused:
            return refused
        return None
    if not isinstance(value, list):
        return Refused(422, f"{path} is {_quoted(value)}; expected {expectation(item)}.", path)
    height, width = item.sized
    if len(value) != height:
        return Refused(422, f"{path} is a list of {len(value)} rows; expected {height} of {width} grey levels.", path)
    for index, row in enumerate(value):
        if not isinstance(row, list) or len(row) != width:
            return Refused(
                422, f"{path}[{index}] is {_quoted(row)}; expected a list of {width} grey levels.", f"{path}[{index}]"
            )
        for column, level in enumerate(row):
            if not isinstance(level, int) or isinstance(level, bool) or not 0 <= level <= 255:
                spot = f"{path}[{index}][{column}]"
                return Refused(422, f"{spot} is {_quoted(level)}; expected a whole number from 0 to 255.", spot)
    return None


def expectation(item: ContractField) -> str:
    """Describe what a field accepts: `a whole number from 0 to 59, or null`."""
    if item.dtype == "category":
        text = f"text of 1 to {TEXT_MAX} characters"
    elif item.dtype == "image":
        text = pictures.expectation(item.sized)
    elif item.dtype == "bool":
        text = "true or false"
    else:
        text = "a whole number" if item.dtype == "int" else "a number"
        low, high = item.bounds
        if item.low is not None and item.high is not None:
            text += f" from {low:.15g} to {high:.15g}"
        elif item.low is not None:
            text += f" of at least {low:.15g}"
        elif item.high is not None:
            text += f" of at most {high:.15g}"
        else:
            text += f" within ±{INTEGER_MAX}" if item.dtype == "int" else " that a float32 can hold"
    return text + (", or null" if item.is_nullable else "")


def _moment(value: Any, path: str, bounds: tuple[datetime, datetime]) -> Refused | None:
    try:
        moment = msgspec.convert(value, MOMENT) if isinstance(value, str) else None
    except (msgspec.ValidationError, UnicodeEncodeError):
        moment = None
    if moment is None or moment.tzinfo is not UTC:
        return Refused(422, f"{path} is {_quoted(value)}; expected a UTC time such as 2013-03-01T05:00:00Z.", path)
    if not bounds[0] <= moment < bounds[1]:
        return Refused(422, f"{path} is {_quoted(value)}; expected a UTC time {within(bounds)}.", path)
    return None


def within(bounds: tuple[datetime, datetime]) -> str:
    """Describe the bounds of a moment: `from 2013-01-01T05:00:00Z, before 2014-01-01T05:00:00Z`."""
    begins, ends = (moment.isoformat(timespec="seconds").replace("+00:00", "Z") for moment in bounds)
    return f"from {begins}, before {ends}"


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _at(path: str, name: str) -> str:
    """Join a path and a name chosen by the caller."""
    safe = printable(name)
    return f"{path}.{safe}" if path else safe


def printable(name: str) -> str:
    """Return a name chosen by the caller, cut, with unprintable characters escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name[:_SHOWN_MAX])


def _quoted(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, float) and value != value:
        return "NaN"
    if isinstance(value, float) and abs(value) == float("inf"):
        return "infinite (or too large for a number)"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return "a number with very many digits"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"
