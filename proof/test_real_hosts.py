"""In real projects a component changes nothing, and its product takes in rows, is trained, released and asked."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from platform_assets.serving.run.child import free_port
from proof.doubles import real_hosts
from proof.doubles.real_hosts import NAME
from tests.doubles.hosts import Host
from tests.guest.test_hosts import of_host

PYTHON = os.environ.get("DRIFTLINE_HOSTS_PYTHON")
STARTS_S = 120.0
ENDINGS = {"released": "FAILURE"}
"""How the run of a host ends that fetches a file from the internet, which tests do not reach."""
TAKEN_IN = f"""
import json
from platform_assets.base.settings import Settings
from platform_assets.store.tables import TableStore

rows = TableStore(Settings.from_environment().root, "{NAME}").read("predictions", ["{real_hosts.day(real_hosts.DAYS)}"])
print(json.dumps(dict(rows.select("entity", "prediction_id").iter_rows())))
"""


@dataclass(frozen=True)
class Pair:
    """A project without the product, and its copy with it, in which two days have landed.

    Attributes:
        known: what Dagster knew of the copy before; it holds places of files.
    """

    kind: str
    before: Host
    after: Host
    known: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        return (NAME, "visits") if self.kind == "two products" else (NAME,)


@pytest.fixture(scope="module", params=real_hosts.KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    if PYTHON is None:
        pytest.skip("needs Dagster projects: DRIFTLINE_HOSTS_PYTHON names no Python that has their packages")
    folder = tmp_path_factory.mktemp("hosts")
    before = real_hosts.KINDS[request.param](folder / "before", Path(PYTHON))
    after = real_hosts.copied(before, folder / "after")
    pair = Pair(request.param, before, after, after.snapshot())
    for name in pair.names:
        real_hosts.add(pair.after, name)
        real_hosts.land(pair.after, days=2, name=name)
    return pair


def test_what_dagster_knows_of_the_host_is_equal(pair: Pair) -> None:
    after = pair.after.snapshot()
    assert all(f'"{product}"' in json.dumps(after) for product in pair.names)
    assert json.dumps(of_host(after), sort_keys=True) == json.dumps(of_host(pair.known), sort_keys=True)


def test_dagsters_own_check_is_green(pair: Pair) -> None:
    real_hosts.check(pair.after)


def test_a_run_of_the_host_has_equal_events_and_values(pair: Pair) -> None:
    ending = ENDINGS.get(pair.kind, "SUCCESS")
    for host in (pair.before, pair.after):
        # A program that fails is an assertion of `Host.run`.
        with nullcontext() if ending == "SUCCESS" else pytest.raises(AssertionError):
            real_hosts.launch(host, host.job)
    before, after = (real_hosts.events(host, host.job) for host in (pair.before, pair.after))
    assert after == before
    assert before[0] == ending
    before_values, after_values = (real_hosts.values(host, pair.kind) for host in (pair.before, pair.after))
    assert after_values == before_values


def test_a_product_goes_from_raw_to_features(pair: Pair) -> None:
    keys = {real_hosts.day(0): real_hosts.A_DAY, real_hosts.day(1): real_hosts.A_DAY}
    for name in pair.names:
        pair.after.run("driftline", "check", name)
        real_hosts.launch(pair.after, f"advance__{name}", keys=(real_hosts.day(0), real_hosts.day(1)))
        assert real_hosts.stored(pair.after, name) == dict.fromkeys(
            ("raw_orders", "validated_orders", "features"), keys
        )


@pytest.mark.parametrize("pair", ["dbt"], indirect=True)
def test_a_dbt_model_is_a_source(pair: Pair) -> None:
    host, name, keys = pair.after, "sales_product", ("2026-01-01", "2026-01-02")
    real_hosts.launch(host, host.job)
    file = real_hosts.add(host, name)
    table = f'HostAsset(path=("sales",), uri="duckdb:///{host.folder}/analytics/shop.duckdb", table="main.sales")'
    text = file.read_text().replace("import DailyGrain,", "import DailyGrain, HostAsset,")
    file.write_text(text.replace('schema=orders, known_at="at",', f'schema=orders, known_at="at", asset={table},'))
    real_hosts.check(host)
    real_hosts.launch(host, f"advance__{name}", keys=keys)
    expected = dict(zip(keys, (2, 1), strict=True))
    assert real_hosts.stored(host, name) == dict.fromkeys(("raw_orders", "validated_orders", "features"), expected)


@contextmanager
def served(host: Host) -> Iterator[str]:
    """Serve the product's release as a person does; yield the address of its service."""
    port = free_port()
    command = [str(host.python.with_name("driftline")), "serve", NAME, "--memory-mb=500", f"--port={port}"]
    with (host.folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=host.folder, env=host.environment, stdout=log, stderr=log)
    try:
        began_s, address = time.monotonic(), f"http://127.0.0.1:{port}/{NAME}"
        while not is_ready(f"http://127.0.0.1:{port + 1}/readyz"):
            assert process.poll() is None, (host.folder / "serve.log").read_text()[-2000:]
            assert time.monotonic() - began_s < STARTS_S, (host.folder / "serve.log").read_text()[-2000:]
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def is_ready(address: str) -> bool:
    try:
        return httpx.get(address, timeout=2.0).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("pair", real_hosts.LOOPS, indirect=True)
def test_the_loop_of_an_unchanged_scaffold_closes(pair: Pair) -> None:
    host, last, next_key = pair.after, real_hosts.day(real_hosts.DAYS - 1), real_hosts.day(real_hosts.DAYS)
    real_hosts.land(host, days=real_hosts.DAYS)
    real_hosts.launch(host, f"advance__{NAME}", keys=(real_hosts.day(0), last))
    real_hosts.launch(host, f"retrain__{NAME}", key=next_key)
    answers = {}
    with served(host) as address:
        for order, at, amount, _label in real_hosts.rows(real_hosts.DAYS):
            moments = dict.fromkeys(("service_time", "asked_at"), at.isoformat())
            question = {"entity": order, **moments, "features": {"amount": amount}, "idempotency_key": order}
            answer = httpx.post(f"{address}/predict", json=question, timeout=10.0)
            assert answer.status_code == 200, answer.text
            answers[order] = answer.json()
    real_hosts.land(host, first=real_hosts.DAYS, days=2)
    real_hosts.launch(host, f"advance__{NAME}", keys=(next_key, real_hosts.day(real_hosts.DAYS + 1)))
    taken_in = json.loads(host.run(code=TAKEN_IN).splitlines()[-1])
    assert taken_in == {order: answer["prediction_id"] for order, answer in answers.items()}
    # The first release was asked, measured on all of its answers and decided about.
    state = json.loads(host.run("driftline", "status", NAME, "--json"))["products"][0]
    asked, newest = real_hosts.day(real_hosts.DAYS), real_hosts.day(real_hosts.DAYS + 1)
    assert (state["release"]["number"], state["release"]["cutoff"]) == (1, asked)
    quality = state["quality"]
    assert (quality["first"], quality["last"], quality["rows"]) == (asked, asked, real_hosts.A_DAY)
    assert quality["quality"]["auc"]["value"] > 0.8
    assert state["decision"]["key"] == newest
    assert state["decision"]["numbers"]["live_digest"] == state["release"]["digest"]
