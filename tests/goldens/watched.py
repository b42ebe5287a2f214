"""Watch a step process, and report which of the code it ran is not covered by its maker's digest.

The process runs as a launcher starts it; only its product comes from a walk and is in no file of the project. The
watch begins after it has read the product, which a digest holds by value, and compared digests with its run's.
"""

import atexit
import json
import os
import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

PRODUCT, REPORTS = "GOLDENS_PRODUCT", "GOLDENS_REPORTS"
HERE = Path(__file__).parent
MAKERS = {"train": "Learning", "export": "Exporting"}
"""The maker whose digest a step compares, by the step's module."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a step process ran.

    Attributes:
        step: the module that it was started with.
        maker: the maker whose digest it compared with that of its run.
        ran: the number of functions and modules of the project.
        missing: those outside of the digest and of the code that transfers bytes.
    """

    step: str
    maker: str
    ran: int
    missing: list[str]


def arranged(monkeypatch: pytest.MonkeyPatch, product: str, reports: Path) -> Callable[[], list[Report]]:
    """Watch every step process started from here; return a function that reads their reports."""
    reports.mkdir()
    path = os.pathsep.join(str(folder) for folder in (HERE / "hook", HERE.parents[1]))
    for name, value in {"PYTHONPATH": path, PRODUCT: product, REPORTS: str(reports)}.items():
        monkeypatch.setenv(name, value)
    return lambda: [Report(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(reports.iterdir())]


def begin() -> None:
    """Watch this process, using the walk's product instead of the project's files, and report at its end."""
    from platform_assets.engine import product_files
    from platform_assets.training.steps import instructions
    from tests.goldens.watching import export_once, is_importing

    check_maker, load_shipped = instructions.check_maker, product_files.load_of

    def load(product: str, module: str) -> Any:
        if product != os.environ[PRODUCT]:
            return load_shipped(product, module)
        from tests.goldens.products import WALKS

        return WALKS[product]().spec

    def check(extras: Any, maker: Any) -> None:
        check_maker(extras, maker)
        if type(maker).__name__ == MAKERS["export"]:
            export_once()
        ran: dict[int, CodeType] = {}

        def see(frame: FrameType, event: str, _: Any) -> None:
            if event == "call" and (number := id(frame.f_code)) not in ran and not is_importing(frame):
                ran[number] = frame.f_code

        atexit.register(_report, maker, ran.values())
        sys.settrace(see)  # as it returns None, Python calls it once per call, and not per return or line
        threading.settrace(see)

    product_files.load_of, instructions.check_maker = load, check


def _report(maker: Any, ran: Collection[CodeType]) -> None:
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    from tests.goldens.watching import REPOSITORY, STEP, missing

    report = Report(
        step=Path(sys.argv[0]).stem,
        maker=type(maker).__name__,
        ran=sum(code.co_filename.startswith(str(REPOSITORY / "platform_assets")) for code in ran),
        missing=missing([maker], ran, STEP),
    )
    Path(os.environ[REPORTS], f"{os.getpid()}.json").write_text(json.dumps(asdict(report)), encoding="utf-8")
