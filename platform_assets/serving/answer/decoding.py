"""Decode a body into rows, slice by slice.

No call works on more than one row, except the split of the list, which only looks for the ends of rows. So whatever a
caller sends, and wherever it is wrong, costs one slice between two turns of the event loop.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec

from platform_assets.serving.answer import image_files, pictures
from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.requests import (
    FAILURES,
    TEXT_MAX,
    Between,
    Reason,
    Refused,
    Request,
    Row,
    check_moments,
    refusal,
)
from platform_assets.serving.answer.slices_of_work import BYTES_AT_ONCE, Steps, finish, slice_rows

NUMBER_BYTES, CHARACTER_BYTES, SPARE_BYTES = 64, 12, 16_384
"""In JSON: a number with its name and punctuation; one code point as two escapes; blanks and the rest of a row."""
BAD_ROWS_MAX = 8
"""After so many bad rows of a list no more rows are read."""
_NONE = msgspec.Raw(b"")
_BEGIN = re.compile(rb"[ \t\r\n]*")


class Decoding:
    """The decoders of a contract.

    Attributes:
        row_bytes_max: the longest row, in bytes of JSON: what its fields can need, and some blanks.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self.row = msgspec.json.Decoder(Row[contract.features_type])  # type: ignore[name-defined]  # made at run time
        self._lenient_row = msgspec.json.Decoder(Row[contract.struct(float)])  # type: ignore[misc]  # the same
        # A list type would decode the whole list before it counts; this type stops at the first row too many.
        slots = [(f"r{index}", msgspec.Raw, _NONE) for index in range(contract.max_rows)]
        self._list = msgspec.json.Decoder(msgspec.defstruct("Rows", slots, array_like=True, forbid_unknown_fields=True))
        texts = 2 + len(contract.categorical)
        image = contract.image
        # Two quotes each: the fields' names, a row's own four names, and three texts (entity and moments).
        self._quotes = 2 * (len(contract.fields) + 4 + 3)
        self._first, self._end = len(contract.numeric), len(contract.numeric) + len(contract.categorical)
        self._at_once = slice_rows(contract)
        self.row_bytes_max = SPARE_BYTES + texts * TEXT_MAX * CHARACTER_BYTES
        self.row_bytes_max += sum(NUMBER_BYTES + len(item.name) for item in contract.fields)
        if image is not None:
            as_file, (height, width) = pictures.bytes_max(image.sized), image.sized
            self.row_bytes_max += max(-(-as_file // 3) * 4, height * (8 * width + 2))

    def decode(self, body: bytes | bytearray, now: datetime | None = None) -> Request:
        """Return the rows of a body, or raise `Refused` naming the first field to fix.

        Every value returned matches the contract: no NaN or infinity, no text or boolean for a number, no duplicate
        key, no moment out of bounds. An image becomes the `bytes` of its grey levels, row by row, whatever its form.

        Args:
            body: as received.
            now: as in `Contract.between`.
        """
        return finish(self.steps(body, now))

    def steps(self, body: bytes | bytearray, now: datetime | None) -> Steps[Request]:
        """Decode a body in slices; see `decode`."""
        between = self._contract.between(now)
        begin = _BEGIN.match(body)
        is_list = begin is not None and body[begin.end() : begin.end() + 1] == b"["
        if not is_list:
            image_files.check_none(self._contract, body)
            return Request([self._row_of(bytes(body), "", between)], is_list=False)
        most = self._contract.max_rows
        try:
            decoded = self._list.decode(body)
        except msgspec.ValidationError:
            raise Refused(422, f"the list has more than {most} rows. Send several requests.") from None
        except FAILURES as failure:
            raise refusal(failure) from None
        raws = [raw for raw in msgspec.structs.astuple(decoded) if raw is not _NONE]
        if not raws:
            raise Refused(422, f"the list is empty; expected 1 to {most} rows.")
        if len(raws) > self._at_once or len(body) > BYTES_AT_ONCE:
            yield
        rows, since, spent = [], 0, 0
        bad: list[Reason] = []
        for index, raw in enumerate(raws):
            if since == self._at_once or spent > BYTES_AT_ONCE:
                yield
                since = spent = 0
            part = bytes(raw)
            try:
                rows.append(self._row_of(part, f"[{index}]", between))
            except Refused as refused:
                # Not the exception: its traceback holds this frame, and with it the body, in a cycle.
                bad.append(Reason(refused.sentence, refused.field))
                if len(bad) == BAD_ROWS_MAX:
                    break
            since, spent = since + 1, spent + len(part)
        if bad:
            raise Refused(422, bad[0].error, bad[0].field, bad if len(bad) > 1 else None)
        return Request(rows, is_list=True)

    def _row_of(self, part: bytes, path: str, between: Between) -> Row[Any]:
        """Return one row with its image as grey levels; raise `Refused` naming its first field to fix.

        Args:
            part: the row's JSON.
            path: its place in a list (`[3]`); empty for a body that is one row.
            between: the bounds of moments.
        """
        about = path or "the body"
        if len(part) > self.row_bytes_max:
            raise Refused(
                422,
                f"{about} is longer than {self.row_bytes_max} bytes; expected a shorter row: its fields need no more.",
                path or None,
            )
        try:
            row: Row[Any] = self.row.decode(part)
        except FAILURES:
            # Whole numbers may be written as 180.0 or 1.8e2: JSON Schema counts them among integers.
            try:
                row = self._lenient_row.decode(part)
            except FAILURES as failure:
                raise refusal(failure, path) from None
            for item in self._contract.fields:
                value = getattr(row.features, item.name)
                if item.dtype == "int" and value is not None:
                    setattr(row.features, item.name, int(value))
                elif item.dtype == "image" and not isinstance(value, str):
                    setattr(row.features, item.name, [[int(level) for level in line] for line in value])
        check_moments(row, path, between)
        if quotes_of(part) != self._quotes_in(row):
            raise Refused(422, f"{about} has a name that appears twice; expected each name once.", path or None)
        if self._contract.image is not None:
            name, shape = self._contract.image.name, self._contract.image.sized
            field = f"{path}.features.{name}" if path else f"features.{name}"
            setattr(row.features, name, pictures.grey_levels(getattr(row.features, name), shape, field))
        return row

    def _quotes_in(self, row: Row[Any]) -> int:
        """Return how many quotes the JSON of a row has in which no name appears twice.

        msgspec takes the last of two equal names. Every one is required, so a row without duplicates has this number.
        """
        values = msgspec.structs.astuple(row.features)
        categories = values[self._first : self._end]
        expected = self._quotes + 2 * (len(categories) - categories.count(None))
        if row.idempotency_key is not msgspec.UNSET:
            expected += 2 if row.idempotency_key is None else 4
        if self._contract.image is not None and isinstance(values[self._end], str):
            expected += 2
        return expected


def quotes_of(part: bytes) -> int:
    """Count the quotes in JSON that begin or end a text: those not escaped by a backslash."""
    if b"\\" in part:
        # Pairs of backslashes first, or the quote after them would count as escaped.
        part = part.replace(b"\\\\", b"").replace(b'\\"', b"")
    return part.count(b'"')
