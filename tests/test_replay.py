"""The upstream is honest: whole files, nothing from the future, questions at their moment."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from platform_assets import clock, replay, specs
from platform_assets.settings import Settings
from platform_assets.specs.base import History, ProductSpec, Window
from platform_assets.specs.contract import request_of
from tests.doubles import recorded

SPEC = recorded.SPEC
KEYS = SPEC.grain.span("2020-01-01", "2020-01-03")


def _files(settings: Settings) -> dict[str, bytes]:
    folder = Path(settings.root) / "landing"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Landing -------------------------------------------------------------------------------------------------------------


def test_files_lie_where_raw_looks_for_them_and_nothing_else_does(settings: Settings):
    list(replay.land(SPEC, settings, KEYS, labelled=KEYS[:2]))
    keyed = {f"recorded/{source}/{key}.csv" for source in ("plans", "readings") for key in KEYS}
    labels = {f"recorded/results/{key}.csv" for key in KEYS[:2]}
    files = _files(settings)
    assert set(files) == keyed | labels | {"recorded/sites/all.csv"}
    assert files["recorded/readings/2020-01-02.csv"] == recorded.deliver("readings", "2020-01-02")


def test_every_delivery_is_told_and_counted(settings: Settings):
    landed = list(replay.land(SPEC, settings, KEYS))
    assert len(landed) == replay.count_due(SPEC, KEYS, KEYS) == 3 * len(KEYS) + 1
    assert all(item.is_new and item.bytes for item in landed)


def test_landing_again_leaves_equal_files_alone_and_mends_others(settings: Settings):
    list(replay.land(SPEC, settings, KEYS))
    before = _files(settings)
    (Path(settings.root) / "landing/recorded/plans/2020-01-02.csv").write_text("job_id\n", encoding="utf-8")
    again = [(item.source, item.key) for item in replay.land(SPEC, settings, KEYS) if item.is_new]
    assert again == [("plans", "2020-01-02")]
    assert _files(settings) == before


def test_cutoff_follows_the_landed_keys_and_labels_end_earlier():
    assert replay.first_cutoff(SPEC) == "2020-01-11"
    assert replay.labels_known(SPEC, "2020-01-11") == SPEC.grain.span("2020-01-01", "2020-01-09")


def test_labels_are_known_before_the_cutoff_that_may_see_them():
    flights = specs.load("flight_delays")
    cutoff = replay.first_cutoff(flights)
    outcomes = flights.label_source
    landed = {key: replay.history(flights).deliver(outcomes.name, key) for key in replay.labels_known(flights, cutoff)}
    assert len(landed) == 58
    latest = max(pl.read_csv(data)[outcomes.known_at].max() for data in landed.values())
    assert datetime.fromisoformat(latest) < flights.grain.instant(cutoff)


def test_product_without_a_recording_is_refused():
    live = ProductSpec(**{**vars(SPEC), "history": None})
    with pytest.raises(ValueError, match="recorded has no history to replay"):
        replay.first_cutoff(live)


# Requests ------------------------------------------------------------------------------------------------------------


def test_requests_come_in_the_order_in_which_they_are_asked():
    asked = [request["asked_at"] for request in replay.requests(SPEC, "2020-01-05")]
    assert asked == [f"2020-01-05T{hour - 1:02d}:00:00Z" for hour in recorded.STARTS_H]


def test_request_holds_what_was_known_and_no_row_that_was_quarantined():
    request = replay.requests(SPEC, "2020-01-05")[1]
    assert request["entity"] == "2020-01-05-09"
    assert request["features"] == {"site": "south", "size": 5, "value": 506}
    assert json.loads(json.dumps(request)) == request


def test_source_that_delivers_nothing_is_an_error():
    silent = ProductSpec(
        **{
            **vars(SPEC),
            "history": History(
                deliver=lambda source, key: None, demo_first="2020-01-01", demo_last="2020-01-10"
            ),
        }
    )
    with pytest.raises(ValueError, match="recorded delivers nothing from plans for 2020-01-04 to 2020-01-05"):
        replay.requests(silent, "2020-01-05")


def _differing(spec: ProductSpec, key: str, known_by, moments: list[datetime]) -> int:
    """Count requests that differ from those built with all that was not known at their moment blanked."""
    tables, requests = replay.happened(spec, key), replay.requests(spec, key)
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
    for known, facts in (
        ("dep_known_at_utc", ["dep_at_utc", "dep_delay_min"]),
        ("arr_known_at_utc", ["arr_at_utc", "arr_delay_min", "arr_air_time_min"]),
    ):
        moved = moved.with_columns(
            pl.when(pl.col(known) <= moment).then(pl.col(name)).alias(name) for name in [*facts, known]
        )
    known = {name: tables[name].filter(pl.col("known_at_utc") <= moment) for name in ("schedules", "weather")}
    return {**tables, **known, "movements": moved}


def test_one_pass_a_day_equals_a_build_at_each_moment():
    key = "2020-01-05"
    moments = [datetime(2020, 1, 5, hour - 1, tzinfo=UTC) for hour in recorded.STARTS_H]
    assert _differing(SPEC, key, _recorded_known_by, moments) == 0


def test_leak_is_caught_by_building_at_each_moment():
    moments = [datetime(2020, 1, 5, hour - 1, tzinfo=UTC) for hour in recorded.STARTS_H]
    assert _differing(recorded.LEAKY, "2020-01-05", _recorded_known_by, moments) > 0


def test_flights_of_a_day_equal_builds_at_eight_of_its_moments():
    flights = specs.load("flight_delays")
    key = replay.first_cutoff(flights)
    asked = sorted({request["asked_at"] for request in replay.requests(flights, key)})
    moments = [datetime.fromisoformat(asked[place * (len(asked) - 1) // 7]) for place in range(8)]
    assert _differing(flights, key, _flights_known_by, moments) == 0


# Asking --------------------------------------------------------------------------------------------------------------


class _Service(BaseHTTPRequestHandler):
    """Answers `/predict` and remembers what it was asked, and when on the product's clock."""

    settings: Settings
    seen: list[tuple[str, str]]

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        now = clock.now(self.settings, SPEC.name, is_live=False)
        self.seen.append((request["entity"], now.isoformat().replace("+00:00", "Z")))
        is_known = request["entity"] != "nobody"
        body = json.dumps(
            {"entity": request["entity"]} if is_known else {"error": "nobody", "field": "entity"}
        ).encode()
        self.send_response(200 if is_known else 422)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def service(settings: Settings) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    seen: list[tuple[str, str]] = []
    handler = type("Service", (_Service,), {"settings": settings, "seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


def test_each_question_is_asked_at_its_moment(settings: Settings, service):
    address, seen = service
    questions = replay.requests(SPEC, "2020-01-05")
    answers = list(replay.ask(SPEC, settings, questions, address))
    assert seen == [(question["entity"], question["asked_at"]) for question in questions]
    assert [answer.body["entity"] for answer in answers] == [question["entity"] for question in questions]
    assert all(answer.status == 200 and answer.latency_s > 0 for answer in answers)


def test_refused_question_comes_back_with_its_reason(settings: Settings, service):
    question = {**replay.requests(SPEC, "2020-01-05")[0], "entity": "nobody"}
    (answer,) = replay.ask(SPEC, settings, [question], service[0])
    assert (answer.status, answer.body["field"]) == (422, "entity")


def test_clock_is_never_moved_backwards(settings: Settings, service):
    later = datetime(2020, 2, 1, tzinfo=UTC)
    clock.move(settings, SPEC.name, later)
    list(replay.ask(SPEC, settings, replay.requests(SPEC, "2020-01-05")[:1], service[0]))
    assert clock.now(settings, SPEC.name, is_live=False) == later
    assert replay.move_on(SPEC, settings, later - timedelta(days=1)) == later
    assert replay.move_on(SPEC, settings, later + timedelta(days=1)) == later + timedelta(days=1)
