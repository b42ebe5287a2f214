"""Models of several products in one process: within the memory, none for another, and no request lost to a load."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.base.settings import Settings
from platform_assets.serving.answer.model import Model
from platform_assets.serving.follow.candidate import Trial
from platform_assets.serving.follow.entries import HostProblem
from platform_assets.serving.follow.freed_memory import allocated
from platform_assets.serving.run import assembly
from platform_assets.serving.run.host import Host, make_host
from platform_assets.serving.run.worker import Worker
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.training.sealed import Sealed
from tests.doubles import models

MEGABYTE = 2**20


class Sized(Trial):
    """Takes each model for one of a megabyte; `test_a_models_memory_is_measured` has the real one."""

    def __call__(self, sealed: Sealed) -> None:
        self._good[sealed.digest] = MEGABYTE


def untried(*_: Any, **__: Any) -> Trial:
    return Sized(60)


@pytest.fixture
def hosted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Host]:
    """Make a host of models of the tiny product whose biases are 0, 1, 2 and so on."""
    monkeypatch.setattr(assembly, "make_trial", untried)

    def make(count: int, megabytes: float, *, is_followed: bool = False) -> Host:
        options = {"DRIFTLINE_STATE": str(tmp_path), "DRIFTLINE_SERVING_POLL_S": "0.05"}
        here = Settings.from_environment(options)
        store = ArtifactStore(here.root)
        digests = [models.write_bundle(store, bias=float(number)) for number in range(count)]
        names = [f"{models.PRODUCT}@{digest}" for digest in digests]
        if is_followed:
            models.release(here.root, digests[0])
            names = [models.PRODUCT]
        return make_host(here, names, int(megabytes * MEGABYTE))

    return make


async def call(host: Host, path: str, body: Any = None) -> tuple[int, Any]:
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"" if body is None else json.dumps(body).encode(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    method = "GET" if body is None else "POST"
    await host({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
    return sent[0]["status"], json.loads(b"".join(message["body"] for message in sent[1:]))


def play(host: Host, scenario: Callable[[], Any]) -> Any:
    """Run a scenario between start and end of the host."""

    async def run() -> Any:
        for product in host.products.values():
            product._worker = Worker(product.runtime, {}, host, lambda: None)
        host.shelf.start()
        await asyncio.gather(*(product.load() for product in host.products.values()))
        try:
            return await asyncio.wait_for(scenario(), 60)
        finally:
            await asyncio.gather(*(product.close() for product in host.products.values()))

    return asyncio.run(run())


def right(name: str, host: Host, answer: Any, features: dict[str, Any] | None = None) -> bool:
    """Tell whether an answer is that of the model of a name."""
    follower = host.products[name].runtime.follower
    assert follower.live is not None
    bias = float(list(host.products).index(name))
    expected = models.expected(bias, {**models.FEATURES, **(features or {})})
    return answer["digest"] == follower.live.model.digest and abs(answer["probability"] - expected) < 1e-6


def loads(host: Host) -> int:
    return sum(host.shelf.loads(name) for name in host.products)


def test_models_that_fit_are_never_loaded_again(hosted: Any) -> None:
    host = hosted(3, 3)

    async def scenario() -> list[Any]:
        return [(name, await call(host, f"/{name}/predict", models.row())) for name in [*host.products] * 3]

    for name, (status, answer) in play(host, scenario):
        assert status == 200
        assert right(name, host, answer)
    assert (loads(host), host.shelf.used) == (0, 3 * MEGABYTE)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), room=st.integers(1, 3))
def test_no_model_answers_for_another_while_some_are_dropped_and_loaded(
    seed: int, room: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "make_trial", untried)
        here = Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path_factory.mktemp("shelf"))})
        store = ArtifactStore(here.root)
        names = [f"tiny@{models.write_bundle(store, bias=float(number))}" for number in range(5)]
        host = make_host(here, names, room * MEGABYTE)
    chance = random.Random(seed)
    questions = [
        (chance.choice([*host.products]), float(chance.randrange(50)), chance.choice([1, 1, 16])) for _ in range(300)
    ]
    highest = 0

    async def one(name: str, wind: float, rows: int) -> tuple[str, float, int, Any]:
        nonlocal highest
        await asyncio.sleep(chance.random() * 0.2)
        row = models.row(features={"wind": wind})
        status, answer = await call(host, f"/{name}/predict", row if rows == 1 else [row] * rows)
        highest = max(highest, host.shelf.used)
        return name, wind, status, answer

    async def scenario() -> list[Any]:
        return await asyncio.gather(*(one(*item) for item in questions))

    answers = play(host, scenario)
    assert [status for _, _, status, _ in answers if status != 200] == []
    for name, wind, _, answer in answers:
        for row in answer if isinstance(answer, list) else [answer]:
            assert right(name, host, row, {"wind": wind})
    assert loads(host) >= 5 - room
    assert highest <= room * MEGABYTE


def test_the_least_recently_used_model_goes(hosted: Any) -> None:
    host = hosted(3, 2)
    first, second, third = host.products

    async def scenario() -> list[tuple[str, ...]]:
        steps = []
        for name in (first, second, first, third, first):
            await call(host, f"/{name}/predict", models.row())
            steps.append(tuple(place.name for place in host.shelf._places.values() if place.state == "in"))
        return steps

    steps = play(host, scenario)
    assert steps == [*steps[:1], (first, second), (second, first), (first, third), (third, first)]


def test_all_who_wait_for_a_model_wait_for_one_load(hosted: Any) -> None:
    host = hosted(2, 1)
    first, second = host.products

    async def scenario() -> list[Any]:
        await call(host, f"/{second}/predict", models.row())
        before = host.shelf.loads(first)
        answers = await asyncio.gather(*(call(host, f"/{first}/predict", models.row()) for _ in range(40)))
        assert host.shelf.loads(first) == before + 1
        return answers

    answers = play(host, scenario)
    assert all(status == 200 and right(first, host, answer) for status, answer in answers)
    assert [place.users for place in host.shelf._places.values()] == [0, 0]


def test_a_request_waits_for_a_load_as_long_as_a_request_may_take(hosted: Any) -> None:
    host = hosted(2, 1)
    first, second = host.products
    host.shelf._wait_s = 0.05
    goes_on = threading.Event()

    async def scenario() -> Any:
        await call(host, f"/{second}/predict", models.row())
        place = next(place for place in host.shelf._places.values() if place.name == first)
        again = place.again
        place.again = lambda: (goes_on.wait(30), again())[1]
        refused = await call(host, f"/{first}/predict", models.row())
        goes_on.set()
        while place.state != "in":
            await asyncio.sleep(0.01)
        return refused, place.users, place.waiting, await call(host, f"/{first}/predict", models.row())

    (status, answer), users, waiting, later = play(host, scenario)
    assert (status, answer["error"]) == (503, "the model was not loaded within 0.05 s; ask again.")
    assert (users, waiting, later[0]) == (0, 0, 200)


def test_a_damaged_bundle_is_not_loaded_again_and_the_others_answer(
    hosted: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = hosted(2, 1)
    first, second = host.products
    digest = host.products[first].runtime.follower._pinned
    manifest = ArtifactStore(str(tmp_path / "store")).bundle(digest).manifest
    graph = manifest["blobs"]["model.onnx"]["sha256"]

    async def scenario() -> Any:
        await call(host, f"/{second}/predict", models.row())
        path = next((tmp_path / "store").rglob(graph))
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"!")
        refused = await call(host, f"/{first}/predict", models.row())
        others = await call(host, f"/{second}/predict", models.row())
        path.write_bytes(whole)
        return refused, others, await call(host, f"/{first}/predict", models.row())

    (status, answer), others, repaired = play(host, scenario)
    assert (status, answer["error"]) == (503, "the model was dropped from memory and cannot be loaded again.")
    assert graph in caplog.text
    assert others[0] == repaired[0] == 200
    assert host.shelf.used == MEGABYTE


def test_a_new_release_is_swapped_in_within_the_same_memory(hosted: Any, tmp_path: Path) -> None:
    host = hosted(1, 1, is_followed=True)
    store = ArtifactStore(str(tmp_path / "store"))
    digests = [models.write_bundle(store, bias=float(number)) for number in range(3)]

    async def scenario() -> list[Any]:
        answers, end_s = [], time.monotonic() + 30
        for digest in digests[1:]:
            await asyncio.to_thread(models.release, str(tmp_path / "store"), digest)
            while time.monotonic() < end_s:
                answers.append(await call(host, "/tiny/predict", models.row()))
                if answers[-1][1].get("digest") == digest:
                    break
        return answers

    answers = play(host, scenario)
    assert {status for status, _ in answers} == {200}
    for _, answer in answers:
        assert answer["probability"] == pytest.approx(models.expected(float(digests.index(answer["digest"]))), abs=1e-6)
    assert answers[-1][1]["digest"] == digests[2]
    assert (host.shelf.used, len(host.shelf._places)) == (MEGABYTE, 1)


def test_a_model_above_the_limit_is_refused_by_name(hosted: Any) -> None:
    with pytest.raises(HostProblem, match=r"tiny@[0-9a-f]{64} cannot be served: .* takes 1.0 MB of memory"):
        hosted(1, 0.5)


def test_what_cannot_be_served_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "make_trial", untried)
    here = Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path)})
    digest = models.write_bundle(ArtifactStore(here.root))
    for names, message in (
        (["Tiny"], "'Tiny' is not a product, nor PRODUCT@DIGEST"),
        (["tiny@abc"], "'tiny@abc' is not a product, nor PRODUCT@DIGEST"),
        (["tiny"], f"tiny cannot be served: it has no release in the store at {here.root}"),
        ([f"other@{digest}"], f"{digest} is a model of 'tiny'"),
        ([f"tiny@{'0' * 64}"], "cannot be served: .*0000"),
        ([f"tiny@{digest}"] * 2, "is named twice"),
    ):
        with pytest.raises(HostProblem, match=message):
            make_host(here, names, MEGABYTE)


def test_a_start_goes_on_with_this_machines_copy_where_the_newest_release_cannot_be_served(
    hosted: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = hosted(1, 1, is_followed=True)
    digest = play(good, lambda: call(good, "/tiny/predict", models.row()))[1]["digest"]
    here = Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path)})
    models.release(here.root, models.write_bundle(ArtifactStore(here.root), document=models.contract(format=99)))
    again = make_host(here, ["tiny"], MEGABYTE)
    status, answer = play(again, lambda: call(again, "/tiny/predict", models.row()))
    assert (status, answer["digest"]) == (200, digest)
    assert "tiny: " in caplog.text


def test_pages_say_which_name_is_ready(hosted: Any) -> None:
    host = hosted(2, 2)

    async def scenario() -> Any:
        await call(host, f"/{first}/predict", models.row())
        return await call(host, "/nowhere"), await call(host, f"/{first}/openapi.json"), await call(host, "/readyz")

    first, second = host.products
    nowhere, described, ready = play(host, scenario)
    assert (nowhere[0], described[0]) == (404, 200)
    assert f"/{first}/" in nowhere[1]["error"]
    assert ready == (200, {"is_ready": True})
    pages = {path: page() for path, page in host.pages.items()}
    assert json.loads(pages["/readyz"].body)["names"] == {first: True, second: True}
    assert json.loads(pages[f"/{second}/readyz"].body)["source"] == "pinned"
    assert pages["/healthz"].status == 200
    assert f'driftline_model_loaded{{name="{first}"}} 1.0' in pages["/metrics"].body.decode()
    assert 'driftline_requests_total{release="none",status="200"} 1.0' in pages[f"/{first}/metrics"].body.decode()


def test_a_models_memory_is_measured(tmp_path: Path) -> None:
    """What the process that tried it measured is what this process takes for each further model."""
    store = ArtifactStore(str(tmp_path))
    sealed = [Sealed.read(store, models.write_bundle(store, bias=float(bias))) for bias in range(9)]
    trial = Trial(60, measures=True)
    trial(sealed[0])
    Model.from_blobs(sealed[0]).warm()
    gc.collect()
    before = allocated()
    loaded = [Model.from_blobs(item) for item in sealed[1:]]
    for model in loaded:
        model.warm()
    after = allocated()
    assert before is not None and after is not None
    assert trial.size(sealed[0].digest) == pytest.approx((after - before) / len(loaded), rel=0.1)
