"""The replayed upstream is realistic: complete files, nothing from the future, requests at their time."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.data.request_rows import request_of
from platform_assets.demo import replay
from platform_assets.demo.replay import deliveries, playing, waiting
from platform_assets.engine import product_files
from platform_assets.product.spec import Deliver, FaultKind, History, Product, Window
from platform_assets.serving.run.metrics import Metrics
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from tests.doubles import documents, recorded
from tests.doubles import numbered_batches as batches

pytestmark = pytest.mark.slow

SPEC = recorded.SPEC
KEYS = SPEC.grain.span("2020-01-01", "2020-01-03")


def _files(settings: Settings) -> dict[str, bytes]:
    folder = Path(settings.root) / "landing"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_files_are_exactly_where_raw_looks_for_them(settings: Settings):
    list(replay.land(ProductStore(SPEC, settings), KEYS, labelled=KEYS[:2]))
    keyed = {f"recorded/{source}/{key}.csv" for source in ("plans", "readings") for key in KEYS}
    labels = {f"recorded/results/{key}.csv" for key in KEYS[:2]}
    files = _files(settings)
    assert set(files) == keyed | labels | {"recorded/sites/all.csv"}
    assert files["recorded/readings/2020-01-02.csv"] == recorded.deliver("readings", "2020-01-02")


def test_landing_again_leaves_equal_files_alone_and_repairs_others(settings: Settings):
    list(replay.land(ProductStore(SPEC, settings), KEYS))
    before = _files(settings)
    (Path(settings.root) / "landing/recorded/plans/2020-01-02.csv").write_text("job_id\n", encoding="utf-8")
    again = [(item.source, item.key) for item in replay.land(ProductStore(SPEC, settings), KEYS) if item.is_new]
    assert again == [("plans", "2020-01-02")]
    assert _files(settings) == before


def test_cutoff_follows_the_landed_keys_and_labels_end_earlier():
    assert replay.first_cutoff(SPEC) == "2020-01-11"
    assert replay.labelled_keys(SPEC, "2020-01-11") == SPEC.grain.span("2020-01-01", "2020-01-09")


def test_product_without_a_recording_is_refused():
    live = Product(**{**vars(SPEC), "history": None})
    with pytest.raises(ValueError, match="recorded has no history to replay"):
        replay.first_cutoff(live)


def test_requests_are_ordered_by_their_time():
    moments = [request["asked_at"] for request in replay.requests(SPEC, "2020-01-05")]
    assert moments == [f"2020-01-05T{hour - 1:02d}:00:00Z" for hour in recorded.STARTS_H]


def test_request_has_only_known_values_and_no_quarantined_row():
    request = replay.requests(SPEC, "2020-01-05")[1]
    assert request["entity"] == "2020-01-05-09"
    assert request["features"] == {"site": "south", "size": 5, "value": 506}
    assert json.loads(json.dumps(request)) == request


def test_source_that_delivers_nothing_is_an_error():
    silent = Product(
        **{
            **vars(SPEC),
            "history": History(deliver=lambda source, key: None, demo_first="2020-01-01", demo_last="2020-01-10"),
        }
    )
    with pytest.raises(ValueError, match="recorded delivers nothing from plans for 2020-01-04 to 2020-01-05"):
        replay.requests(silent, "2020-01-05")


def _differing(spec: Product, key: str, known_by, moments: list[datetime]) -> int:
    """Count requests that differ from those built with everything not yet known at their moment blanked out."""
    tables, requests = replay.known_tables(spec, key), replay.requests(spec, key)
    differing = 0
    for moment in moments:
        rows = spec.features(known_by(tables, moment), Window(grain=spec.grain, keys=(key,)))
        then = rows.filter(pl.col("asked_at") == moment).sort("entity")
        built = [request_of(spec, row) for row in then.iter_rows(named=True)]
        now = [request for request in requests if datetime.fromisoformat(request["asked_at"]) == moment]
        assert len(built) == len(now) > 0
        differing += sum(one != other for one, other in zip(built, now, strict=True))
    return differing


def _recorded_known_by(tables: dict[str, pl.DataFrame], moment: datetime) -> dict[str, pl.DataFrame]:
    return {
        name: table.filter(pl.col("known_at_utc") <= moment) if "known_at_utc" in table.columns else table
        for name, table in tables.items()
    }


def _flights_known_by(tables: dict[str, pl.DataFrame], moment: datetime) -> dict[str, pl.DataFrame]:
    moved = tables["movements"]
    for column, facts in (
        ("dep_known_at_utc", ["dep_at_utc", "dep_delay_min"]),
        ("arr_known_at_utc", ["arr_at_utc", "arr_delay_min", "arr_air_time_min"]),
    ):
        moved = moved.with_columns(
            pl.when(pl.col(column) <= moment).then(pl.col(name)).alias(name) for name in [*facts, column]
        )
    column = {name: tables[name].filter(pl.col("known_at_utc") <= moment) for name in ("schedules", "weather")}
    return {**tables, **column, "movements": moved}


def test_one_pass_per_day_equals_a_build_at_each_moment():
    key = "2020-01-05"
    moments = [datetime(2020, 1, 5, hour - 1, tzinfo=UTC) for hour in recorded.STARTS_H]
    assert _differing(SPEC, key, _recorded_known_by, moments) == 0


def test_leak_is_detected_by_building_at_each_moment():
    moments = [datetime(2020, 1, 5, hour - 1, tzinfo=UTC) for hour in recorded.STARTS_H]
    assert _differing(recorded.LEAKY, "2020-01-05", _recorded_known_by, moments) > 0


@pytest.mark.costly
def test_flights_of_a_day_equal_builds_at_eight_of_its_moments():
    flights = product_files.load("flight_delays")
    key = replay.first_cutoff(flights)
    requested_at = sorted({request["asked_at"] for request in replay.requests(flights, key)})
    moments = [datetime.fromisoformat(requested_at[number * (len(requested_at) - 1) // 7]) for number in range(8)]
    assert _differing(flights, key, _flights_known_by, moments) == 0


def _halved(sound: Deliver, source: str, key: str) -> bytes | None:
    data = sound(source, key)
    return data if source != "readings" or data is None else data[: len(data) // 2]


KIND = FaultKind(name="halved", description="half a file", source="readings", check="volume", deliver=_halved)
FAULTY = replace(SPEC, history=replace(replay.history(SPEC), faults=(KIND,)))
REPLAYED = SPEC.grain.span("2020-01-11", "2020-01-30")


def test_fault_is_drawn_by_seed_for_contiguous_keys_away_from_both_ends():
    drawn = {seed: replay.draw(FAULTY, REPLAYED, seed) for seed in range(40)}
    assert drawn == {seed: replay.draw(FAULTY, REPLAYED, seed) for seed in range(40)}
    for injected in drawn.values():
        assert injected is not None
        assert SPEC.grain.span(injected.keys[0], injected.keys[-1]) == injected.keys
        assert 1 <= len(injected.keys) <= 3
        assert set(injected.keys) <= set(REPLAYED[10:-5])
    assert len({injected.keys for injected in drawn.values()}) > 10


def test_recording_without_faults_or_room_has_none():
    assert replay.draw(SPEC, REPLAYED, 1) is None
    assert replay.draw(FAULTY, REPLAYED[:2], 1) is None
    few = replay.draw(FAULTY, REPLAYED[:4], 1)
    assert few is not None
    assert set(few.keys) <= set(REPLAYED[1:3])
    assert replay.inject(SPEC, None) is SPEC


def test_only_the_drawn_keys_of_the_broken_source_differ():
    broken = replay.inject(FAULTY, replay.Injected(kind=KIND, keys=("2020-01-12",)))
    delivered, sound = replay.history(broken).deliver, replay.history(SPEC).deliver
    differing = {
        (source.name, key) for source in SPEC.sources for key in KEYS + REPLAYED
        if delivered(source.name, key) != sound(source.name, key)
    }  # fmt: skip
    assert differing == {("readings", "2020-01-12")}


def test_files_known_before_a_key_land_early_and_others_late_with_labels_first(settings: Settings):
    reader = replay.Reader(SPEC)
    assert [item.source for item in deliveries.land_early(ProductStore(SPEC, settings), "2020-01-12", reader)] == [
        "plans"
    ]
    late = [
        (item.source, item.key) for item in deliveries.land_late(ProductStore(SPEC, settings), "2020-01-12", reader)
    ]
    assert late == [("results", "2020-01-11"), ("readings", "2020-01-12")]


@pytest.mark.costly
def test_file_is_read_once_while_later_keys_look_back_on_it():
    delivered: list[tuple[str, str]] = []

    def deliver(source: str, key: str) -> bytes | None:
        delivered.append((source, key))
        return recorded.deliver(source, key)

    counting = replace(SPEC, history=replace(replay.history(SPEC), deliver=deliver))
    reader = replay.Reader(counting)
    for key in REPLAYED[:4]:
        assert replay.requests(counting, key, reader) == replay.requests(SPEC, key)
    assert len(delivered) == len(set(delivered)) == 2 * 5 + 1
    reader.forget(REPLAYED[3])
    replay.requests(counting, REPLAYED[3], reader)
    assert delivered.count(("plans", REPLAYED[2])) == 2


class _Service(BaseHTTPRequestHandler):
    """Answers `/predict` and records each request with the product's time."""

    settings: Settings
    received: list[tuple[str, str]]
    strangers = ("nobody", "2020-01-12-09")
    statuses: list[int]

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        now = clock.now(self.settings, SPEC.name, is_live=False)
        self.received.append((request["entity"], now.isoformat().replace("+00:00", "Z")))
        is_known = request["entity"] not in self.strangers
        body = json.dumps(
            {"entity": request["entity"]} if is_known else {"error": "nobody", "field": "entity"}
        ).encode()
        self.send_response(self.statuses.pop(0) if self.statuses else 200 if is_known else 422)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        live = SimpleNamespace(model=SimpleNamespace(digest="d"), source="release", release=2)
        metrics = Metrics()
        metrics.note(SimpleNamespace(live=live, swaps=0, problem=None), is_ready=True)
        self.wfile.write(metrics.text())

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def statuses() -> list[int]:
    """Statuses of the first answers, whatever the request."""
    return []


@pytest.fixture
def service(settings: Settings, statuses: list[int]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    received: list[tuple[str, str]] = []
    handler = type("Service", (_Service,), {"settings": settings, "received": received, "statuses": statuses})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", received
        server.shutdown()


def test_each_request_is_sent_at_its_time(settings: Settings, service):
    address, received = service
    questions = replay.requests(SPEC, "2020-01-05")
    answers = list(replay.ask(ProductStore(SPEC, settings), questions, address, check=_no_check))
    assert received == [(question["entity"], question["asked_at"]) for question in questions]
    assert [answer.body["entity"] for answer in answers] == [question["entity"] for question in questions]
    assert all(answer.status == 200 and answer.latency_s > 0 for answer in answers)


def test_refused_request_is_returned_with_its_reason(settings: Settings, service):
    question = {**replay.requests(SPEC, "2020-01-05")[0], "entity": "nobody"}
    (answer,) = replay.ask(ProductStore(SPEC, settings), [question], service[0], check=_no_check)
    assert (answer.status, answer.body["field"]) == (422, "entity")


def test_request_is_repeated_while_the_service_is_away(settings: Settings, service, statuses):
    statuses += [503, 503]
    questions = replay.requests(SPEC, "2020-01-05")[:1]
    (answer,) = replay.ask(ProductStore(SPEC, settings), questions, service[0], check=_no_check)
    assert answer.status == 200
    assert len(service[1]) == 3


def test_a_service_that_is_gone_ends_the_questions(settings: Settings):
    def gone() -> None:
        raise RuntimeError("the service is gone")

    product, questions = ProductStore(SPEC, settings), replay.requests(SPEC, "2020-01-05")[:1]
    with pytest.raises(RuntimeError, match="the service is gone"):
        list(replay.ask(product, questions, "http://127.0.0.1:9", check=gone))


def test_clock_is_never_moved_backwards(settings: Settings, service):
    later = datetime(2020, 2, 1, tzinfo=UTC)
    clock.move(settings, SPEC.name, later)
    list(replay.ask(ProductStore(SPEC, settings), replay.requests(SPEC, "2020-01-05")[:1], service[0], check=_no_check))
    assert clock.now(settings, SPEC.name, is_live=False) == later
    assert replay.move_on(ProductStore(SPEC, settings), later - timedelta(days=1)) == later
    assert replay.move_on(ProductStore(SPEC, settings), later + timedelta(days=1)) == later + timedelta(days=1)


def _no_check() -> None:
    return


def _decide(settings: Settings, key: str, action: str = "wait", cutoff: str | None = None) -> None:
    record = documents.decision(key, action, cutoff=cutoff)
    Ledgers(settings.root, SPEC.name).create(naming.DECISIONS, key, record)


def _judge(settings: Settings, cutoff: str, digest: str, *, passed: bool) -> None:
    tables = TableStore(settings.root, SPEC.name)
    tables.record("evaluation", cutoff, content_digest=digest, inputs={}, code="0")
    verdict = documents.verdict(digest, passed, reasons=["Worse than the champion."])
    Ledgers(settings.root, SPEC.name).create(naming.VERDICTS, digest, verdict)


def _release(settings: Settings, cutoff: str, digest: str) -> None:
    record = documents.release(cutoff, digest, product=SPEC.name, at_utc="2020-01-12T00:00:00+00:00")
    Ledgers(settings.root, SPEC.name).append(naming.RELEASES, record)


def test_key_is_played_in_order_and_its_decision_waited_for(settings: Settings, service):
    address, received = service
    key = "2020-01-12"
    _decide(settings, key)
    with replay.Player(ProductStore(SPEC, settings), address, check=_no_check) as player:
        given: list[replay.Answer] = []
        requests = player.ask(key, on_answer=given.append)
        decision, outcome = player.close(key, "2020-01-13")
    assert (requests.requests, requests.answered, requests.refused) == (4, 3, 1)
    assert given[0].request["entity"] == "2020-01-12-03"
    assert (decision.action, outcome) == ("wait", None)
    assert set(_files(settings)) == {f"recorded/{name}/{key}.csv" for name in ("plans", "readings")} | {
        "recorded/results/2020-01-11.csv"
    }
    assert clock.now(settings, SPEC.name, is_live=False) == datetime(2020, 1, 13, tzinfo=UTC)
    assert received[-1][1] == "2020-01-12T20:00:00Z"


def test_last_files_of_a_key_land_when_it_is_over(settings: Settings, service, monkeypatch):
    clock_times: list[datetime] = []

    def landed(*arguments: object) -> list[deliveries.Landing]:
        clock_times.append(clock.now(settings, SPEC.name, is_live=False))
        return deliveries.land_late(*arguments)

    monkeypatch.setattr(playing, "land_late", landed)
    _decide(settings, "2020-01-12")
    with replay.Player(ProductStore(SPEC, settings), service[0], check=_no_check) as player:
        player.close("2020-01-12")
    assert clock_times == [datetime(2020, 1, 13, tzinfo=UTC)]


def test_response_that_is_neither_answer_nor_refusal_ends_the_replay(settings: Settings, service, statuses):
    statuses.append(500)
    with (
        replay.Player(ProductStore(SPEC, settings), service[0], check=_no_check) as player,
        pytest.raises(playing.ReplayProblem, match="2020-01-12-03 was answered 500"),
    ):
        player.ask("2020-01-12")


def test_retrain_is_waited_for_until_the_service_serves_its_release(settings: Settings, service):
    _decide(settings, "2020-01-12", "retrain", "2020-01-13")
    _judge(settings, "2020-01-13", "b" * 64, passed=True)
    _release(settings, "2020-01-01", "a" * 64)
    _release(settings, "2020-01-13", "b" * 64)
    probed = settings.replace(serving_probes_port=int(service[0].rpartition(":")[2]))  # one port has all its paths
    with replay.Player(ProductStore(SPEC, probed), service[0], check=_no_check) as player:
        _, outcome = player.close("2020-01-12")
    assert outcome is not None
    assert (outcome.kind, outcome.release) == ("released", 2)


def test_lost_challenger_is_an_outcome_with_its_reasons(settings: Settings):
    assert replay.outcome_of(ProductStore(SPEC, settings), "2020-01-13") is None
    _release(settings, "2020-01-01", "a" * 64)
    _judge(settings, "2020-01-13", "b" * 64, passed=False)
    outcome = replay.outcome_of(ProductStore(SPEC, settings), "2020-01-13")
    assert outcome is not None
    assert (outcome.kind, outcome.release, outcome.reasons) == ("kept_champion", 1, ("Worse than the champion.",))


def test_passed_challenger_is_open_until_released_or_already_live(settings: Settings):
    _judge(settings, "2020-01-13", "b" * 64, passed=True)
    assert replay.outcome_of(ProductStore(SPEC, settings), "2020-01-13") is None
    _release(settings, "2020-01-12", "b" * 64)
    outcome = replay.outcome_of(ProductStore(SPEC, settings), "2020-01-13")
    assert outcome is not None
    assert outcome.kind == "released"


def test_waiting_ends_with_the_servers(settings: Settings):
    def servers_gone() -> None:
        raise ChildProcessError("the daemon ended")

    with pytest.raises(ChildProcessError):
        waiting.wait_for_outcome(ProductStore(SPEC, settings), "2020-01-13", check=servers_gone)


@pytest.mark.parametrize("zone", ["Z", "+00:00"])
def test_a_batch_of_broken_rows_only_ends_when_its_last_row_was_known(zone: str) -> None:
    def deliver(source: str, key: str) -> bytes | None:
        if source == "catalogue":
            return batches.catalogue().encode()
        text = batches.readings(key) if source == "readings" else batches.verdicts(key)
        return (text.replace("\ns", "\nno sensor ").replace("Z", zone) if key == "0003" else text).encode()

    spec = replace(batches.SPEC, history=History(deliver=deliver, demo_first="0001", demo_last="0006"))
    reader = replay.Reader(spec)
    rows = reader.rows(spec.source("readings"), "0003")
    assert rows is not None
    assert rows.is_empty()
    for key in ("0002", "0003"):
        assert replay.end_of(spec, key, reader) == batches.moment(key)
    assert replay.requests(spec, "0003", reader) == []
