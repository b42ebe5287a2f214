"""Explain to a caller what is wrong with a row that the fast path refused: which field, what came, what was expected.

It uses the types that the fast path decodes by, and accepts what that accepts (property tests compare them). It never
runs for a valid request. A row costs at most a millisecond of CPU: its length and the number of its values are limited
before it is read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from platform_assets.serving import plain_files, reading
from platform_assets.serving.reading import Reading
from platform_assets.serving.requests import MOMENT, MOMENTS, TEXT, TEXT_EXPECTATION, Refused, Row

if TYPE_CHECKING:
    from platform_assets.serving.contract import Contract
    from platform_assets.serving.requests import Between
    from platform_assets.serving.turns import Steps

EXAMPLE = "/predict?entity=...&service_time=2013-03-01T05:00:00Z&asked_at=2013-03-01T05:00:00Z"
"""A query string next to a body that is an image file."""
FAILURES = (msgspec.MsgspecError, UnicodeError, RecursionError)
_SHOWN_MAX = 60
_TEXT, _MOMENT = msgspec.json.Decoder(TEXT), msgspec.json.Decoder(MOMENT)
_OPTIONAL = "idempotency_key"
_WITHIN = re.compile(r" - at `\$((?:\[\d+\])+)`$")
"""Where msgspec found the problem inside of a list."""
_TEXTS = re.compile(r'"((?:[^"\\]|\\.)*)"([ \t\r\n]*:)?', re.DOTALL)
_TEXTS_MAX = 4_000
"""How many texts of a row are read; one that a contract allows has a few hundred."""
_WALK_MAX = 131_072
"""Bytes of a list that are read to name the row that is not JSON: 4 ms of CPU for lists of grey levels, the slowest."""


def check_row(contract: Contract, part: bytes, path: str, between: Between) -> None:
    """Raise the first problem of a row, apart from what is in an image's file; return if there is none.

    Args:
        part: the row's JSON.
        path: its place in a list (`[3]`); empty for a body that is one row.
    """
    decoding = contract.decoding
    if not path:
        _check_kind(contract, part)
    if len(part) > decoding.row_bytes_max:
        raise reading.too_long(path, decoding.row_bytes_max)
    if part.count(b",") + part.count(b"[") + part.count(b"{") > decoding.marks_max:
        raise Refused(422, f"{path or 'the body'} has more values than the contract has fields.", path or None)
    text = _text(part, path)
    source = Reading(text, decoding.row_bytes_max)
    row = source.value(path)
    source.end()
    if not path and not isinstance(row, dict):
        raise Refused(422, f"the body is {_quoted(row)}; expected a JSON object, or a list of them.")
    _check_names(row, path, Row.__struct_fields__)
    check_head(row, path, between)
    features, features_path = row["features"], _at(path, "features")
    names = [item.name for item in contract.fields]
    _check_names(features, features_path, names)
    for item in contract.fields:
        value = features[item.name]
        try:
            decoding.by_field[item.name].decode(msgspec.json.encode(value))
        except FAILURES as problem:
            raise _unfit(value, problem, _at(features_path, item.name), item.expectation) from problem
    _check_once(text, path, names)


def check_list(contract: Contract, body: bytes, between: Between, failure: Exception) -> Steps[None]:
    """Raise the problem of a list that could not be split into rows; look at one row per slice.

    Args:
        failure: why it could not.
    """
    if isinstance(failure, msgspec.ValidationError):
        raise Refused(
            422,
            f"the list has more than {contract.max_rows} rows; expected at most {contract.max_rows}. "
            "Send several requests.",
        ) from failure
    source = Reading(_text(body, ""), contract.decoding.row_bytes_max)
    source.skip_to("[")
    source.at += 1
    for index in range(contract.max_rows):
        begins = source.at
        if begins > _WALK_MAX:
            raise Refused(422, f"the body is not JSON: {failure}.") from failure
        source.value(f"[{index}]")
        contract.decoding.row_of(source.since(begins), f"[{index}]", between)
        if source.skip_to("]"):
            source.at += 1
            source.end()
            return
        if not source.skip_to(","):
            raise source.broken("Expecting ',' delimiter", source.at)
        source.at += 1
        yield


def empty_list(contract: Contract) -> Refused:
    """Return the refusal of a list without rows."""
    return Refused(422, f"the list is empty; expected 1 to {contract.max_rows} rows.")


def unexpected_file(contract: Contract) -> Refused:
    """Return the refusal of an image file by a product that does not accept one."""
    reason = "has no image" if contract.image is None else "has other fields too"
    return Refused(
        415,
        f"the body is an image file, but a request to {contract.product} {reason}; expected JSON, see /openapi.json.",
    )


def check_head(row: Mapping[str, Any], path: str, between: Between) -> None:
    """Raise the first problem of what there is of a row apart from its features."""
    for name in ("entity", _OPTIONAL):
        if name in row and (name == "entity" or row[name] is not None):
            _check_fit(row[name], _TEXT, _at(path, name), TEXT_EXPECTATION)
    for name, bounds in zip(MOMENTS, between, strict=True):
        if name in row:
            spot, expected = _at(path, name), f"a UTC time {within(bounds)}"
            moment = _check_fit(row[name], _MOMENT, spot, expected)
            if moment.tzinfo is not UTC or not bounds[0] <= moment < bounds[1]:
                raise Refused(422, f"{spot} is {_quoted(row[name])}; expected {expected}.", spot)


def within(bounds: tuple[datetime, datetime]) -> str:
    """Describe the bounds of a moment: `from 2013-01-01T05:00:00Z, before 2014-01-01T05:00:00Z`."""
    begins, ends = (moment.isoformat(timespec="seconds").replace("+00:00", "Z") for moment in bounds)
    return f"from {begins}, before {ends}"


def printable(name: str) -> str:
    """Return a name chosen by the caller, cut, with unprintable characters escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name[:_SHOWN_MAX])


def _check_kind(contract: Contract, body: bytes) -> None:
    """Raise for a body that is empty, or a file under the content type of JSON."""
    if not body.strip():
        raise Refused(422, "the body is empty; expected a JSON object, or a list of them.")
    kind = plain_files.format_of(body)
    if kind is not None and not contract.takes_files:
        raise unexpected_file(contract)
    if kind is not None:
        raise Refused(
            415,
            f"the body is a {kind} file, but its content type does not say so; expected `Content-Type: "
            f"image/{kind.lower()}` with the rest of the row in the query string ({EXAMPLE}), or JSON.",
        )


def _text(part: bytes, path: str) -> str:
    about = path or "the body"
    try:
        text = part.decode("utf-8")
    except UnicodeDecodeError as problem:
        byte = part[problem.start]
        raise Refused(
            422, f"{about} is not UTF-8: byte 0x{byte:02x} at offset {problem.start}.", path or None
        ) from None
    if text.startswith("\ufeff"):
        raise Refused(422, f"{about} is not JSON: it begins with a byte order mark (BOM); remove that.")
    return text


def _check_names(value: Any, path: str, expected: Sequence[str]) -> None:
    if not isinstance(value, dict):
        raise Refused(422, f"{path or 'the body'} is {_quoted(value)}; expected an object.", path or None)
    for name in expected:
        if name not in value and name != _OPTIONAL:
            spot = _at(path, name)
            raise Refused(422, f"{spot} is missing; every field is required, null where the contract allows it.", spot)
    for name in value:
        if name not in expected:
            spot = _at(path, name)
            raise Refused(422, f"{spot} is not in the contract; remove it. The names are in /openapi.json.", spot)


def _check_once(text: str, path: str, features: Sequence[str]) -> None:
    """Raise for a name that appears twice: JSON readers keep the last one. All values are fit."""
    matches = islice(_TEXTS.finditer(text), _TEXTS_MAX)
    names = (item[1] for item in matches if item[2] is not None)
    counts = Counter(json.loads(f'"{name}"') if "\\" in name else name for name in names)
    for name, count in counts.items():
        is_head, is_feature = name in Row.__struct_fields__, name in features
        if count > is_head + is_feature > 0:
            spot = _at(_at(path, "features"), name) if is_feature else _at(path, name)
            raise Refused(422, f"{spot} appears twice; expected each name once.", spot)


def _check_fit(value: Any, decoder: msgspec.json.Decoder[Any], path: str, expected: str) -> Any:
    """Return a decoded value; raise if it is not accepted."""
    try:
        return decoder.decode(msgspec.json.encode(value))
    except FAILURES as problem:
        raise _unfit(value, problem, path, expected) from problem


def _unfit(value: Any, problem: Exception, path: str, expected: str) -> Refused:
    """Return the refusal of a value, or of the one within a list that msgspec names."""
    if match := _WITHIN.search(str(problem)):
        path += match[1]
        for index in re.findall(r"\d+", match[1]):
            value = value[int(index)]
    return Refused(422, f"{path} is {_quoted(value)}; expected {expected}.", path)


def _at(path: str, name: str) -> str:
    """Join a path and a name chosen by the caller."""
    safe = printable(name)
    return f"{path}.{safe}" if path else safe


def _quoted(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    text = bytes(value).decode() if isinstance(value, msgspec.Raw) else json.dumps(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"
