"""`driftline`: what a person does from a shell. Everything else is a Dagster job with run config.

Belongs here: arguments, output, exit codes: 0 done, 1 not done and why, 130 interrupted. What the commands do stands
in the modules below and is imported when a command runs, so that `--help` costs nothing.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from platform_assets.settings import Settings

if TYPE_CHECKING:
    from platform_assets.specs import Broken
    from platform_assets.specs.base import ProductSpec


LOG_COLUMNS = 132
"""How wide tables are where no terminal says how wide it is: a log."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 0
    options.product = getattr(options, "product", None) or getattr(options, "named", None)
    try:
        settings = Settings.from_environment()
        return int(options.run(settings, options))
    except Exception as problem:
        sentence = _sentence(problem)
        if sentence is None:
            raise
        print(f"driftline: {sentence}", file=sys.stderr)
        return 1


def _sentence(problem: Exception) -> str | None:
    """Return what a person can do something about; None for a mistake of ours, whose traceback is wanted."""
    import obstore

    from platform_assets.problems import LedgerProblem
    from platform_assets.storage.artifacts import ArtifactProblem
    from platform_assets.storage.problems import TableProblem

    if isinstance(problem, ValueError | LookupError | ArtifactProblem | LedgerProblem | TableProblem):
        return str(problem)
    if isinstance(problem, OSError | obstore.exceptions.BaseError):
        settings = Settings.from_environment()
        words = str(problem).split("\n", 1)[0]
        return (
            f"{words}. Look at DRIFTLINE_STATE ({settings.state}) and DRIFTLINE_ROOT ({settings.root}): whether they "
            "are there, may be written, and have room."
        )
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="driftline", description="Keep models fresh: data, training, service, release."
    )
    parser.add_argument("--version", action="version", version=f"driftline {version('driftline')}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND")

    demo = commands.add_parser("demo", help="land, train, serve, and replay weeks of keys with a fault among them")
    _takes_product(demo, "the first that has a recording")
    demo.add_argument("--keys", type=int, metavar="N", help="replay N keys; by default all it has, at most 45")
    demo.add_argument("--seed", type=int, default=1, metavar="S", help="of the fault that is delivered (default: 1)")
    demo.add_argument("--exit", action="store_true", help="end by itself instead of keeping the servers up")
    demo.set_defaults(run=_demo)

    dev = commands.add_parser("dev", help="open Dagster's UI on the same data as the demo's, until Ctrl-C or SIGTERM")
    dev.set_defaults(run=_dev)

    check = commands.add_parser(
        "check", help="try a product's file on its recording or landed files, before anything runs"
    )
    _takes_product(check, "all")
    check.set_defaults(run=_check)

    status = commands.add_parser("status", help="say what serves, how good it is, what was decided and what is wrong")
    _takes_product(status, "all")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.set_defaults(run=_status)

    trace = commands.add_parser("trace", help="follow an answer back to model, training, rows and landed files")
    _takes_product(trace, "the first")
    trace.add_argument("prediction_id", metavar="PREDICTION_ID", help="as the answer gave it")
    trace.add_argument("--key", help="the answer's key, for one that is older than the newest that are looked through")
    trace.add_argument("--json", action="store_true", help="print one JSON object")
    trace.set_defaults(run=_trace)

    report = commands.add_parser("report", help="write one HTML page: faults, quality, decisions, releases, cost")
    _takes_product(report, "the first")
    report.add_argument("--out", metavar="FILE", type=Path, help="where to; by default among the state's reports")
    report.set_defaults(run=_report)

    doctor = commands.add_parser("doctor", help="read all that a product has stored, and name what is damaged")
    doctor.add_argument("product")
    doctor.add_argument("--repair", action="store_true", help="make records that cannot be read again")
    doctor.set_defaults(run=_doctor)

    release = commands.add_parser("release", help="release a model without a passing verdict, in your name")
    _takes_product(release)
    release.add_argument("digest", metavar="DIGEST", help="of the model's bundle")
    release.add_argument("--override", required=True, metavar="REASON", help="why; it is recorded with your name")
    release.set_defaults(run=_release)

    rollback = commands.add_parser("rollback", help="put the model before the live one back")
    _takes_product(rollback)
    rollback.add_argument("--why", help="the reason, for whoever reads the ledger")
    rollback.set_defaults(run=_rollback)

    env = commands.add_parser("env", help='print shell exports of the settings: eval "$(driftline env)"')
    env.set_defaults(run=_env)
    return parser


def _takes_product(command: argparse.ArgumentParser, default: str | None = None) -> None:
    """Let a command take the product as its first argument, in every command alike.

    Args:
        command: of the parser.
        default: which product a command takes that was given none; None for one that must be given it.
    """
    text = "which product" if default is None else f"which product; by default {default}"
    command.add_argument("product", metavar="PRODUCT", nargs=None if default is None else "?", help=text)
    if default is not None:  # as it was once given
        command.add_argument("--product", dest="named", help=argparse.SUPPRESS)


def _demo(settings: Settings, options: argparse.Namespace) -> int:
    from rich.console import Console

    from platform_assets.demo import job
    from platform_assets.demo.processes import ChildEnded
    from platform_assets.demo.runs import DagsterProblem
    from platform_assets.handle import Product
    from platform_assets.replay.playing import ReplayProblem

    spec = _recorded(options.product)
    console = Console(width=None if sys.stdout.isatty() else LOG_COLUMNS)
    _end_on_signals()
    try:
        is_staying = console.is_terminal and not options.exit
        job.run(Product(spec, settings), console, is_staying=is_staying, keys=options.keys, seed=options.seed)
    except KeyboardInterrupt:
        console.print("interrupted; every process was ended.")
        return 130
    except (job.DemoProblem, ReplayProblem, DagsterProblem, ChildEnded, TimeoutError) as problem:
        console.print("The demo did not finish.", style="bold red")
        console.print(str(problem), markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


def _dev(settings: Settings, _options: argparse.Namespace) -> int:
    from platform_assets.demo import dev

    _end_on_signals()
    return dev.run(settings)


def _check(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets import checking

    count = 0
    for product, lines in checking.run(options.product, settings):
        print(checking.as_text(product, lines), flush=True)
        count += sum(line.is_problem for line in lines)
    return 1 if count else 0


def _status(settings: Settings, options: argparse.Namespace) -> int:
    from msgspec import to_builtins

    from platform_assets import status

    found = [status.of(settings, each) for each in _found(options.product)]
    if options.json:
        print(json.dumps({"products": to_builtins(found)}, indent=2))
    else:
        print("\n\n".join(status.as_text(each) for each in found))
    return 0


def _trace(settings: Settings, options: argparse.Namespace) -> int:
    from msgspec import to_builtins

    from platform_assets import trace
    from platform_assets.handle import Product

    found = trace.of_prediction(Product(_product(options.product), settings), options.prediction_id, key=options.key)
    print(json.dumps(to_builtins(found), indent=2) if options.json else trace.as_text(found))
    return 0


def _report(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets.report import pages

    spec = _product(None) if options.product is None else _found(options.product)[0]
    place = options.out or settings.state / "reports" / f"{spec.name}.html"
    print(pages.write(settings, spec, place.absolute()))
    return 0


def _doctor(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets import doctor

    return doctor.run(settings.root, options.product, is_repairing=options.repair)


def _release(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets import releasing, specs
    from platform_assets.handle import Product

    print(releasing.override(Product(specs.load(options.product), settings), options.digest, options.override))
    return 0


def _rollback(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets import releasing, specs
    from platform_assets.handle import Product

    print(releasing.roll_back(Product(specs.load(options.product), settings), options.why))
    return 0


def _env(settings: Settings, _options: argparse.Namespace) -> int:
    from platform_assets.demo import home

    home.prepare(settings)
    for name, value in settings.to_environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _found(name: str | None) -> list[ProductSpec | Broken]:
    """Return the product of a name, or all; one whose file is broken as that."""
    from platform_assets import specs

    loaded, broken = specs.load_each()
    every: list[ProductSpec | Broken] = [*loaded, *broken]
    return [each for each in every if name in (None, each.name)] or [_product(name)]


def _product(name: str | None) -> ProductSpec:
    from platform_assets import specs

    return _first(lambda _: True, "no product can be loaded") if name is None else specs.load(name)


def _recorded(name: str | None) -> ProductSpec:
    from platform_assets import specs

    if name is not None:
        return specs.load(name)
    return _first(lambda spec: spec.history is not None, "no product has a history to replay; give one to a SPEC")


def _first(is_wanted: Callable[[ProductSpec], bool], otherwise: str) -> ProductSpec:
    """Return the first product of a kind; those whose file is broken are left out, and named where none is left."""
    from platform_assets import specs

    found, broken = specs.load_each()
    wanted = next(filter(is_wanted, found), None)
    if wanted is None:
        raise ValueError("\n".join([f"{otherwise} in platform_assets/specs/.", *(each.error for each in broken)]))
    return wanted


def _end_on_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
