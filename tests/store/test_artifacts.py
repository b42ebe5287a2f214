import gzip
import hashlib
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.base import naming
from platform_assets.store import objects
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore, canonical, sha256
from platform_assets.store.objects import open_store

ON_A_FOLDER = pytest.mark.parametrize("root", ["folder"], indirect=True)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def exists(root: str, digest: str) -> bool:
    return objects.exists(open_store(root), naming.blob_path(digest))


@settings(max_examples=25)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert canonical(value) == canonical(dict(reversed(value.items())))


def test_canonical_json_is_frozen() -> None:
    assert canonical({"b": [1, 0.5, None], "a": "ä"}) == '{"a":"ä","b":[1,0.5,null]}'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"loss": float("nan")})


def test_a_blob_is_named_by_its_sha256_and_read_back(root: str) -> None:
    store = ArtifactStore(root)
    digest = store.put(b"weights")
    assert digest == hashlib.sha256(b"weights").hexdigest()
    assert store.get(digest) == b"weights"
    assert exists(root, digest)
    assert bytes(open_store(root).get(naming.blob_path(digest)).bytes()) == b"weights"


@ON_A_FOLDER
def test_putting_a_blob_twice_leaves_the_first_untouched(root: str) -> None:
    store = ArtifactStore(root)
    digest = store.put(b"weights")
    path = Path(root, naming.blob_path(digest))
    before = path.stat()
    assert store.put(b"weights") == digest
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_text_is_stored_compressed_and_found_by_its_sha256(root: str) -> None:
    store, text = ArtifactStore(root), b"station,temperature\n" * 100
    digest = store.put(text, compressed=True)
    assert digest == sha256(text) == store.put(text, compressed=True)
    assert store.get(digest) == store.get(digest, compressed=True) == text
    stored = bytes(open_store(root).get(naming.blob_path(digest) + ".gz").bytes())
    assert gzip.decompress(stored) == text
    assert len(stored) < len(text) / 10
    assert not exists(root, digest)


def test_incompressible_text_is_stored_uncompressed(root: str) -> None:
    store = ArtifactStore(root)
    digest = store.put(b"\x00\xff", compressed=True)
    assert exists(root, digest)
    assert store.get(digest, compressed=True) == b"\x00\xff"


HARM = {"empty": b"", "text": b"no gzip", "other": gzip.compress(b"other"), "cut": gzip.compress(b"text " * 9)[:-9]}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_damaged_compressed_blob_is_refused_and_repaired(root: str, harm: bytes) -> None:
    store, text = ArtifactStore(root), b"text " * 9
    digest = store.put(text, compressed=True)
    open_store(root).put(naming.blob_path(digest) + ".gz", harm)
    for compressed in (False, True):
        with pytest.raises(ArtifactProblem, match=rf"blob {digest} was changed: .*\.gz holds"):
            store.get(digest, compressed=compressed)
    store.put(text, compressed=True)
    assert store.get(digest) == text


def test_a_missing_blob_is_named(root: str) -> None:
    store = ArtifactStore(root)
    assert not exists(root, sha256(b"never"))
    with pytest.raises(ArtifactProblem, match=f"blob {sha256(b'never')} is missing"):
        store.get(sha256(b"never"))


@pytest.mark.parametrize("harm", [b"", b"weight", b"weightz", b"weights and more"])
def test_a_changed_blob_is_refused(root: str, harm: bytes) -> None:
    store = ArtifactStore(root)
    digest = store.put(b"weights")
    open_store(root).put(naming.blob_path(digest), harm)
    with pytest.raises(ArtifactProblem, match=f"blob {digest} was changed"):
        store.get(digest)


def test_a_bundle_names_its_blobs_and_its_digest_is_that_of_its_manifest(root: str) -> None:
    store = ArtifactStore(root)
    digest = store.write_bundle({"model.onnx": b"graph", "config.json": b"{}"}, {"product": "tiny", "cutoff": "0009"})
    bundle = store.bundle(digest)
    assert bundle.names == ("config.json", "model.onnx")
    assert bundle.read("model.onnx") == b"graph"
    assert bundle.manifest == {
        "format": 1,
        "product": "tiny",
        "cutoff": "0009",
        "blobs": {
            "model.onnx": {"sha256": sha256(b"graph"), "bytes": 5},
            "config.json": {"sha256": sha256(b"{}"), "bytes": 2},
        },
    }
    assert digest == sha256(canonical(bundle.manifest))


def test_a_bundles_digest_does_not_depend_on_its_location(tmp_path: Path) -> None:
    facts = {"cutoff": "0009", "product": "tiny"}
    one = ArtifactStore(str(tmp_path / "a")).write_bundle({"x": b"1", "y": b"2"}, facts)
    other = ArtifactStore(f"file://{tmp_path}/b").write_bundle({"y": b"2", "x": b"1"}, dict(reversed(facts.items())))
    assert one == other


def test_an_invalid_bundle_or_a_missing_blob_is_an_error(root: str) -> None:
    store = ArtifactStore(root)
    with pytest.raises(ArtifactProblem, match="is not a bundle: it is not JSON"):
        store.bundle(store.put(b"\xff"))
    with pytest.raises(ArtifactProblem, match="is not a bundle of format 1"):
        store.bundle(store.put_json({"format": 2, "blobs": {}}))
    digest = store.write_bundle({"x": b"1"}, {})
    with pytest.raises(ArtifactProblem, match=r"has no blob 'y'; it has \['x'\]"):
        store.bundle(digest).read("y")
    with pytest.raises(ValueError, match="'blobs'"):
        store.write_bundle({}, {"blobs": 1})


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_killed_while_sealing_leaves_no_manifest_without_its_blobs(root: str, spawn: Any, when: str) -> None:
    child = spawn(do="put", turns=3, size=4, kill={"call": "put", "when": when, "number": 2})
    output, _ = child.communicate("go\n")
    assert child.returncode == -signal.SIGKILL
    store = ArtifactStore(root)
    digests = [sha256(turn.to_bytes(4, "big") * 4) for turn in range(3)]
    assert output.split() == ["ready", digests[0]]
    assert [exists(root, digest) for digest in digests] == [True, when == "after", False]
    assert store.put((1).to_bytes(4, "big") * 4) == digests[1]
    assert store.get(digests[1]) == (1).to_bytes(4, "big") * 4


def test_a_process_killed_during_a_write_leaves_only_complete_blobs(root: str, spawn: Any) -> None:
    child = spawn(do="put", turns=1000, size=500_000)
    child.stdin.write("go\n")
    child.stdin.flush()
    for _ in range(4):
        child.stdout.readline()
    child.kill()
    child.wait()
    store = ArtifactStore(root)
    turns = [turn for turn in range(10) if exists(root, sha256(turn.to_bytes(4, "big") * 500_000))]
    assert turns[:3] == [0, 1, 2]
    for turn in turns:
        store.get(sha256(turn.to_bytes(4, "big") * 500_000))


def test_a_full_disk_is_reported_and_the_next_write_succeeds(small_disk: Any) -> None:
    root, leave = small_disk
    store = ArtifactStore(root)
    kept_digest = store.put(b"kept")
    big = bytes(range(256)) * 1024
    with (
        leave(16_384),
        pytest.raises(ArtifactProblem, match=rf"blob {sha256(big)} \(262144 bytes\) could not be written"),
    ):
        store.put(big)
    assert store.get(kept_digest) == b"kept"
    assert not exists(root, sha256(big))
    assert store.get(store.put(big)) == big
