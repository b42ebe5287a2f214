"""The log of a process reaches the store: by size, by time, at the end, and after the process was killed."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base.settings import REPOSITORY
from platform_assets.serving.answer import slices_of_work
from platform_assets.serving.log import outbox, sender, shipping
from platform_assets.serving.log.disk_room import DiskRoom
from platform_assets.serving.log.prediction_log import LogProblem, PredictionLog
from platform_assets.serving.log.sender import NameTaken, Sender, StoreAway
from platform_assets.serving.log.shipping import Shipper, Terms
from platform_assets.store import objects
from tests.doubles import models, received
from tests.volume import WHOLE

pytestmark = pytest.mark.slow

PRODUCT = "tiny"
LONG_S = 3600.0


class Process:
    """A process's log and shipper; `start` makes another one in the same folder."""

    def __init__(self, folder: Path, root: Path | str) -> None:
        self.folder, self.root = folder, str(root)
        if isinstance(root, Path):
            root.mkdir(exist_ok=True)
        self.now = datetime(2026, 11, 27, tzinfo=UTC)
        self.start()

    def start(
        self, file_bytes_max: int = 1000, every_s: float = 0.0, server: str | None = None, **changes: Any
    ) -> Shipper:
        terms = {
            "every_s": every_s,
            "bytes_max": 40,
            "heartbeat_s": LONG_S,
            "clock_limit_s": 30.0,
            "goodbye_s": LONG_S,
            **changes,
        }
        self.log = PredictionLog(self.folder, file_bytes_max, server)
        self.shipper = Shipper(
            self.log,
            Sender(self.root, PRODUCT, 60.0),
            DiskRoom(self.folder, 10_000_000, 0.8),
            Terms(**terms),
            answered_before=lambda: self.now,
            release=lambda: 7,
        )
        return self.shipper

    def die(self) -> None:
        """Leave everything as a killed process does: only its locks are gone."""
        os.close(self.shipper._own._lock)

    def segments(self) -> list[Any]:
        return received.read(self.root, PRODUCT)

    def kinds(self) -> list[str]:
        """Return the kinds of all segments; their order holds only for one sender, as each measures the clock."""
        return received.kinds(self.root, PRODUCT)

    def kinds_of(self, shipper: Shipper) -> list[str]:
        process = shipper._own.process
        return [segment.header.kind for segment in self.segments() if segment.header.process == process]

    def lines(self) -> list[bytes]:
        return received.lines(self.root, PRODUCT)

    def files(self, suffix: str = "") -> list[str]:
        return sorted(path.name for path in self.folder.glob(f"*{suffix}"))


@dataclass
class Monotonic:
    """The monotonic clock of outboxes and shippers, which stands still until a test moves it.

    Attributes:
        now_s: what it shows.
    """

    now_s: float

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    clock = Monotonic(time.monotonic())
    for module in (outbox, shipping):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path / "log" / PRODUCT, tmp_path / "store")


def _away(*_: object) -> None:
    raise StoreAway("it is away")


def line(number: int) -> bytes:
    return json.dumps({"prediction_id": f"{number:06d}"}).encode() + b"\n"


def test_a_process_says_hello_before_anything_else(process: Process) -> None:
    process.log.append(line(0))
    process.shipper.look()
    hello, answers = process.segments()
    assert (hello.header.kind, hello.header.stream, hello.body) == ("hello", "none", b"")
    assert (answers.header.kind, answers.body, answers.header.release) == ("answers", line(0), 7)
    assert answers.header.process == hello.header.process == process.shipper._own.process
    assert answers.header.stream == process.log.streams[0].name
    assert process.shipper.problem is None


def test_answers_wait_until_they_are_due_by_time_or_size(process: Process) -> None:
    shipper = process.start(every_s=LONG_S)
    shipper.look()
    process.log.append(line(0))
    shipper.look()
    assert process.kinds() == ["hello"]
    assert shipper.figures.unshipped_bytes == len(line(0))
    process.log.append(line(1))
    shipper.look()
    assert process.kinds() == ["hello", "answers", "answers"], "56 bytes are due by size, in parts of at most 40"
    assert process.lines() == [line(0), line(1)]
    assert (shipper.figures.unshipped_bytes, shipper.figures.unshipped_s) == (0, 0.0)


def test_an_answer_that_has_waited_is_due(process: Process, monotonic: Monotonic) -> None:
    shipper = process.start(every_s=0.2)
    shipper.look()
    process.log.append(line(0))
    shipper.look()
    assert process.kinds() == ["hello"]
    monotonic.now_s += 0.3
    assert shipper.figures.unshipped_s == pytest.approx(0.3)
    shipper.look()
    assert process.lines() == [line(0)]


def test_a_line_longer_than_a_segment_is_sent_whole(process: Process) -> None:
    long = line(0)[:-1] + b" " * 100 + b"\n"
    for record in (line(1), long, line(2)):
        process.log.append(record)
    process.shipper.look()
    assert [segment.body for segment in process.segments()[1:]] == [line(1), long, line(2)]


def test_bytes_that_the_log_has_not_acknowledged_are_not_sent(process: Process) -> None:
    """A full disk leaves a half-written request in the file for a moment; then it is cut off."""
    process.log.append(line(0))
    path = process.log.streams[0].path
    path.write_bytes(path.read_bytes() + line(1) + b"half")
    process.shipper.look()
    assert process.lines() == [line(0)]


def test_only_the_segment_that_reaches_the_end_covers_the_present(process: Process) -> None:
    start = process.now
    for number in range(3):
        process.log.append(line(number))
    process.now += timedelta(seconds=5)
    process.shipper.look()
    assert [segment.header.covers_until_utc for segment in process.segments()] == [start, start, start, process.now]


def test_an_idle_process_sends_heartbeats_that_cover_the_present(process: Process, monotonic: Monotonic) -> None:
    shipper = process.start(heartbeat_s=0.1)
    shipper.look()
    shipper.look()
    assert process.kinds() == ["hello"]
    process.now += timedelta(seconds=60)
    monotonic.now_s += 0.15
    shipper.look()
    shipper.look()
    *_, heartbeat = process.segments()
    assert process.kinds() == ["hello", "heartbeat"]
    assert (heartbeat.header.covers_until_utc, heartbeat.header.rows) == (process.now, 0)


def test_a_heartbeat_that_is_due_brings_answers_that_are_not(process: Process, monotonic: Monotonic) -> None:
    shipper = process.start(every_s=LONG_S, heartbeat_s=0.1)
    shipper.look()
    process.log.append(line(0))
    monotonic.now_s += 0.15
    shipper.look()
    assert process.kinds() == ["hello", "answers"]


def test_the_last_segment_is_a_goodbye_with_the_rest(process: Process) -> None:
    shipper = process.start(every_s=LONG_S)
    shipper.look()
    process.log.append(line(0))
    process.log.close()
    process.now += timedelta(seconds=60)
    shipper.close()
    goodbye = process.segments()[-1]
    assert (goodbye.header.kind, goodbye.body, goodbye.header.is_last_of_stream) == ("goodbye", line(0), True)
    assert goodbye.header.covers_until_utc == process.now
    assert process.files() == []
    shipper.look()
    assert process.kinds() == ["hello", "goodbye"], "nothing follows a goodbye"


def test_a_goodbye_needs_neither_answers_nor_an_earlier_look(process: Process) -> None:
    process.log.close()
    process.shipper.close()
    assert process.kinds() == ["hello", "goodbye"]
    assert process.files() == []


def test_full_files_are_removed_when_all_of_them_is_in_the_store(process: Process) -> None:
    process.start(file_bytes_max=60)
    for number in range(10):
        process.log.append(line(number))
    assert len(process.files(".jsonl")) == 4
    process.shipper.look()
    assert process.files(".jsonl") == [process.log.streams[-1].path.name]
    assert process.lines() == [line(number) for number in range(10)]
    ended = [segment.header.stream for segment in process.segments() if segment.header.is_last_of_stream]
    assert len(ended) == 3


# A process that was killed --------------------------------------------------------------------------------------------


def test_what_a_killed_process_left_is_shipped_with_its_goodbye(process: Process) -> None:
    process.start(file_bytes_max=60).look()
    for number in range(5):
        process.log.append(line(number))
    path = process.log.streams[-1].path
    path.write_bytes(path.read_bytes() + b'{"prediction_id":"not ans')
    killed = process.shipper
    process.die()
    process.start().look()
    assert process.lines() == [line(number) for number in range(5)]
    kinds = process.kinds_of(killed)
    kinds.remove("hello")  # the killed process sent it, by its own measure of the clock
    assert kinds == [*["answers"] * 5, "goodbye"]
    assert process.files() == [f"{process.shipper._own.process}.process"]


def test_a_process_next_to_a_killed_one_ships_what_it_left_at_its_next_look(process: Process) -> None:
    """The bound on the age of an answer holds for it too, however long its successor takes to start."""
    process.start(every_s=LONG_S).look()
    process.log.append(line(0))
    killed, sibling = process.shipper, process.start()
    sibling.look()
    assert process.lines() == []
    os.close(killed._own._lock)
    sibling.look()
    assert process.lines() == [line(0)]


def test_the_rest_of_a_living_process_is_left_alone(process: Process) -> None:
    process.start(every_s=LONG_S).look()
    process.log.append(line(0))
    living, log = process.shipper, process.log
    other = process.start()
    other.look()
    assert process.kinds() == ["hello", "hello"]
    log.close()
    living.close()
    assert process.kinds_of(living) == ["hello", "goodbye"]
    assert process.kinds_of(other) == ["hello"]


def test_streams_without_a_processs_file_are_shipped(process: Process) -> None:
    process.folder.mkdir(parents=True)
    (process.folder / "1795773500000000000-17-00000017.jsonl").write_bytes(line(0) + line(1))
    process.shipper.look()
    assert process.lines() == [line(0), line(1)]
    assert {segment.header.process.split("-", 1)[1] for segment in process.segments() if segment.body} == {
        "17-00000017"
    }
    assert process.files(".jsonl") == []


def test_what_a_process_left_that_was_killed_while_it_wrote_a_note_is_removed(process: Process) -> None:
    process.shipper.look()
    process.log.append(line(0))
    (stream,) = process.log.streams
    for path in (stream.path, stream.path.with_stem("1795773500000000000-17-00000017")):
        path.with_suffix(".shipping#17").write_bytes(b"{")
    process.die()
    process.start().look()
    assert process.lines() == [line(0)]
    assert process.files() == [f"{process.shipper._own.process}.process"]


def test_what_another_process_has_shipped_since_it_was_listed_is_not_taken_over(process: Process) -> None:
    process.folder.mkdir(parents=True)
    for number in (17, 18):
        (process.folder / f"1795773500000000000-{number}-{number:08}.jsonl").write_bytes(line(number))
    boxes = outbox.left_behind(process.folder)
    first = next(boxes)
    for path in process.folder.glob("*-18-*"):
        path.unlink()
    assert [box.process for box in boxes] == []
    first.close()
    assert process.files(".process") == []


def test_a_process_that_waited_for_the_store_is_aged_by_its_file(process: Process) -> None:
    process.folder.mkdir(parents=True)
    began = time.time_ns() - 90 * 10**9
    (process.folder / f"{began}-17-00000017.jsonl").write_bytes(line(0))
    process.shipper._sender._root = str(process.folder / "missing")
    process.shipper.look()
    process.shipper._adopted += outbox.left_behind(process.folder)
    assert 90 <= process.shipper.figures.unshipped_s < 3600


@pytest.mark.parametrize("is_sent", [True, False])
def test_a_segment_under_way_is_sent_again_under_its_name(
    process: Process, monkeypatch: pytest.MonkeyPatch, is_sent: bool
) -> None:
    """Killed between the note and the store's answer: the store has the segment or not."""
    process.shipper.look()
    process.log.append(line(0))
    names: list[str] = []

    def killed(self: Sender, name: Any, data: bytes) -> None:
        names.append(name.path)
        if is_sent:
            objects.create(objects.open_store(process.root), name.path, data)
        raise sender.StoreAway("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(Sender, "send", killed)
        process.shipper.look()
    process.log.append(line(1))
    process.die()
    process.start().look()
    assert process.lines() == [line(0), line(1)]
    assert names[0] in [segment.name.path for segment in process.segments()]


def test_a_name_that_got_too_old_is_not_used_any_more(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    process.shipper.look()
    process.log.append(line(0))
    names: list[Any] = []

    def away(self: Sender, name: Any, data: bytes) -> None:
        names.append(name)
        raise sender.StoreAway("away")

    with monkeypatch.context() as patch:
        patch.setattr(Sender, "send", away)
        process.shipper.look()
        process.shipper.look()
    assert names[0] == names[1]
    monkeypatch.setattr(sender, "REPEAT_S", -1.0)
    process.shipper.look()
    (answers,) = process.segments()[1:]
    assert answers.name.shipped_ms > names[0].shipped_ms
    assert process.lines() == [line(0)]


# Problems ------------------------------------------------------------------------------------------------------------


def test_a_store_that_is_away_is_named_and_everything_arrives_later(process: Process, tmp_path: Path) -> None:
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    start = process.now
    for number in range(3):
        process.log.append(line(number))
        process.now += timedelta(seconds=1)
        process.shipper.look()
    assert f"answers are not shipped: {tmp_path / 'store'} cannot be used: the folder does not exist" in str(
        process.shipper.problem
    )
    assert process.shipper.figures.unshipped_bytes == 3 * len(line(0))
    assert not (tmp_path / "store").exists(), "a service creates no store"
    (tmp_path / "elsewhere").rename(tmp_path / "store")
    process.shipper.look()
    assert process.shipper.problem is None
    assert process.lines() == [line(number) for number in range(3)]
    assert process.segments()[0].header.covers_until_utc == start


def test_two_processes_with_one_name_are_named_and_both_arrive(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their random marks, times and process ids are equal, as in a copied virtual machine."""
    monkeypatch.setattr(sender, "time", lambda: 1_795_773_600.0)
    monkeypatch.setattr(Sender, "measure", lambda self, path=None: setattr(self, "offset_s", 0.0))
    process.log.append(line(0))
    process.shipper.look()
    first, stream = process.shipper, process.log.streams[0]
    other = Process(process.folder.parent / "other", Path(process.root))
    other.log.mark = process.log.mark
    other.shipper._own.process = first._own.process
    other.log.append(line(1))
    other.log.streams[0].path = other.log.streams[0].path.rename(other.folder / stream.path.name)
    other.shipper.look()
    assert "exists with other content: another process has our name" in str(other.shipper.problem)
    assert "They are shipped again under another name." in str(other.shipper.problem)
    other.shipper.look()
    assert other.shipper.problem is None
    other.log.append(line(2))
    other.shipper.look()
    assert sorted(process.lines()) == [line(0), line(1), line(2)]
    assert len({segment.header.process for segment in process.segments()}) == 2
    assert len({segment.header.stream for segment in process.segments() if segment.body}) == 2


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b"x" * path.stat().st_size)], ids=["removed", "overwritten"]
)
def test_a_file_damaged_before_it_was_shipped_is_named(process: Process, damage: Callable[[Path], None]) -> None:
    process.log.append(line(0))
    damage(process.log.streams[0].path)
    process.shipper.look()
    assert "was removed or changed before bytes 0 to 28 of it were shipped; they are lost" in str(
        process.shipper.problem
    )
    process.log.append(line(1))
    process.shipper.look()
    assert process.shipper.problem is None
    assert process.lines() == [line(1)]


def test_a_folder_that_cannot_be_written_is_named(process: Process) -> None:
    process.folder.parent.mkdir(parents=True)
    process.folder.write_bytes(b"a file")
    process.shipper.look()
    assert f"answers are not shipped: {process.folder} cannot be used: File exists" in str(process.shipper.problem)


def test_a_full_disk_does_not_stop_shipping(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nothing would ever make room again."""
    process.start(file_bytes_max=20).look()
    for number in range(3):
        process.log.append(line(number))

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(outbox.durable, "replace", full)
    process.shipper.look()
    assert process.shipper.problem is None
    assert process.lines() == [line(number) for number in range(3)]
    assert len(process.files(".jsonl")) == 1


def test_a_goodbye_that_takes_too_long_is_left_to_the_next_process(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.start(every_s=LONG_S, goodbye_s=0.1).look()
    process.log.append(line(0))
    process.log.close()
    goes_on = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(Sender, "send", lambda *_: goes_on.wait(60))
        process.shipper.close()
        assert "the next process of this folder ships them" in str(process.shipper.problem)
        goes_on.set()
        with process.shipper._working:
            pass
    assert process.kinds() == ["hello"]


def test_a_goodbye_is_repeated_while_the_store_is_away(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that ends while the store is away has its volume no longer than its grace period."""
    process.start(every_s=LONG_S).look()
    process.log.append(line(0))
    process.log.close()
    send, attempts = Sender.send, iter((StoreAway("it is away"), NameTaken("its name is taken"), None, None))

    def sending(*arguments: Any) -> None:
        if (problem := next(attempts)) is not None:
            raise problem
        send(*arguments)

    monkeypatch.setattr(shipping, "LOOK_S", 0.001)
    monkeypatch.setattr(Sender, "send", sending)
    process.shipper.close()
    assert process.shipper.problem is None
    assert process.lines() == [line(0)]
    assert process.files() == []


def test_a_goodbye_takes_what_others_left_with_it(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that was started again may end before the store was there for what the one before it left."""
    process.start(every_s=LONG_S).look()
    process.log.append(line(0))
    process.die()
    process.start(every_s=LONG_S)
    with monkeypatch.context() as patch:
        patch.setattr(Sender, "send", _away)
        process.shipper.look()
    process.log.append(line(1))
    process.log.close()
    process.shipper.close()
    assert sorted(process.lines()) == [line(0), line(1)]
    assert process.kinds().count("goodbye") == 2
    assert process.files() == []


# In a service ---------------------------------------------------------------------------------------------------------


def test_an_answer_under_way_is_not_covered(make: Any) -> None:
    app = make(models.contract(max_rows=40), starts=True)
    predictor, body = app.runtime.predictor, json.dumps([models.row(str(number)) for number in range(40)]).encode()
    before = datetime.now(UTC)
    steps = predictor.steps(app.follower.live, body, 0.0)
    next(steps)
    begun = datetime.now(UTC)
    time.sleep(1.2)
    assert before <= predictor.answered_before() <= begun
    slices_of_work.finish(steps)
    assert predictor.answered_before() > before
    next(predictor.steps(app.follower.live, body, 0.0))
    assert predictor._underway == {}, "a caller that left is forgotten"


def test_a_replica_without_room_is_not_ready_until_answers_are_shipped(tmp_path: Path) -> None:
    room = DiskRoom(tmp_path, 1_000_000, 0.8)
    room.check()
    assert room.problem is None
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_bytes(os.urandom(810_000))
    used = 811008 + 512 * (tmp_path / "deep").stat().st_blocks
    room.check()
    assert f"{tmp_path} holds {used} of at most 1000000 bytes; from 80% on this replica takes no requests" in str(
        room.problem
    )
    (tmp_path / "deep" / "log").unlink()
    room.check()
    assert room.problem is None


def test_a_process_that_writes_fast_is_not_ready_and_then_refuses_before_the_volume_is_full(tmp_path: Path) -> None:
    """Nobody looks meanwhile: between two looks a fast caller may fill any volume."""
    limit, records = 2_000_000, os.urandom(1999) + b"\n"
    room, logs = DiskRoom(tmp_path, limit, 0.8), [PredictionLog(tmp_path) for _ in range(3)]
    for log in logs:
        log.reserve = room.reserve
    written, unready_at = 0, list[int]()

    def fill() -> None:
        nonlocal written
        for number in range(2 * limit // len(records)):
            logs[number % 3].append(records)
            written += len(records)
            if room.problem is not None:
                unready_at.append(written)

    with pytest.raises(LogProblem, match=r"holds about \d+ of at most 2000000 bytes; beyond 90% this replica writes"):
        fill()
    assert 0.77 * limit < unready_at[0] < 0.82 * limit
    assert 0.87 * limit < written < 0.92 * limit
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == written, "nothing of a refused request is left"
    assert all(log.problem is None for log in logs), "a log with a problem probes its disk"
    room.check()
    with pytest.raises(LogProblem, match="beyond 90%"):
        logs[0].append(bytes(limit))
    logs[1].streams[0].path.unlink()
    room.check()
    logs[0].append(records)
    assert room.problem is None


@pytest.mark.costly
def test_callers_on_open_connections_get_503_by_name_from_a_replica_without_room(app: Any, tmp_path: Path) -> None:
    process = Process(tmp_path / "shipped" / PRODUCT, tmp_path / "elsewhere")
    app.log = process.log
    app.follow().fall_back()
    room = DiskRoom(tmp_path / "shipped", 300_000, 0.8)
    process.log.reserve, process.shipper.room = room.reserve, room
    app.change(shipper=process.shipper)
    answered, unready_at = 0, None
    while answered < 2000:
        status, body = app.predict([models.row() for _ in range(10)])
        if status != 200:
            break
        answered += 10
        if unready_at is None and app.probe("/readyz")[0] == 503:
            unready_at = room._used / 300_000
    assert unready_at is not None and 0.8 <= unready_at < 0.82
    assert status == 503
    assert "could not be logged, so it is not returned" in str(body)
    assert "beyond 90% this replica writes nothing" in str(body)
    process.shipper.look()
    assert len(process.lines()) == answered
    app.middleware._check_disk()
    assert app.predict(models.row())[0] == 200
    assert app.probe("/readyz")[0] == 200


def test_a_service_that_ships_says_so_in_its_pages(app: Any, tmp_path: Path) -> None:
    process = Process(tmp_path / "shipped" / PRODUCT, tmp_path / "elsewhere")
    process.shipper.room = room = DiskRoom(tmp_path / "shipped", 1_000_000, 0.8)
    app.change(shipper=process.shipper)
    process.log.append(line(0))

    def ready() -> tuple[int, str | None]:
        status, body = app.probe("/readyz")
        return status, json.loads(body)["problem"]

    assert ready()[0] == 200
    text = app.metrics()
    assert "driftline_log_unshipped_bytes 28.0" in text
    assert "driftline_shipping_has_problem 0.0" in text
    filler = tmp_path / "shipped" / "filler"
    filler.write_bytes(os.urandom(900_000))
    app.middleware._check_disk()
    status, problem = ready()
    assert (status, problem) == (503, room.problem)
    filler.unlink()
    app.middleware._check_disk()
    process.shipper._state("answers are not shipped: the store is away.")
    assert ready() == (200, "answers are not shipped: the store is away."), "callers get answers all the same"
    assert "driftline_shipping_has_problem 1.0" in app.metrics()
    process.shipper.look()
    assert ready()[0] == 200
    text = app.metrics()
    assert "driftline_log_unshipped_bytes 0.0" in text
    assert 'driftline_shipping_requests_total{operation="put"} 3.0' in text


def test_a_worker_ships_and_says_goodbye(app: Any, tmp_path: Path) -> None:
    process = Process(tmp_path / "shipped" / PRODUCT, tmp_path / "elsewhere")
    process.start(every_s=LONG_S, bytes_max=100_000)  # nothing is due while it lives
    app.log = process.log
    app.follow().fall_back()
    app.change(shipper=process.shipper)

    async def live() -> None:
        await app.middleware.start()
        assert (await app.post(models.row()))[0] == 200
        await app.middleware.stop()

    asyncio.run(live())
    assert process.kinds() == ["hello", "goodbye"]
    assert [json.loads(record)["entity"] for record in process.lines()] == [models.row()["entity"]]


def test_without_a_limit_the_room_is_that_of_the_file_system(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(os.urandom(100_000))
    room = DiskRoom(tmp_path, None, 1e-12)
    room.check()
    disk = os.statvfs(tmp_path)
    assert f"of at most {disk.f_blocks * disk.f_frsize} bytes" in str(room.problem)


STEPS = """
import os, sys
from pathlib import Path
from platform_assets.serving.log import outbox, sender
from tests.serving.test_shipping import LONG_S, Process, line

base, left = Path(sys.argv[1]), 0


def counted(function):
    def step(*arguments, **more):
        for is_done in (False, True):
            global left
            left -= 1
            if left == 0:
                os._exit(9)
            result = None if is_done else function(*arguments, **more)
            if not is_done:
                kept = result
        return kept
    return step


def work(folder, killed_at, numbers):
    global left
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    left = killed_at
    process = Process(folder / "log" / "tiny", folder / "store")
    process.start(file_bytes_max=60)
    acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    process.shipper.look()
    for number in numbers:
        process.log.append(line(number))
        os.write(acknowledged, line(number))
        if number % 3 == 0:
            process.shipper.look()
    process.log.close()
    process.shipper.close()
    os._exit(0)


for owner, name in ((sender.objects, "create"), (sender.objects, "replace"), (outbox.durable, "replace"),
                    (outbox.os, "link"), (outbox.Path, "unlink"), (outbox.Path, "rename"), (outbox.os, "close")):
    setattr(owner, name, counted(getattr(owner, name)))
for killed_at in range(1, 1000, int(sys.argv[2])):
    folder = base / f"{killed_at:04d}"
    folder.mkdir()
    status = work(folder, killed_at, range(8))
    again = work(folder, killed_at + 3, range(100, 104))
    assert work(folder, 0, [200]) == 0
    if status == 0:
        break
print(killed_at)
"""


STRIDE = 3 if WHOLE else 12
"""With 1 every step is a point: 247 of them, 31 s of CPU."""


@pytest.mark.costly
def test_a_process_may_be_killed_at_any_step_and_its_successor_too(tmp_path: Path) -> None:
    """Before and after every step that changes the folder or the store; callers have what `acknowledged` has."""
    command = [sys.executable, "-c", STEPS, str(tmp_path), str(STRIDE)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 200
    for folder in sorted(tmp_path.iterdir()):
        acknowledged = (folder / "acknowledged").read_bytes().splitlines(keepends=True)
        bodies = [segment.body for segment in received.read(str(folder / "store"), PRODUCT)]
        arrived = {line for body in bodies for line in body.splitlines(keepends=True)}
        assert arrived == set(acknowledged), folder
        left = {path.suffix for path in (folder / "log" / PRODUCT).iterdir()}
        assert not left & {".jsonl", ".process", ".shipped", ".shipping"}, folder


def test_another_deployment_of_the_product_is_noticed(process: Process) -> None:
    """Also before it has a heartbeat to send; a server whose name is not a pod's does not count as a Deployment."""
    shippers = {}
    for server in ("driftline-tiny-5d9c-abcde.one", "driftline-tiny-5d9c-fghij.one", "host", "tiny-77b6-klmno.two"):
        shippers[server] = process.start(server=server)
        shippers[server].look()
    first, _, outside, last = shippers.values()
    expected = "tiny is served by 2 Deployments, one/driftline-tiny, two/tiny: another contract would be rolled out to"
    assert last.problem is not None and last.problem.startswith(expected)
    assert (first.problem, outside.problem) == (None, None)


def test_the_first_deployment_notices_the_second_with_its_next_heartbeat(
    process: Process, monotonic: Monotonic
) -> None:
    first = process.start(server="driftline-tiny-5d9c-abcde.one", heartbeat_s=0.1)
    first.look()
    process.start(server="tiny-77b6-klmno.two").look()
    monotonic.now_s += 0.15
    first.look()
    assert first.problem is not None and "is served by 2 Deployments" in first.problem
