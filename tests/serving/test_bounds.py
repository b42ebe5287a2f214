"""The times of a request must be within the contract's bounds and near a live clock, so that the log can be read."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import pytest

from platform_assets.base.keys import LATEST, DailyGrain
from platform_assets.product.contract import contract_of
from platform_assets.product.modelling import Service
from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.decoding import Decoding
from platform_assets.serving.answer.openapi import openapi
from platform_assets.serving.answer.requests import Refused
from tests.doubles import models, recorded

BOUNDS = {
    "service_time": {"from": "2013-01-01T05:00:00Z", "before": "2014-01-01T05:00:00Z"},
    "asked_at": {"from": "2012-12-30T05:00:00Z", "before": "2014-01-03T05:00:00Z"},
}
CONTRACT = Contract(models.contract(**BOUNDS))
NOW = datetime(2013, 6, 1, 12, tzinfo=UTC)
FAR = [
    "0001-01-01T00:00:00Z",
    "1900-01-01T00:00:00Z",
    "2012-12-29T00:00:00Z",
    "2014-01-03T05:00:00Z",
    "9999-12-31T23:59:59.999999Z",
]


def text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def refusal(contract: Contract, row: dict[str, Any], now: datetime | None = None) -> tuple[int, str | None, str]:
    body = json.dumps(row).encode()
    with pytest.raises(Refused) as caught:
        Decoding(contract).decode(body, now)
    return caught.value.status, caught.value.field, caught.value.sentence


@pytest.mark.parametrize("name", ["service_time", "asked_at"])
@pytest.mark.parametrize("moment", FAR)
def test_a_time_out_of_bounds_is_refused_with_the_bounds(name: str, moment: str) -> None:
    status, field, sentence = refusal(CONTRACT, models.row(**{name: moment}))
    begins, ends = BOUNDS[name].values()
    assert (status, field) == (422, name)
    expected = f"a UTC time from {begins}, before {ends}"
    assert sentence == f'{name} is "{moment}"; expected {expected}.'
    body = json.dumps([models.row(), models.row(**{name: moment})]).encode()
    with pytest.raises(Refused) as caught:
        Decoding(CONTRACT).decode(body)
    assert caught.value.field == f"[1].{name}"


def test_the_lower_bound_is_included_and_the_upper_is_not() -> None:
    first, last = BOUNDS["service_time"].values()
    assert Decoding(CONTRACT).decode(json.dumps(models.row(service_time=first)).encode()).rows
    before = text(datetime.fromisoformat(last) - timedelta(microseconds=1))
    assert Decoding(CONTRACT).decode(json.dumps(models.row(service_time=before)).encode()).rows
    assert refusal(CONTRACT, models.row(service_time=last))[1] == "service_time"


def test_times_of_a_live_product_must_be_near_the_servers_clock() -> None:
    live = Contract(models.contract(**BOUNDS, clock_within_s=3600.0))
    near = {"service_time": text(NOW + timedelta(minutes=59)), "asked_at": text(NOW - timedelta(minutes=59))}
    body = json.dumps(models.row(**near)).encode()
    assert Decoding(live).decode(body, NOW).rows
    for name in near:
        status, field, sentence = refusal(live, models.row(**near) | {name: text(NOW - timedelta(minutes=61))}, NOW)
        assert (status, field) == (422, name)
        assert "a UTC time from 2013-06-01T11:00:00Z, before 2013-06-01T13:00:00Z." in sentence
    assert Decoding(live).decode(body).rows, "without a clock only the keys' bounds apply"


def test_the_server_reads_its_own_clock(make: Callable[..., Any]) -> None:
    app = make(models.contract(clock_within_s=86_400.0), starts=True)
    assert app.predict(models.row())[1]["field"] == "service_time", "2013 is long ago"
    now = text(datetime.now(UTC))
    assert app.predict(models.row(service_time=now, asked_at=now))[0] == 200


def test_the_bounds_follow_from_the_spec() -> None:
    document = contract_of(recorded.SPEC)
    lookback = timedelta(days=max(1, recorded.SPEC.lookback + 1))
    assert document["service_time"] == {"from": "2020-01-01T00:00:00Z", "before": "2020-02-01T00:00:00Z"}
    assert document["asked_at"]["from"] == text(datetime(2020, 1, 1, tzinfo=UTC) - lookback)
    assert document["clock_within_s"] is None
    from dataclasses import replace

    endless = replace(recorded.SPEC, is_live=True, grain=DailyGrain(start="2020-01-01"), history=None)
    assert contract_of(endless)["service_time"]["before"] == text(LATEST)
    assert contract_of(endless)["clock_within_s"] == 7 * 86_400
    stated = replace(endless, service=Service(clock_within=timedelta(hours=2), asked_within=timedelta(days=9)))
    assert contract_of(stated)["clock_within_s"] == 7_200
    assert contract_of(stated)["asked_at"]["from"] == "2019-12-23T00:00:00Z"
    with pytest.raises(ValueError, match="clock_within is 0:00:00; expected more than nothing"):
        Service(clock_within=timedelta(0))


def test_the_openapi_document_states_the_bounds() -> None:
    document = openapi(Contract(models.contract(**BOUNDS, clock_within_s=86_400.0)))
    sentence = document["components"]["schemas"]["Row"]["properties"]["asked_at"]["description"]
    assert sentence.endswith(
        "From 2012-12-30T05:00:00Z, before 2014-01-03T05:00:00Z, at most 1 days from the server's clock."
    )


def test_the_description_does_not_depend_on_types_made_before() -> None:
    numbers = [(0, 1), (0.0, 1.0), (-0.0, 1.0)]
    made = [Annotated[float, msgspec.Meta(ge=low, le=high)] for low, high in numbers]
    share = next(field for field in models.FIELDS if field["dtype"] == "float") | {
        "name": "share",
        "is_nullable": False,
    }
    for low, high in numbers:
        described = openapi(Contract(models.contract((share | {"low": low, "high": high},))))
        found = described["components"]["schemas"]["Features"]["properties"]["share"]
        assert f"{found['minimum']} {found['maximum']}" == f"{float(low)} {float(high)}", made
