"""A Bento travels through the store: its files come out of a fetch as they went in, or it names what is wrong."""

import os
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base import naming
from platform_assets.base.settings import REPOSITORY
from platform_assets.serving.run import build, child, fetch
from platform_assets.serving.run.build import BuildProblem, Built
from platform_assets.store import objects
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore
from tests.doubles.faulty_s3 import in_front_of

pytestmark = pytest.mark.slow

BENTO_YAML = "service: a\ncreation_time: '2026-11-27T08:44:14.204548+00:00'\nspec: 2\n"
FILES = {
    "bento.yaml": BENTO_YAML,
    "README.md": "built just now",
    "src/a/b.py": "b = 1\n",
    "env/docker/run.sh": "#!/bin/sh\n",
}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def bento(folder: Path, **changes: str) -> Built:
    for name, text in {**FILES, **changes}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "env/docker/run.sh").chmod(0o755)
    return Built("tiny:1", folder, "0" * 64, was_built=True)


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_files_come_out_as_they_went_in(store: ArtifactStore, tmp_path: Path) -> None:
    digest = build.stored(store, bento(tmp_path / "built"))
    assert fetch.fetch(store, digest, tmp_path / "fetched") == 3
    expected = {name: text for name, text in FILES.items() if name != "README.md"}
    expected["bento.yaml"] = BENTO_YAML.replace("2026-11-27T08:44:14.204548", "1970-01-01T00:00:00")
    assert contents(tmp_path / "fetched") == expected
    assert os.access(tmp_path / "fetched/env/docker/run.sh", os.X_OK)
    assert not os.access(tmp_path / "fetched/src/a/b.py", os.X_OK)


def test_two_builds_of_one_content_have_one_digest(store: ArtifactStore, tmp_path: Path) -> None:
    later = BENTO_YAML.replace("08:44", "09:55")
    first = build.stored(store, bento(tmp_path / "first"))
    assert build.stored(store, bento(tmp_path / "second", **{"bento.yaml": later, "README.md": "later"})) == first
    assert build.stored(store, bento(tmp_path / "third", **{"src/a/b.py": "b = 2\n"})) != first


def test_a_bento_without_a_creation_time_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(BuildProblem, match=r"bento\.yaml states 0 creation times; expected one"):
        build.stored(store, bento(tmp_path / "built", **{"bento.yaml": "spec: 2\n"}))


def test_a_folder_is_emptied_before_it_is_filled(store: ArtifactStore, tmp_path: Path) -> None:
    digest, folder = build.stored(store, bento(tmp_path / "built")), tmp_path / "fetched"
    (folder / ".fetching-killed/src").mkdir(parents=True)
    (folder / "leftover.py").write_text("")
    fetch.fetch(store, digest, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["bento.yaml", "env", "src"]


def test_a_changed_file_is_refused_and_none_appears(store: ArtifactStore, tmp_path: Path) -> None:
    digest, folder = build.stored(store, bento(tmp_path / "built")), tmp_path / "fetched"
    blob = store.bundle(digest).manifest["blobs"]["src/a/b.py"]["sha256"]
    (Path(store.root) / naming.blob_path(blob)).write_text("b = 3\n")
    with pytest.raises(ArtifactProblem, match=f"blob {blob} was changed"):
        fetch.fetch(store, digest, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "a//b"])
def test_a_path_that_leads_out_of_the_folder_is_refused(store: ArtifactStore, tmp_path: Path, name: str) -> None:
    digest = store.write_bundle({name: b"x"}, {"kind": fetch.KIND, fetch.EXECUTABLE: []})
    with pytest.raises(fetch.FetchProblem, match="expected a path within the Bento's folder"):
        fetch.fetch(store, digest, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize(
    ("digest", "message"),
    [
        ("0" * 64, "is missing"),
        ("latest", "is not a blob's name; expected a sha256"),
        (None, "is not a Bento but a bundle of kind None; expected the digest that `driftline manifests` prints"),
    ],
)
def test_the_command_names_what_it_cannot_fetch(
    store: ArtifactStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    digest: Any,
    message: str,
) -> None:
    monkeypatch.setenv("DRIFTLINE_ROOT", store.root)
    other = store.write_bundle({"model.onnx": b"x"}, {"product": "tiny"})
    assert fetch.main([digest or other, str(tmp_path / "fetched")]) == 1
    assert message in capsys.readouterr().err


def test_the_command_prints_what_it_fetched(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFTLINE_ROOT", store.root)
    digest = build.stored(store, bento(tmp_path / "built"))
    assert fetch.main([digest, str(tmp_path / "fetched")]) == 0
    assert capsys.readouterr().out == f"Bento {digest}: 3 files in {tmp_path}/fetched, each verified.\n"


def test_a_store_that_is_not_there_is_named_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFTLINE_ROOT", str(tmp_path / "absent"))
    assert fetch.main(["0" * 64, str(tmp_path / "fetched")]) == 1
    assert f"no store exists at {tmp_path}/absent; check DRIFTLINE_ROOT" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# In a pod -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_a_pod(s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of an init container, and the root of its store."""
    monkeypatch.setenv("DRIFTLINE_ENV", "cluster")
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DRIFTLINE_ROOT", s3_root)
    return s3_root


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"DRIFTLINE_ROOT": "s3://driftline-absent/store"},
            "the bucket s3://driftline-absent does not exist; create it, or fix its name or AWS_ENDPOINT_URL",
        ),
        ({}, f"blob {'0' * 64} is missing: s3://"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "refuses our key ("),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no key for s3://"),
    ],
    ids=["no such bucket", "another store", "keys that are refused", "no secret"],
)
def test_a_store_that_cannot_be_ours_is_named_with_where_it_is_set(
    in_a_pod: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str | None],
    sentence: str,
) -> None:
    monkeypatch.setattr(fetch, "PATIENCE", timedelta(seconds=1))
    for name, value in variables.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    assert fetch.main(["0" * 64, str(tmp_path / "fetched")]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1, "one line, which Kubernetes shows as the container's last words"
    assert sentence in message
    assert f"The store is {variables.get('DRIFTLINE_ROOT', in_a_pod)} at http://127.0.0.1:" in message
    assert "as the config map `driftline` says (DRIFTLINE_ROOT, AWS_ENDPOINT_URL), its keys in the secret" in message


def test_the_command_ends_when_its_pod_is_deleted_while_the_store_hangs(tmp_path: Path) -> None:
    """It handles SIGTERM, which the first process of a container would not get otherwise."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        variables = {
            "DRIFTLINE_ROOT": "s3://bucket/store",
            "DRIFTLINE_STATE": str(tmp_path),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{hanging.getsockname()[1]}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
        }
        command = [sys.executable, "-m", "platform_assets.serving.run.fetch", "0" * 64, str(tmp_path / "fetched")]
        environment = {"PATH": os.environ["PATH"], **variables}
        with subprocess.Popen(command, cwd=REPOSITORY, env=environment) as process, hanging.accept()[0]:
            process.terminate()
            assert process.wait(60) == 128 + signal.SIGTERM


def test_a_store_that_is_away_is_waited_for_and_named_meanwhile(
    in_a_pod: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = build.stored(ArtifactStore(in_a_pod), bento(tmp_path / "built"))
    command = [sys.executable, "-m", "platform_assets.serving.run.fetch", digest, str(tmp_path / "fetched")]
    with in_front_of(os.environ["AWS_ENDPOINT_URL"]) as faults:
        faults.is_away, environment = True, {**os.environ, "AWS_ENDPOINT_URL": faults.endpoint}
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        sentence = process.stderr.readline()  # after the client's own patience
        begins = f"fetch: Bento {digest} cannot be fetched: the store at {in_a_pod} cannot be read: "
        assert sentence.startswith(begins) and sentence.endswith(". Waiting for the store, 300 s at most.\n")
        faults.is_away = False
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert (tmp_path / "fetched" / "bento.yaml").exists()


def test_the_wait_for_a_store_has_a_bound(
    in_a_pod: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{child.free_port()}")
    monkeypatch.setattr(fetch, "PATIENCE", timedelta(seconds=0.1))
    monkeypatch.setattr(fetch, "PAUSE_S", 0.1)
    monkeypatch.setattr(fetch, "WAIT_S", 1.0)
    assert fetch.main(["0" * 64, str(tmp_path / "fetched")]) == 1
    waiting, last = capsys.readouterr().err.splitlines()
    assert "Waiting for the store, 1 s at most." in waiting
    assert "cannot be read" in last and "Waiting" not in last and "The store is s3://" in last


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
