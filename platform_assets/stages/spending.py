"""Keep at hand what the ledgers say about money, so that a year of attempts is not read record by record at each run.

Belongs here: reading the ledgers of attempts, backtests, releases and overspendings, and the file in which the asset
`cost` keeps what it read. Does not belong here: sums (`compute.costs`), or the asset.

Records are written once and their numbers have no gaps: what was read stays true, and only newer numbers are read. The
file may be lost, damaged or of an older version: then the ledgers are read again.
"""

from collections.abc import Mapping
from typing import Any

from platform_assets import naming
from platform_assets.compute import costs
from platform_assets.storage.artifacts import canonical, sha256
from platform_assets.storage.ledgers import LedgerProblem, Ledgers

GATHERED, RECORDS, FORMAT = "gathered", "records", "format"
ATTEMPTS_READ = 400
"""Of the newest records without the file; a try that its launcher and its step both told of is two."""
OF_AN_ATTEMPT = (
    *("id", "by", "step", "fingerprint", "cutoff", "digest", "reason"),
    *("profile", "is_spot", "usd_per_hour", "on_demand_usd_per_hour"),
    *("requested_at_utc", "started_at_utc", "ended_at_utc", "wall_s", "waited_s"),
    *("resumed_from_step", "steps_done", "steps_saved", "steps_lost"),
)
KEPT = {
    naming.ATTEMPTS: OF_AN_ATTEMPT,
    naming.BACKTEST_ATTEMPTS: OF_AN_ATTEMPT,
    naming.RELEASES: ("channels", "cutoff", "outcome"),
    naming.OVERSPENDINGS: ("cutoff", "fingerprint", "over_usd", "why"),
}
"""What is kept of each ledger's records."""

Kept = Mapping[str, list[list[Any]]]
"""Number and record by ledger, oldest first; JSON values."""


def kept(ledgers: Ledgers) -> Kept:
    """Return what the file holds; nothing where there is none that can be used."""
    try:
        found = ledgers.read(naming.COST, GATHERED) or {}
    except LedgerProblem:
        found = {}
    return found[RECORDS] if found.get(FORMAT) == _format() else {ledger: [] for ledger in KEPT}


def keep(ledgers: Ledgers, found: Kept) -> None:
    """Write the file."""
    ledgers.overwrite(naming.COST, GATHERED, {FORMAT: _format(), RECORDS: found})


def gathered(ledgers: Ledgers, before: Kept) -> Kept:
    """Return what was kept before, and what was written since."""
    return {
        ledger: [
            *before[ledger],
            *(
                [number, {name: record.get(name) for name in names}]
                for number, record in ledgers.each(ledger, told(before, ledger) + 1)
            ),
        ]
        for ledger, names in KEPT.items()
    }


def told(found: Kept, ledger: str) -> int:
    """Return the number of the newest record of a ledger that was gathered; 0 for none."""
    return int(found[ledger][-1][0]) if found[ledger] else 0


def attempts(found: Kept, ledger: str = naming.ATTEMPTS) -> list[costs.Attempt]:
    """Return each attempt once, the newest first; those of backtests know that they are."""
    step = costs.BACKTEST if ledger == naming.BACKTEST_ATTEMPTS else costs.TRAIN
    each_once = costs.attempts((number, record) for number, record in found[ledger])
    return [{**record, "step": record["step"] or step} for _, record in each_once]


def newest_attempts(ledgers: Ledgers) -> list[costs.Attempt]:
    """Return the attempts at trainings and exports, each once, the newest first.

    All that are in the file and those after it; of a ledger without the file the newest `ATTEMPTS_READ` records.
    """
    before = kept(ledgers)
    since = ledgers.newest_number(naming.ATTEMPTS) - told(before, naming.ATTEMPTS)
    new = ledgers.newest(naming.ATTEMPTS, min(since, ATTEMPTS_READ)) if since > 0 else []
    known = ((number, record) for number, record in before[naming.ATTEMPTS])
    return [record for _, record in costs.attempts([*known, *new])]


def _format() -> str:
    return sha256(canonical({ledger: list(names) for ledger, names in KEPT.items()}))
