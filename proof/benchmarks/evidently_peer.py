"""Compute Evidently's PSI of every column, in its own virtual environment: `python evidently_peer.py FOLDER`.

Reads `reference.parquet` and `current.parquet`; writes `evidently.json`: the PSI of each column, and the CPU seconds
of one report once the libraries are warm. Independent of the project.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift


def report(current: pd.DataFrame, reference: pd.DataFrame) -> dict[str, float]:
    """Return the PSI of each column as a report gives it."""
    definition = DataDefinition(numerical_columns=list(reference.columns))
    result = Report([ValueDrift(column=name, method="psi") for name in reference.columns]).run(
        Dataset.from_pandas(current, data_definition=definition),
        Dataset.from_pandas(reference, data_definition=definition),
    )
    values = [metric["value"] for metric in result.dict()["metrics"]]
    return dict(zip(reference.columns, map(float, values), strict=True))


def main(folder: Path) -> None:
    """Warm up on a few rows, then measure one report."""
    warnings.simplefilter("ignore")
    reference, current = (pd.read_parquet(folder / f"{name}.parquet") for name in ("reference", "current"))
    report(current.head(1_000), reference.head(1_000))
    begin_s = time.process_time()
    values = report(current, reference)
    cpu_s = time.process_time() - begin_s
    (folder / "evidently.json").write_text(json.dumps({"psi": values, "cpu_s": cpu_s}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
