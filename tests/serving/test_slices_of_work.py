"""A long list is processed in slices: other requests run in between, and all rows or none are answered."""

import asyncio
import json
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.serving.answer import batching, decoding, slices_of_work
from platform_assets.serving.answer.decoding import quotes_of
from platform_assets.serving.answer.live import Live
from platform_assets.serving.answer.model import Model
from platform_assets.store.artifacts import ArtifactStore
from tests.doubles import models
from tests.serving.picture_files import JPEG, PNG, text_of

ROWS = 256
LARGE = {"max_rows": ROWS, "max_body_bytes": 2_000_000}


def count_by_walking(body: bytes) -> int:
    """Count quotes by walking over the characters."""
    count, is_escaped = 0, False
    for byte in body:
        count += byte == 0x22 and not is_escaped
        is_escaped = byte == 0x5C and not is_escaped
    return count


@given(st.binary() | st.text(alphabet='\\"u0a{').map(str.encode))
def test_quotes_are_counted_as_by_a_walk(body: bytes) -> None:
    assert quotes_of(body) == count_by_walking(body)


@pytest.fixture
def app(make: Callable[..., Any]) -> Any:
    return make(models.contract(**LARGE), starts=True)


def rows(count: int = ROWS, **changes: Any) -> list[dict[str, Any]]:
    return [models.row(f"entity {number}", **changes) for number in range(count)]


class RowCounter:
    """Counter of the rows that one slice decodes, scores and encodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = dict.fromkeys(("decoded", "scored", "made"), 0)
        self.most = dict(self.now)
        self._wrap(monkeypatch, decoding.Decoding, "_row_of", "decoded", lambda *_: 1)
        self._wrap(monkeypatch, batching, "run_graph", "scored", lambda model, values: len(values))
        self._wrap(monkeypatch, batching, "build_row", "made", lambda *_: 1)

    def _wrap(
        self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, subject: str, count: Callable[..., int]
    ) -> None:
        real = getattr(owner, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            self.now[subject] += count(*arguments)
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)

    def slices(self, steps: Any) -> tuple[int, Any]:
        """Run all slices; return their number and the result."""
        count = 0
        while True:
            self.now = dict.fromkeys(self.now, 0)
            try:
                next(steps)
            except StopIteration as end:
                return count + 1, end.value
            finally:
                self.most = {subject: max(self.most[subject], now) for subject, now in self.now.items()}
            count += 1


BAD = models.row("bad", {"wind": -1})
LISTS = {
    "good": (json.dumps(rows()).encode(), 200),
    "with keys": (json.dumps([{**row, "idempotency_key": row["entity"]} for row in rows()]).encode(), 200),
    "escaped": (json.dumps([models.row("é" * 200) for _ in range(ROWS)]).encode(), 200),
    "last row bad": (json.dumps([*rows(ROWS - 1), BAD]).encode(), 422),
    "all rows bad": (json.dumps([BAD] * ROWS).encode(), 422),
    "first row bad": (json.dumps([BAD, *rows(ROWS - 1)]).encode(), 422),
    "last row has a key twice": (json.dumps(rows()).encode()[:-2] + b', "entity": "again"}]', 422),
    "garbage at its end": (json.dumps(rows()).encode() + b"x", 422),
    "cut off": (json.dumps(rows()).encode()[:-1], 422),
    "NaN in the last row": (json.dumps([*rows(ROWS - 1), models.row("x", {"temp": float("nan")})]).encode(), 422),
    "too many rows": (json.dumps(rows(2 * ROWS)).encode(), 422),
    "one key for all": (json.dumps(rows(idempotency_key="k")).encode(), 422),
    "unknown category in the last row": (json.dumps([*rows(255), models.row("x", {"origin": "?"})]).encode(), 422),
}
QUICK = ("all rows bad", "too many rows", "garbage at its end", "cut off", "NaN in the last row")
"""Lists that are refused without reading them to their end."""


@pytest.mark.parametrize("name", LISTS)
def test_no_slice_processes_more_rows_than_allowed(app: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    body, expected = LISTS[name]
    counter = RowCounter(monkeypatch)
    steps = app.runtime.predictor.steps(app.follower.live, body, perf_counter())
    count, (status, _, answered) = counter.slices(steps)
    assert status == expected
    assert max(counter.most.values()) <= slices_of_work.ROWS_AT_ONCE
    assert count >= (1 if name in QUICK else ROWS // slices_of_work.ROWS_AT_ONCE)
    assert len(app.records()) == answered == (ROWS if expected == 200 else 0), "all rows or none"


def test_pictures_take_smaller_slices(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    app = make(models.image_contract(**LARGE), starts=True)
    photos = [text_of(PNG), text_of(JPEG), models.rows_of()]
    body = json.dumps([models.image_row(photos[n % 3], entity=str(n)) for n in range(ROWS)]).encode()
    counter = RowCounter(monkeypatch)
    count, (status, _, answered) = counter.slices(app.runtime.predictor.steps(app.follower.live, body, perf_counter()))
    assert (status, answered) == (200, ROWS)
    assert max(counter.most.values()) <= slices_of_work.IMAGES_AT_ONCE
    assert count >= ROWS // slices_of_work.IMAGES_AT_ONCE


LONG = {
    "a list of zeros": b"[" + b"0," * 990_000 + b"0]",
    "a list of objects": b"[" + b"{}," * 660_000 + b"{}]",
    "a row of lists": b"[[" + b"[]," * 660_000 + b"[]]]",
    "one object with a key 300,000 times": b'{"entity": "a", ' + b'"x":1,' * 300_000 + b'"x":1}',
    "a row with a slow number, over and over": b'[{"features": {'
    + b'"temp":1.2345678901234567890123456e-290,' * 45_000
    + b'"temp":1}}]',
    "one long text": b'[{"entity": "' + b"a" * 1_900_000 + b'"}]',
    "blanks": b"[{" + b" " * 1_900_000 + b"}]",
    "a text without end": b'[{"entity": "' + b"a" * 1_900_000,
}


@pytest.mark.parametrize("name", LONG)
def test_no_single_call_reads_a_row_that_is_too_long(app: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever fills a body to its limit, JSON values per slice come from at most as much text as a row may have."""
    reader = app.runtime.follower.live.model.decoding
    for name_of_decoder in ("row", "_lenient_row"):
        guarded = Guarded(getattr(reader, name_of_decoder), reader.row_bytes_max)
        monkeypatch.setattr(reader, name_of_decoder, guarded)
    status, answer = app.predict(LONG[name])
    assert status == 422
    assert answer["error"].endswith(".")
    assert len(answer["error"]) < 400


class Guarded:
    def __init__(self, decoder: Any, longest: int) -> None:
        self._decoder, self._longest = decoder, longest

    def decode(self, part: bytes) -> Any:
        assert len(part) <= self._longest
        return self._decoder.decode(part)


def test_other_requests_run_between_slices(app: Any) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    async def live() -> tuple[int, Any]:
        heart = asyncio.create_task(beat())
        answer = await app.post(LISTS["good"][0])
        heart.cancel()
        return answer

    status, answers = asyncio.run(live())
    assert (status, len(answers)) == (200, ROWS)
    assert beats >= 3 * ROWS // slices_of_work.ROWS_AT_ONCE


def test_a_row_does_not_wait_for_earlier_lists(app: Any) -> None:
    done: list[str] = []

    async def ask(name: str, body: bytes) -> None:
        assert (await app.post(body))[0] == 200
        done.append(name)

    async def live() -> None:
        lists = [asyncio.create_task(ask(f"list {n}", LISTS["good"][0])) for n in range(3)]
        await asyncio.sleep(0)
        await asyncio.gather(ask("row", json.dumps(models.row()).encode()), *lists)

    asyncio.run(live())
    assert done == ["row", "list 0", "list 1", "list 2"]


def test_a_model_swap_in_the_middle_of_a_list_mixes_no_models(app: Any) -> None:
    other = models.write_bundle(ArtifactStore(str(app.folder / "fallback")), bias=3.0, document=app.document)
    steps = app.runtime.predictor.steps(app.follower.live, LISTS["good"][0], perf_counter())
    for _ in range(20):
        next(steps)
    app.follower.live = Live(Model.load(app.fallback, other), None, "fallback")
    _, body, _ = slices_of_work.finish(steps)
    assert {answer["digest"] for answer in json.loads(body)} == {app.fallback_digest}
    assert {record["digest"] for record in app.records()} == {app.fallback_digest}


def test_two_lists_with_the_same_keys_at_the_same_time_are_logged_once(app: Any) -> None:
    body = LISTS["with keys"][0]

    async def live() -> list[Any]:
        return await asyncio.gather(app.post(body), app.post(body))

    first, second = asyncio.run(live())
    assert first == second
    assert len(app.records()) == ROWS


def test_the_same_keys_with_other_rows_at_the_same_time_are_refused(app: Any) -> None:
    """The list that is answered first has the key; the later list is refused and not logged."""
    one = app.runtime.predictor.steps(app.follower.live, LISTS["with keys"][0], perf_counter())
    for _ in range(20):
        next(one)
    status, _ = app.predict(models.row("another", idempotency_key="entity 255"))
    assert status == 200
    status, body, _ = slices_of_work.finish(one)
    assert (status, json.loads(body)["field"]) == (422, "[255].idempotency_key")
    assert len(app.records()) == 1
