"""The loop under twenty kills.

One week is replayed twice from the same start, with a dead feed and a training in it: once undisturbed, once with
twenty SIGKILLs at daemon, webserver, code server, run, trainer, service and its workers, which a supervisor restarts.
The platform's results must be equal, and nothing may be lost, duplicated or left hanging.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from platform_assets import naming, replay
from platform_assets.handle import Product
from platform_assets.records.attempts import ATTEMPTS, unique_attempts
from platform_assets.replay.faults import Injected, inject
from platform_assets.replay.playing import Player
from platform_assets.replay.waiting import wait_for_decision, wait_for_outcome
from platform_assets.settings import Settings
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore
from tests.benchmarks.harness import Measure
from tests.chaos.location import CUTOFF, SPEC
from tests.chaos.supervisor import KINDS, Killer, Supervisor

KEYS, KILLS, SEED = 7, 20, 20130301
FAULT, FAULTY = "dead_delay_feed", 1
"""Kind of the week's fault, and the key that has it."""
SETTLE_S = 180.0
MODULE = "tests.chaos.location"
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
MEASURED = ("measured", "by")
"""Members that may differ between two replays: costs, and the name of a run."""


@dataclass(frozen=True, kw_only=True)
class Week:
    """The results of a replay."""

    decisions: Mapping[str, Any]
    verdicts: Mapping[str, Any]
    releases: Sequence[Any]
    faults: Mapping[str, Sequence[Any]]
    answered: Mapping[str, Sequence[str]]
    attempts: int
    hanging: int


def run() -> list[Measure]:
    """Replay the week twice and compare."""
    keys = SPEC.grain.span(CUTOFF, SPEC.grain.shift(CUTOFF, KEYS - 1))
    with tempfile.TemporaryDirectory(prefix="driftline-chaos-") as folder:
        path = Path(folder)
        start = _settings(path / "begun")
        tag = _begin(start)
        calm, stormy = (_copy(start, path / name) for name in ("calm", "stormy"))
        print("a week left alone", flush=True)
        alone, _ = _replay(calm, tag, keys, killer_of=None)
        print(f"the same week with {KILLS} kills, seed {SEED}", flush=True)
        killed, storm = _replay(
            stormy, tag, keys, killer_of=lambda supervisor: Killer(supervisor, count=KILLS, seed=SEED)
        )
    assert storm is not None
    differ = {
        name: _differences(getattr(alone, name), getattr(killed, name))
        for name in ("decisions", "verdicts", "releases", "faults")
    }
    lost = sum(len(set(alone.answered[key]) - set(killed.answered[key])) for key in keys)
    doubled = sum(len(killed.answered[key]) - len(set(killed.answered[key])) for key in keys)
    kinds = {kind: float(storm.killed.count(kind)) for kind in KINDS}
    return [
        Measure(measure="processes killed", ours=len(storm.killed), peers=kinds, target=f">= {KILLS}"),
        Measure(measure="of them trainers", ours=kinds["trainer"], target=">= 1"),
        Measure(measure="keys without a decision", ours=len(set(keys) - set(killed.decisions)), target="<= 0"),
        *(Measure(measure=f"{name} that differ", ours=count, target="<= 0") for name, count in differ.items()),
        Measure(measure="answered entities lost", ours=lost, target="<= 0"),
        Measure(measure="answered entities doubled", ours=doubled, target="<= 0"),
        Measure(measure="runs left under way", ours=killed.hanging, target="<= 0"),
        Measure(measure="attempts gained over the calm week", ours=killed.attempts - alone.attempts, target=">= 0"),
    ]


def _settings(state: Path) -> Settings:
    return Settings(root=str(state / "store"), state=state)


def _begin(settings: Settings) -> str:
    """Bring a platform to its first release and return the tag of its Bento."""
    history = replay.history(SPEC)
    first = SPEC.grain.span(history.demo_first, history.demo_last)
    list(replay.land(Product(SPEC, settings), first, labelled=replay.labels_known(SPEC, CUTOFF)))
    replay.move_on(Product(SPEC, settings), SPEC.grain.instant(CUTOFF))
    with Supervisor(settings, MODULE) as supervisor:
        wait_for_decision(Product(SPEC, settings), history.demo_last, check=supervisor.check)
        wait_for_outcome(Product(SPEC, settings), CUTOFF, check=supervisor.check)
        _settle(settings)
    return str(TableStore(settings.root, SPEC.name).records("service", [CUTOFF])[CUTOFF].notes["tag"])


def _copy(start: Settings, state: Path) -> Settings:
    shutil.copytree(start.state, state)
    return _settings(state)


def _replay(
    settings: Settings, tag: str, keys: Sequence[str], *, killer_of: Callable[[Supervisor], Killer] | None
) -> tuple[Week, Killer | None]:
    kind = next(kind for kind in replay.history(SPEC).faults if kind.name == FAULT)
    spec = inject(SPEC, Injected(kind=kind, keys=(keys[FAULTY],)))
    killer = None
    with Supervisor(settings, MODULE, tag) as supervisor:
        with Player(Product(spec, settings), supervisor.address, check=supervisor.check) as player:
            if killer_of is None:
                _play(player, keys)
            else:
                with killer_of(supervisor) as killer:
                    _play(player, keys, killer)
        hanging = _settle(settings)
        print(f"  started again: {dict(supervisor.restarts)}", flush=True)
    return _read(settings, keys, hanging), killer


def _play(player: Player, keys: Sequence[str], killer: Killer | None = None) -> None:
    for number, key in enumerate(keys, 1):
        began_s = time.monotonic()
        played = player.play(key)
        print(f"  {key}: {played.decision.action} after {time.monotonic() - began_s:.0f} s", flush=True)
        if killer is not None:
            killer.keep_pace(number / len(keys))


def _settle(settings: Settings) -> int:
    """Wait until no run is under way; return how many still are when the time limit is reached."""
    deadline = time.monotonic() + SETTLE_S
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        while True:
            unfinished = instance.get_runs_count(dg.RunsFilter(statuses=UNDER_WAY))
            if not unfinished or time.monotonic() > deadline:
                return int(unfinished)
            time.sleep(1.0)


def _read(settings: Settings, keys: Sequence[str], hanging: int) -> Week:
    ledgers, tables = Ledgers(settings.root, SPEC.name), TableStore(settings.root, SPEC.name)
    judged = tables.records("evaluation")
    answered = tables.records("predictions", keys)
    return Week(
        decisions={key: _lasting(result) for key in keys if (result := ledgers.read(naming.DECISIONS, key))},
        verdicts={key: ledgers.read(naming.VERDICTS, record.content_digest) for key, record in judged.items()},
        releases=[_lasting(record) for _, record in ledgers.records(naming.RELEASES)],
        faults={key: [_lasting(item) for _, item in ledgers.records(f"{naming.FAULTS}/{key}")] for key in keys},
        answered={
            key: tables.read("predictions", [key])["entity"].to_list() if key in answered else [] for key in keys
        },
        attempts=len(unique_attempts(ledgers.of(ATTEMPTS).records())),
        hanging=hanging,
    )


def _lasting(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in MEASURED}


def _differences(one: Any, other: Any) -> int:
    """Return how many records differ, and print each pair."""
    pairs = (
        [(key, one.get(key), other.get(key)) for key in sorted({*one, *other})]
        if isinstance(one, Mapping)
        else [(path, *pair) for path, pair in enumerate(zip(one, other, strict=False))]
    )
    different = [(name, left, right) for name, left, right in pairs if left != right]
    for name, left, right in different:
        print(f"  {name} differs:\n    {left}\n    {right}", flush=True)
    return len(different) + (0 if isinstance(one, Mapping) else abs(len(one) - len(other)))
