"""Send requests at a fixed rate, whatever is answered (open loop), each with one retry: a process of its own.

A request is repeated as the client in docs/serve.md does it: after `Retry-After`, if that is short, and a moment that
differs between requests.

Usage: python -m proof.chaos.r7_load RECORDS. Each line of standard input is a JSON object with `host`, `port` and
`rate` in requests per second, which holds from then on; at its end the requests under way are finished. RECORDS gets
one JSON list per request: `Call` in r7_calls.py names its items. Only the standard library is imported, so that a
request costs little CPU.
"""

import asyncio
import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any, TextIO

TIMEOUT_S = 2.0
"""For an answer to the request, and once more for the answer to its repetition."""
ATTEMPTS = 2
REPEATED = (429, 502, 503, 504)
"""Statuses of answers that are asked for again, as no answer is."""
LONGEST_S, MOMENT_S = 2.0, (0.05, 0.25)
"""Of `Retry-After`, beyond which a request is not repeated; and what is waited in addition."""
RETRY_AFTER = re.compile(rb"\r\nretry-after: *([0-9.]+)", re.IGNORECASE)
NO_ANSWER, TOO_LATE = 0, -1
"""Statuses of a connection that was refused or broke, and of an answer that did not come in time."""
FEATURES = {
    "temp": 12.5,
    "carrier": "UA",
    "wind": 3.25,
    "pressure": 1013.0,
    "seats": 180,
    "stops": None,
    "origin": "JFK",
    "is_holiday": False,
}
"""As in tests.doubles.models, which imports what a service needs."""


async def attempt(host: str, port: int, content: bytes) -> tuple[int, float, dict[str, Any]]:
    """Ask on a new connection, so that each replica gets its share; return status, `Retry-After` and answer."""
    head = (
        f"POST /predict HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(head.encode() + content)
                answer = await reader.read()
            finally:
                writer.close()
        begin, _, rest = answer.partition(b"\r\n\r\n")
        status = int(begin.split(None, 2)[1])
        wait = RETRY_AFTER.search(begin)
        return status, float(wait[1]) if wait else 0.0, json.loads(rest) if status == 200 else {}
    except TimeoutError:
        return TOO_LATE, 0.0, {}
    except (OSError, IndexError, ValueError):  # refused, reset, or cut off in the middle of an answer
        return NO_ANSWER, 0.0, {}


async def ask(place: dict[str, Any], number: int, due_s: float, records: TextIO) -> None:
    """Ask until there is an answer, at most twice, and record it."""
    name = f"2013-03-01_UA_{number}"
    moments = {"service_time": "2013-03-01T14:00:00Z", "asked_at": "2013-03-01T12:00:00Z"}
    row = {"entity": name, **moments, "features": FEATURES, "idempotency_key": name}
    content, begun_s, statuses = json.dumps(row).encode(), time.time(), list[int]()
    answer: dict[str, Any] = {}
    for count in range(1, ATTEMPTS + 1):
        status, wait_s, answer = await attempt(place["host"], place["port"], content)
        statuses.append(status)
        is_repeated = status in (NO_ANSWER, TOO_LATE, *REPEATED) and wait_s <= LONGEST_S
        if not is_repeated or count == ATTEMPTS:
            break
        await asyncio.sleep(wait_s + random.uniform(*MOMENT_S))
    took_s = time.time() - begun_s
    record = [begun_s, begun_s - due_s, took_s, statuses, answer.get("digest"), answer.get("probability")]
    records.write(json.dumps(record) + "\n")


async def send(records: TextIO) -> None:
    """Send until standard input ends."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(sys.stdin.fileno(), lambda: lines.put_nowait(sys.stdin.readline()))
    place, due_s, number, tasks = json.loads(await lines.get()), time.time(), 0, set[asyncio.Task[None]]()
    while True:
        while lines.empty() and (wait_s := due_s - time.time()) > 0:
            await asyncio.sleep(min(wait_s, 0.05))
        if not lines.empty():
            if not (line := lines.get_nowait()):
                break
            place, due_s = json.loads(line), time.time()
        task = asyncio.create_task(ask(place, number, due_s, records))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
        due_s += 1 / place["rate"]
        await asyncio.sleep(0)
    loop.remove_reader(sys.stdin.fileno())
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    with Path(sys.argv[1]).open("w", encoding="ascii", buffering=1) as file:
        asyncio.run(send(file))
