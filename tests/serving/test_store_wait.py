"""A store that is away is waited for, for a bounded time, and `/readyz` says so; anything else ends at once."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from platform_assets.base.settings import Settings
from platform_assets.serving.follow import local_copy, store_wait
from platform_assets.serving.follow.store_wait import StoreAway
from platform_assets.serving.run import host
from platform_assets.serving.run.listening import bound
from platform_assets.store import objects


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_wait, "PAUSE_S", 0.05)


def test_it_says_so_once_and_returns_when_the_store_is_back() -> None:
    said: list[str] = []
    pages: list[tuple[int, object]] = []
    with bound("127.0.0.1", 0) as probes:
        address = f"http://127.0.0.1:{probes.getsockname()[1]}/readyz"

        def attempt() -> str:
            if said:
                with pytest.raises(urllib.error.HTTPError) as answer:
                    urllib.request.urlopen(address, timeout=30)
                with answer.value as page:
                    pages.append((page.code, json.loads(page.read())))
            if len(pages) < 2:
                raise StoreAway("the store is away.")
            return "back"

        assert store_wait.wait(attempt, said.append, probes, 60) == "back"
        assert probes.fileno() >= 0, "the server goes on with this socket"
        assert isinstance(probes, socket.socket)
    assert said == ["the store is away. Waiting for the store, 60 s at most."]
    assert pages == [(503, {"is_ready": False, "problem": said[0]})] * 2


def test_the_wait_ends() -> None:
    def attempt() -> None:
        raise StoreAway("the store is away.")

    with pytest.raises(StoreAway, match=r"^the store is away\.$"):
        store_wait.wait(attempt, lambda _: None, None, 0.2)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("HTTP error: error sending request", True),
        ("Server returned non-2xx status code: 503 Service Unavailable", True),
        ("Server returned non-2xx status code: 403 Forbidden: <Code>SlowDown</Code>", False),
        ("<Code>NoSuchBucket</Code>", False),
        ("HTTP error: builder error", False),
        ("Error performing PUT http://169.254.169.254/latest/api/token", False),
    ],
)
def test_only_what_may_pass_is_waited_for(error: str, expected: bool) -> None:
    assert objects.may_pass("s3://bucket/store", OSError(error)) is expected
    assert not objects.may_pass("/a/folder", OSError(error))


def test_a_host_with_copies_of_all_its_models_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def reach(root: str, _digest: str) -> None:
        asked.append(root)
        if len(asked) < 3:
            raise StoreAway("the store is away.")

    monkeypatch.setattr(store_wait, "reach", reach)
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path), "DRIFTLINE_ROOT": "s3://bucket/store"})
    for name in ("first", "second"):
        (settings.serving_kept / name).mkdir(parents=True)
        (settings.serving_kept / name / local_copy.NAME).write_text("{}")
    host._wait_for_store(settings, ["first", "second"], None)
    assert asked == []
    host._wait_for_store(settings, ["first", "third"], None)
    assert asked == ["s3://bucket/store"] * 3
