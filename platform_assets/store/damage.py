"""Find ledger records that are missing or unreadable, whatever their kind."""

from __future__ import annotations

from collections.abc import Iterator

from platform_assets.base import naming
from platform_assets.base.problems import LedgerProblem
from platform_assets.store import objects
from platform_assets.store.ledgers import Ledgers, file_name


def ledger_files(root: str, product: str) -> dict[str, list[str]]:
    """Return the file names in each ledger."""
    import obstore

    if not objects.is_there(root):
        return {}
    names_by_ledger: dict[str, list[str]] = {}
    below = naming.ledger_path(product, "").strip("/")
    for batch in obstore.list(objects.open_store(root), below):
        for item in batch:
            ledger, _, name = item["path"].removeprefix(f"{below}/").rpartition("/")
            names_by_ledger.setdefault(ledger, []).append(name)
    return {ledger: sorted(names) for ledger, names in sorted(names_by_ledger.items())}


def damaged_records(root: str, product: str, ledger: str, names: list[str]) -> Iterator[str]:
    """Yield a sentence per record that is missing or unreadable. Costs one read per record."""
    store = Ledgers(root, product)
    numbered = {name for name in names if name.removesuffix(".json").isdigit() and len(name) == len(file_name(1))}
    numbers = {int(name.removesuffix(".json")) for name in numbered}
    for number in sorted(numbers):
        if number > 1 and number - 1 not in numbers:
            yield f"{ledger}: record {number - 1} is missing, although {number} exists."
        try:
            store.at(ledger, number)
        except LedgerProblem as problem:
            yield str(problem)
    for name in names:
        if name.endswith(".json") and name not in numbered:
            try:
                store.read(ledger, name.removesuffix(".json"))
            except LedgerProblem as problem:
                yield str(problem)
