"""Goodput at three times the possible load: a bare process, one that refuses, and the shipped proxy in front of it.

An answer is good if it came within `DEADLINE_S`. Each round measures how many answers the service gives per second of
CPU time to a few callers who wait for each answer, and then sends three times as many requests as it
answered, at a fixed rate, in each of the three ways. The share is the good answers per CPU second then over those
before: wall-clock rates would show what else the machine does.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from platform_assets.base.settings import Settings
from platform_assets.serving.run import child as serving
from proof.benchmarks.harness import Measure
from tests.doubles import haproxy, pods

ROUNDS, OVERLOAD, SECONDS, WARM_S, CALLERS = 5, 3.0, 8, 5.0, 16
DEADLINE_S, GIVE_UP_S = 1.0, 3.0
UNLIMITED, WORTH_S = 1_000_000, 0.5
"""The in-flight limit of the bare process; the wait that the other's limit allows."""
LIMITS = {"DRIFTLINE_CONNECTIONS": "100000", "DRIFTLINE_REQUESTS_PER_S": "100000"}
"""All callers of this row have one address."""
BARE, REFUSING, PROXIED = "bare process", "in-flight limit", "behind haproxy"


@dataclass(frozen=True)
class Sent:
    """One request: the status (0 without an answer), and the seconds until it came."""

    status: int
    took_s: float

    @property
    def is_good(self) -> bool:
        """Whether the answer came while its caller still waited."""
        return self.status == 200 and self.took_s <= DEADLINE_S


def measures(settings: Settings, bento: Path, body: bytes, bare: serving.Server, shown: list[str]) -> list[Measure]:
    """Return the shares of goodput.

    Args:
        settings: of the service without a limit, which is running.
        bento: the folder of its Bento.
        body: of a request.
        bare: that service.
        shown: gets a sentence per phase.
    """
    possible, _ = asyncio.run(_possible(bare, body))
    limit = max(8, int(WORTH_S * possible))
    state = settings.state / "refusing"
    refusing = settings.replace(state=state, serving_in_flight=limit)
    shares: dict[str, list[float]] = {BARE: [], REFUSING: [], PROXIED: []}
    with pods.serving(refusing, bento) as server:
        port = port_of(server)
        with haproxy.running([(port, port + 1)], Path(state) / "haproxy.log", LIMITS) as (proxy, _):
            for number in range(ROUNDS):
                ways = [(BARE, port_of(bare), bare), (REFUSING, port, server), (PROXIED, proxy, server)]
                for name, address, service in ways if number % 2 == 0 else reversed(ways):
                    share, text = asyncio.run(_phase(address, service, body))
                    shown.append(f"round {number + 1}, {name}: {text}")
                    print(shown[-1], flush=True)
                    shares[name].append(share)
    shown.append(f"in-flight limit {limit}: what {WORTH_S:g} s of work allow")
    medians = {name: statistics.median(values) for name, values in shares.items()}
    return [
        Measure(
            "share of good answers per CPU second left at three times the load, behind haproxy",
            medians.pop(PROXIED),
            peers=medians,
            target=">= 0.9",
        )
    ]


async def ask(port: int, body: bytes, give_up_s: float = GIVE_UP_S) -> Sent:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    begun_s, status = time.monotonic(), 0
    try:
        async with asyncio.timeout(give_up_s):
            reader, writer = await asyncio.open_connection(serving.HOST, port)
            try:
                writer.write(head + body)
                status = int((await reader.readline()).split()[1])
                await reader.read()
            finally:
                writer.close()
    except (TimeoutError, OSError, IndexError):
        status = 0
    return Sent(status, time.monotonic() - begun_s)


async def _possible(service: serving.Server, body: bytes) -> tuple[float, float]:
    """Return how many requests a service answers per second, and per CPU second, to callers who wait."""
    port = port_of(service)
    while (await ask(port, body)).took_s > DEADLINE_S / 2:
        await asyncio.sleep(0.5)  # what was left waiting is answered first
    done, before_s, ends_s = 0, _cpu_s(service), time.monotonic() + WARM_S

    async def call() -> None:
        nonlocal done
        while time.monotonic() < ends_s:
            answer = await ask(port, body)
            done += answer.status == 200

    await asyncio.gather(*(call() for _ in range(CALLERS)))
    return done / WARM_S, done / (_cpu_s(service) - before_s)


async def _phase(port: int, service: serving.Server, body: bytes) -> tuple[float, str]:
    """Send too many requests; return the share of good answers that is left per CPU second, and a sentence."""
    possible, per_cpu_s = await _possible(service, body)
    rate, tasks = OVERLOAD * possible, list[asyncio.Task[Sent]]()
    before_s, begun_s = _cpu_s(service), time.monotonic()
    for count in range(int(rate * SECONDS)):
        await asyncio.sleep(max(0.0, begun_s + count / rate - time.monotonic()))
        tasks.append(asyncio.create_task(ask(port, body)))
    took_s = time.monotonic() - begun_s
    sent = await asyncio.gather(*tasks)
    share = sum(item.is_good for item in sent) / (_cpu_s(service) - before_s) / per_cpu_s
    waits = sorted(item.took_s for item in sent if item.is_good)
    worst = f", 99 % of them within {waits[int(0.99 * len(waits))]:.2f} s" if waits else ""
    refused = sum(item.status == 503 for item in sent) / len(sent)
    return share, (
        f"{share:.2f}; {len(sent) / took_s:.0f} requests per second, {possible:.0f} possible; {len(waits)} of "
        f"{len(sent)} answered in time{worst}; {refused:.0%} refused with 503"
    )


def port_of(service: serving.Server) -> int:
    return int(service.url.rsplit(":", 1)[1])


def _cpu_s(service: serving.Server) -> float:
    times = psutil.Process(service.process.pid).cpu_times()
    return times.user + times.system
