"""Record a demo's plan and the results of its requests below `{state}/demo`, so that an interrupted demo can go on.

The platform never reads these files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from platform_assets.base.settings import Settings
from platform_assets.data.request_rows import RequestDocument
from platform_assets.demo import replay
from platform_assets.demo.replay import Injected
from platform_assets.demo.replay.playing import Requests
from platform_assets.product.spec import Product

T = TypeVar("T", bound=msgspec.Struct)


class StoredPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A demo's plan as stored; `fault` is its kind and then its keys."""

    first: str
    last: str
    seed: int
    fault: list[str] | None


class RequestResults(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a key's requests; `first` is the first one that was answered."""

    requests: int
    answered: int
    refused: int
    latency_us: list[int]
    first: RequestDocument | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a demo replays.

    Attributes:
        keys: in order; the first is the cutoff of the first training.
        available: how many keys the recording has for demos.
        seed: of the injected fault.
        injected: the fault; None when too few keys are replayed for one.
    """

    keys: tuple[str, ...]
    available: int
    seed: int
    injected: Injected | None


def plan(spec: Product, *, count: int | None, most: int, seed: int) -> Plan:
    """Return what a demo replays: its keys, and the fault drawn for them.

    Args:
        spec: a product with a history.
        count: how many keys; `most` of the recording's by default.
        most: what fits into the demo's budget.
        seed: of the fault.
    """
    first = replay.first_cutoff(spec)
    until = replay.history(spec).demo_until or first
    keys = spec.grain.span(first, until)
    if count is not None and not 1 <= count <= len(keys):
        raise ValueError(
            f"--keys is {count}; {spec.name} has a recording for 1 to {len(keys)} keys from {first} on. It ends with "
            f"history.demo_until in platform_assets/products/{spec.name}.py."
        )
    chosen = keys[: min(most, len(keys)) if count is None else count]
    return Plan(keys=chosen, available=len(keys), seed=seed, injected=replay.draw(spec, chosen, seed))


class Journal:
    """The files of one product's demo."""

    def __init__(self, settings: Settings, product: str) -> None:
        """Name the folder; it is made with the first file."""
        self.folder: Path = settings.state / "demo" / product

    def begin(self, plan: Plan) -> None:
        """Store the plan, or go on with the same one.

        Raises:
            ValueError: the demo was started with other keys or another seed.
        """
        begun = StoredPlan(
            first=plan.keys[0],
            last=plan.keys[-1],
            seed=plan.seed,
            fault=None if plan.injected is None else [plan.injected.kind.name, *plan.injected.keys],
        )
        stored = self._read("plan", StoredPlan)
        if stored is not None and stored != begun:
            raise ValueError(
                f"{self.folder} was started with --seed {stored.seed} for keys {stored.first} to {stored.last} "
                f"and cannot go on with --seed {plan.seed} to {plan.keys[-1]}. Deliveries cannot be taken back: "
                f"use the same options, start over with `rm -r {self.folder.parents[1]}`, which removes all that demos "
                "left there, or keep it and set DRIFTLINE_STATE to another folder."
            )
        self._write("plan", begun)

    def results_of(self, key: str) -> RequestResults | None:
        """Return the results of a key's requests, or None when not all of them were sent."""
        return self._read(f"asked-{key}", RequestResults)

    def note(self, key: str, requests: Requests) -> None:
        """Store the results of a key's requests."""
        noted = RequestResults(
            requests=requests.requests,
            answered=requests.answered,
            refused=requests.refused,
            latency_us=[round(seconds * 1e6) for seconds in requests.latency_s],
            first=None if requests.first is None else requests.first.request,
        )
        self._write(f"asked-{key}", noted)

    def _read(self, name: str, kind: type[T]) -> T | None:
        path = self.folder / f"{name}.json"
        return msgspec.json.decode(path.read_bytes(), type=kind) if path.exists() else None

    def _write(self, name: str, value: msgspec.Struct) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        waiting = self.folder / f"{name}.waiting"
        waiting.write_bytes(msgspec.json.encode(value))
        waiting.replace(self.folder / f"{name}.json")
