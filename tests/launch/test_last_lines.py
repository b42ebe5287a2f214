"""What the processes of a node wrote last is stored next to the attempt's messages, and no file grows meanwhile."""

import subprocess
import sys
from pathlib import Path

import msgspec
import obstore
import pytest
from dagster_pipes import encode_param

from platform_assets.launch.last_lines import MOST, ForwardedLogs, NodeEnd, store
from platform_assets.store.objects import open_store

pytestmark = pytest.mark.slow

END = NodeEnd(node=1, exit_code=76, said=["node 0 of 2 is gone"], last_lines={2: ["one"], 3: []})


def in_pipes(monkeypatch: pytest.MonkeyPatch, params: dict[str, str]) -> None:
    monkeypatch.setenv("DAGSTER_PIPES_CONTEXT", encode_param({}))
    monkeypatch.setenv("DAGSTER_PIPES_MESSAGES", encode_param(params))


def test_lines_are_forwarded_whole_and_the_last_ones_kept(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]):
    logs = ForwardedLogs(str(tmp_path))
    paths = logs.reify({0: {}, 1: {}})
    program = "import sys\nfor n in range(3000):\n print('line', n, 'x' * 90)\nsys.stderr.write('last \\udcff')"
    with Path(paths.stdouts[0]).open("w") as out, Path(paths.stderrs[0]).open("w") as err:
        subprocess.run([sys.executable, "-c", program], stdout=out, stderr=err, check=True)
    logs.close()
    lines = [f"line {number} {'x' * 90}" for number in range(3000)]
    assert capfdbinary.readouterr().out.decode().splitlines() == [*lines, "last \\udcff"]
    assert list(logs.last_lines[0]) == [*lines, "last \\udcff"][-MOST:]
    assert list(logs.last_lines[1]) == []


def test_the_end_of_a_node_is_stored_next_to_the_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pipes(monkeypatch, {"path": str(tmp_path / "messages")})
    store(END, patience_s=60.0)
    assert msgspec.json.decode((tmp_path / "node-1.json").read_bytes(), type=NodeEnd) == END


def test_the_end_of_a_node_is_stored_in_a_bucket(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")
    prefix = f"{prefix}/pipes/a".lstrip("/")
    in_pipes(monkeypatch, {"bucket": bucket, "key_prefix": prefix})
    store(END, patience_s=60.0)
    data = bytes(obstore.get(open_store(f"s3://{bucket}"), f"{prefix}/node-1.json").bytes())
    assert msgspec.json.decode(data, type=NodeEnd) == END


def test_a_store_that_fails_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    in_pipes(monkeypatch, {"path": str(tmp_path / "file" / "messages")})
    store(END, patience_s=60.0)
    assert f"The last lines of node 1 were not stored in {tmp_path / 'file'}: the folder" in capsys.readouterr().err


def test_a_process_without_a_session_stores_nothing(tmp_path: Path) -> None:
    store(END, patience_s=60.0)
    assert list(tmp_path.iterdir()) == []
