"""`driftline`: the commands for a shell. Everything else is a Dagster job with run config.

Exit codes: 0 done, 1 not done and why, 130 interrupted. What a command does is imported when it runs, so that `--help`
is fast.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NoReturn

from platform_assets.base.settings import Settings, dagster_home_named
from platform_assets.base.wording import meant

if TYPE_CHECKING:
    from platform_assets.engine.product_files import Broken
    from platform_assets.product.spec import Product
    from platform_assets.store.product_store import ProductStore


NONE = "no product can be loaded"
LOG_COLUMNS = 132
"""Width of tables where the output is not a terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 0
    try:
        settings = Settings.from_environment()
        return int(options.run(settings, options))
    except Exception as problem:  # a bug is raised again, with its traceback
        sentence = _sentence(problem)
        if sentence is None:
            raise
        print(f"driftline: {sentence}", file=sys.stderr)
        return 1


def _sentence(problem: Exception) -> str | None:
    """Return a problem that a person can act on; None for a bug of ours, which needs its traceback."""
    import obstore

    from platform_assets.base import extras
    from platform_assets.base.problems import LedgerProblem
    from platform_assets.store.artifacts import ArtifactProblem
    from platform_assets.store.problems import TableProblem

    dagster = sys.modules.get("dagster")  # without it nothing has raised its failures
    if dagster is not None and isinstance(problem, dagster.Failure):
        return f"{problem.description}"
    if isinstance(problem, ModuleNotFoundError):
        problem = extras.named(problem)
    if isinstance(
        problem, ValueError | LookupError | extras.MissingExtra | ArtifactProblem | LedgerProblem | TableProblem
    ):
        return str(problem)
    if isinstance(problem, OSError | obstore.exceptions.BaseError):
        return f"{str(problem).partition(chr(10))[0]}. {_advice(problem, Settings.from_environment())}"
    return None


def _advice(problem: Exception, settings: Settings) -> str:
    """Return where to look: the settings' folders, unless the system names a file that lies outside of them."""
    name, own = getattr(problem, "filename", None), (settings.state, settings.root)
    folder = Path(name).absolute().parent if isinstance(name, str) else None
    if folder is None or any(folder.is_relative_to(Path(place).absolute()) for place in own):
        folders = f"DRIFTLINE_STATE ({settings.state}) and DRIFTLINE_ROOT ({settings.root})"
        return f"Check that {folders} exist, are writable, and have free space."
    return f"Check that the folder {folder} exists, is writable, and has free space."


class _Parser(argparse.ArgumentParser):
    """Names the command that was meant."""

    def error(self, message: str) -> NoReturn:
        """End with one sentence instead of the list of all commands."""
        if word := re.match(r"argument COMMAND: invalid choice: '([^']*)'", message):
            commands = re.findall(r"'?([a-z-]+)'?(?:, |\))", message.partition("(choose from ")[2])
            message = f"{word[1]!r} is not a command.{meant(word[1], commands)} `driftline --help` lists them"
            self.exit(2, f"driftline: {message}.\n")
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="driftline", description="Keep models fresh: data, training, release.")
    parser.add_argument("--version", action="version", version=f"driftline {version('driftline')}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND")

    def add(name: str, **about: Any) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(name, **about)
        command.set_defaults(run=globals()[f"_{name}"])  # the function below that has its name
        return command

    for add_commands in (_add_looking, _add_learning, _add_operating):
        add_commands(add)
    return parser


def _add_looking(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands that play, check and look."""
    demo = add("demo", help="land, train, serve, and replay weeks of data with an injected fault")
    _takes_product(demo, "the first that has a recording")
    demo.add_argument("--keys", type=int, metavar="N", help="replay N keys (default: all, at most 45)")
    demo.add_argument("--seed", type=int, default=1, metavar="S", help="seed of the injected fault (default: 1)")
    demo.add_argument("--stay", action="store_true", help="keep Dagster's UI and the service up until Ctrl-C")

    add("dev", help="open Dagster's UI on the demo's data, until Ctrl-C or SIGTERM")

    new = add("new", help="look at a table and write the file of a first product")
    new.add_argument("name", metavar="NAME", help="what the product is called")
    new.add_argument("--from", dest="table", required=True, metavar="FILE", help="CSV or Parquet; a URL with --query")
    new.add_argument("--query", metavar="SQL", help="the SELECT that gives the rows, of the database at --from")
    new.add_argument("--password-env", metavar="NAME", help="the environment's variable with the database's password")
    new.add_argument("--label", required=True, metavar="COLUMN", help="what to predict")
    new.add_argument("--time", metavar="COLUMN", help="the moment of a row (default: it has none)")

    _takes_product(add("check", help="try a product's file on its recording or landed files"), "all")

    _takes_product(add("explain", help="print every value of a product, and why the file need not state it"))

    _takes_product(add("try", help="check, train, judge, ask once and report in one process; nothing is released"))

    stale = add("stale", help="print each asset's code digest, or what a change since then makes again")
    stale.add_argument("--since", metavar="FILE", type=Path, help="what this command printed for another commit")

    status = add("status", help="show what serves, how good it is, what was decided, and what to do")
    _takes_product(status, "all")
    status.add_argument("--at", metavar="DATE", help="what was so at the end of a date, or at a moment, by the records")
    status.add_argument("--json", action="store_true", help="print one JSON object")

    trace = add("trace", help="trace an answer back to model, training, rows and landed files")
    _takes_product(trace, "the first")
    trace.add_argument("prediction_id", metavar="PREDICTION_ID", help="the id in the answer")
    trace.add_argument("--key", help="the answer's key, if it is not among the newest 366 with answers")
    trace.add_argument("--json", action="store_true", help="print one JSON object")

    predict = add("predict", help="ask the live model about a file: no server, nothing is logged")
    _takes_product(predict, "the first")
    predict.add_argument("file", metavar="FILE", type=Path, help=".json, .parquet, .csv, or a picture: .png, .jpg")
    predict.add_argument("--entity", help="entity of a picture (default: its file's name)")
    predict.add_argument("--service-time", metavar="UTC", help="service time of a picture (default: now)")
    predict.add_argument("--asked-at", metavar="UTC", help="when a picture is asked about (default: now)")


def _add_learning(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands that train, compare and report."""
    train = add("train", help="train once, live in this terminal; nothing is released")
    _takes_product(train)
    train.add_argument("--cutoff", required=True, metavar="KEY", help="learn from the labelled keys before it")
    train.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting: epochs=20, learner.rounds=9"
    )

    tune = add("tune", help="search for better settings on training keys; nothing is changed")
    _takes_product(tune)
    tune.add_argument("--cutoff", required=True, metavar="KEY", help="search on the labelled keys before its holdout")
    tune.add_argument("--trials", type=int, default=50, metavar="N", help="trials of the whole search (default: 50)")
    tune.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another seed starts another search (default: 0)"
    )
    tune.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="trials as steps at the same time (default: 1 in this process where DRIFTLINE_LAUNCHER is subprocess, "
        "otherwise the profile's at_once)",
    )

    backtest = add("backtest", help="replay history under every retraining policy: what each gains and costs")
    _takes_product(backtest)
    backtest.add_argument("--first", metavar="KEY", help="cutoff of the first model (default: the earliest)")
    backtest.add_argument("--last", metavar="KEY", help="last key to score (default: the newest with labels)")
    backtest.add_argument("--json", action="store_true", help="print one JSON object")

    runs = add("runs", help="list trainings with quality and cost")
    _takes_product(runs)
    runs.add_argument("--sort", metavar="COLUMN", default="at_utc", help="best first (default: newest first)")
    runs.add_argument("--json", action="store_true", help="print the records as one JSON object")

    report = add("report", help="write HTML: what to do, faults, quality, decisions, cost")
    _takes_product(report, "all")
    report.add_argument("--out", metavar="FILE", type=Path, help="output file (default: in .driftline/reports)")

    doctor = add(
        "doctor", help="read everything that a product stored, look at Dagster, or try connections and receivers"
    )
    about = (
        "the product; `dagster` says what Dagster does, `connections` tries each connection of a deployment, "
        "`receivers` sends a test alert to each receiver of alerts"
    )
    doctor.add_argument("product", metavar="PRODUCT", help=about)
    doctor.add_argument("--repair", action="store_true", help="rebuild records that cannot be read")


def _add_operating(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands that release, serve and deploy."""
    release = add("release", help="release a model without a passing verdict, under your name")
    _takes_product(release)
    release.add_argument("digest", metavar="DIGEST", help="digest of the model's bundle, or its first characters")
    release.add_argument("--override", required=True, metavar="REASON", help="why; it is recorded with your name")

    rollback = add("rollback", help="roll back to the previous model")
    _takes_product(rollback)
    rollback.add_argument("--why", help="the reason; it is recorded")

    keys = add("keys", help="make the key that signs releases and verdicts, and print its public key")
    keys.add_argument("file", metavar="FILE", type=Path, help="the private key; an existing one is kept")

    manifests = add("manifests", help="print what must run on Kubernetes for a product's newest release")
    _takes_product(manifests)
    manifests.add_argument("--replicas", type=int, metavar="N", help="a fixed number of pods, no autoscaler")

    serve = add("serve", help="serve the live model of a product, in a Bento that is built where it is missing")
    _takes_product(serve)
    serve.add_argument("--digest", metavar="DIGEST", help="only this model (or its first characters)")
    serve.add_argument("--port", type=int, default=3000, metavar="N", help="probes use the next one (default: 3000)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")

    exporter = add("exporter", help="serve metrics of Dagster and of the products for Prometheus")
    exporter.add_argument("--port", type=int, default=9464, metavar="N", help="port (default: 9464)")
    exporter.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    exporter.add_argument("--once", action="store_true", help="print the metrics once, and why a part has none")

    add("env", help='print shell exports of the settings: eval "$(driftline env)"')


def _takes_product(command: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the product as a command's first argument.

    Args:
        default: which product the command takes without one; None where it is required.
    """
    text = "the product" if default is None else f"the product (default: {default})"
    command.add_argument("product", metavar="PRODUCT", nargs=None if default is None else "?", help=text)


def _demo(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets.demo import script
    from platform_assets.demo.processes import ChildEnded
    from platform_assets.demo.replay.playing import ReplayProblem
    from platform_assets.demo.servers import DagsterProblem
    from platform_assets.store.product_store import ProductStore

    none = "no product has a recording to replay; add `history` to a SPEC"
    spec = _product(options.product, lambda spec: spec.history is not None, none)
    _check_profiles()
    _end_on_signals()
    try:
        script.run(ProductStore(spec, settings), is_staying=options.stay, keys=options.keys, seed=options.seed)
    except KeyboardInterrupt:
        print("Interrupted; every process was stopped.")
        return 130
    except (script.DemoProblem, ReplayProblem, DagsterProblem, ChildEnded) as problem:
        print(f"The demo did not finish.\n{problem}")
        return 1
    return 0


def _dev(settings: Settings, _options: argparse.Namespace) -> int:
    from platform_assets.demo import servers

    _check_profiles()
    _end_on_signals()
    return servers.dev(settings)


def _new(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets.scaffold import new
    from platform_assets.scaffold.reading import Given

    table = Given(place=options.table, query=options.query, password_env=options.password_env, time=options.time)
    file, facts = new.write(options.name, table, label=options.label)
    print(f"{file}: {facts}. Answer the questions in its comments.", flush=True)
    return _check(settings, argparse.Namespace(product=options.name))


def _check(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets import check as checking
    from platform_assets.data import materialisations
    from platform_assets.instance import home

    place = home.existing(settings)
    look = None if place is None else partial(materialisations.newest, place)
    count = 0
    for product, lines in checking.run(options.product, settings, look):
        print(checking.as_text(product, lines), flush=True)
        count += sum(line.is_problem for line in lines)
    return 1 if count else 0


def _explain(_settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets.check import explained
    from platform_assets.engine import product_files

    print(explained.as_text(product_files.load(options.product)))
    return 0


def _try(settings: Settings, options: argparse.Namespace) -> int:
    import webbrowser

    from rich.console import Console

    from platform_assets.base.settings import has_display
    from platform_assets.demo import trying
    from platform_assets.engine import product_files

    _check_profiles()
    tried = trying.run(product_files.load(options.product), settings, Console())
    if sys.stdout.isatty() and has_display():
        webbrowser.open(tried.report.as_uri())
    return 0


def _stale(_settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets.automation import stale
    from platform_assets.engine import product_files

    after = stale.digests(product_files.load_all())
    if options.since is None:
        print(json.dumps(after, indent=2))
        return 0
    print(stale.as_markdown(json.loads(options.since.read_text(encoding="utf-8")), after))
    return 0


def _status(settings: Settings, options: argparse.Namespace) -> int:
    from msgspec import to_builtins

    from platform_assets.automation import failed_runs
    from platform_assets.base.problems import LedgerProblem
    from platform_assets.instance import home
    from platform_assets.operations import status
    from platform_assets.store import pulse

    asked = None if options.at is None else status.parse(options.at)
    dagster = None if asked else home.existing(settings)
    silence = None if asked else pulse.silence(settings.root)
    states, problems = [], []
    for product in _products(options.product):
        try:
            failed = None if dagster is None else failed_runs.newest(dagster, product.name)
            states.append(status.read(settings, product, failed, asked))
        except status.NotOnRecord as problem:  # the others still have a state
            problems.append(f"{problem}")
        except LedgerProblem as problem:
            problems.append(f"{problem} `driftline doctor {product.name}` names all that is damaged.")
    if options.json:
        daemon = {} if asked else {"daemon": silence}
        print(json.dumps({**daemon, "products": to_builtins(states)}, indent=2))
    elif states:
        head = f"Store: {settings.root}" + (f"\n{silence}" if silence else "")
        print("\n\n".join([head, *(status.as_text(state) for state in states)]))
    for sentence in problems:
        print(f"driftline: {sentence}", file=sys.stderr)
    return 1 if problems else 0


def _trace(settings: Settings, options: argparse.Namespace) -> int:
    from msgspec import to_builtins

    from platform_assets.operations import trace

    result = trace.of_prediction(_opened(settings, options), options.prediction_id, key=options.key)
    print(json.dumps(to_builtins(result), indent=2) if options.json else trace.as_text(result))
    return 0


def _predict(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets.serving import asking

    about = asking.About(options.entity, options.service_time, options.asked_at)
    for answer in asking.answers(_opened(settings, options), options.file, about):
        print(json.dumps(answer))
    return 0


def _train(settings: Settings, options: argparse.Namespace) -> int:
    from rich.console import Console

    from platform_assets.operations.experiments import runs, train
    from platform_assets.training.steps.process import EXIT_PREEMPTED, Preempted

    _check_profiles()
    product, console = _opened(settings, options), Console()
    try:
        record = train.run(product, options.cutoff, options.set, console)
    except Preempted:
        console.print("Stopped; the same command goes on from the newest save, if the learner resumes.")
        return EXIT_PREEMPTED
    listed = [run for run in runs.on_record(product) if run.training.fingerprint == record.fingerprint]
    Console(width=LOG_COLUMNS).print(runs.as_table(product.name, listed, product.spec.task))
    return 0


def _tune(settings: Settings, options: argparse.Namespace) -> int:
    from rich.console import Console

    from platform_assets.launch import launchers
    from platform_assets.operations.experiments import tune
    from platform_assets.training.steps.process import EXIT_PREEMPTED, Preempted

    if options.trials < 1:
        raise ValueError(f"--trials is {options.trials}; expected at least 1.")
    _check_profiles()
    product, console = _opened(settings, options), Console()
    is_here = settings.launcher == "subprocess" and options.at_once in (None, 1)
    launcher = None if is_here else launchers.launcher(settings)
    try:
        trials = tune.run(
            product,
            options.cutoff,
            options.trials,
            console,
            seed=options.seed,
            launcher=launcher,
            at_once=options.at_once,
        )
    except Preempted:
        console.print("Stopped; the same command goes on with this search.")
        return EXIT_PREEMPTED
    print(tune.report(product.spec, options.cutoff, trials))
    return 0 if tune.best(trials) else 1


def _backtest(settings: Settings, options: argparse.Namespace) -> int:
    from rich.console import Console

    from platform_assets.launch import launchers
    from platform_assets.operations.experiments import backtest

    _check_profiles()
    product = _opened(settings, options)
    replayed = backtest.run(product, launchers.launcher(settings), options.first, options.last)
    if options.json:
        print(backtest.as_json(replayed))
    else:
        print("\n".join(replayed.sentences()))
        Console(width=LOG_COLUMNS).print(backtest.as_table(replayed))
    return 0


def _runs(settings: Settings, options: argparse.Namespace) -> int:
    from rich.console import Console

    from platform_assets.operations.experiments import runs

    product = _opened(settings, options)
    task = product.spec.task
    listed = runs.sorted_by(runs.on_record(product), options.sort, task)
    if options.json:
        print(json.dumps({"runs": [{"run": run.number, "usd": run.usd, **run.training.document()} for run in listed]}))
    elif not listed:
        print(f"{product.name} has no training on record; `driftline train {product.name} --cutoff KEY` makes one.")
    else:
        # A narrower terminal wraps lines; a narrower table cuts numbers.
        Console(width=LOG_COLUMNS).print(runs.as_table(product.name, listed, task))
    return 0


def _report(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets.base.problems import LedgerProblem
    from platform_assets.operations.report import pages

    if options.out is not None and options.product is None:
        raise ValueError("--out is one file; expected PRODUCT before it, whose report it is to be.")
    damaged = False
    for product in _products(options.product):
        path = options.out or pages.default_path(settings, product)
        try:
            print(pages.write(settings, product, path.absolute()))
        except LedgerProblem as problem:  # the others still have a report
            damaged = True
            print(f"driftline: {problem} `driftline doctor {product.name}` names all that is damaged.", file=sys.stderr)
    return int(damaged)


def _doctor(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets.alerts import trial
    from platform_assets.base import naming
    from platform_assets.engine import product_files
    from platform_assets.kubernetes import connections
    from platform_assets.operations import doctor

    if options.product == "connections":
        return connections.run(settings)
    if options.product == "receivers":
        return trial.run(settings)
    if options.product == "dagster":
        return _look_at_dagster(settings)
    naming.check_name(options.product, "PRODUCT")
    if options.product not in product_files.names() and not doctor.has_stored(settings.root, options.product):
        raise ValueError(
            f"nothing is stored about a product {options.product!r} in {settings.root}; the products are "
            f"{', '.join(product_files.names())}."
        )
    return doctor.run(settings.root, options.product, is_repairing=options.repair)


def _look_at_dagster(settings: Settings) -> int:
    from sqlalchemy.exc import SQLAlchemyError

    from platform_assets.automation import dagster_state
    from platform_assets.operations import exporter
    from platform_assets.operations.exporter import code_locations

    problems: list[type[Exception]] = [SQLAlchemyError]
    with suppress(ImportError):  # without it the database is another
        from dagster_postgres.utils import DagsterPostgresException

        problems.append(DagsterPostgresException)
    home = dagster_home_named() or settings.dagster_home
    try:
        with exporter.opened(home) as instance:
            for line in dagster_state.lines(instance):
                print(line)
    except tuple(problems) as error:
        cause = f"{error.__cause__ or error}".partition("\n")[0]
        raise ValueError(f"the database of {home}/dagster.yaml cannot be read: {cause}") from error
    if settings.dagster_url is not None:
        print("Code locations")
        for name, problem in code_locations.problems(settings.dagster_url).items():
            print(f"  {name}: {problem or 'loaded'}")
    return 0


def _release(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets.serving import releasing

    print(releasing.override(_opened(settings, options), options.digest, options.override))
    return 0


def _rollback(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets.serving import releasing

    print(releasing.roll_back(_opened(settings, options), options.why))
    return 0


def _keys(_settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets.evaluation import signing

    path = options.file.absolute()
    public = signing.make_key(path)
    print(
        f"private key: {path}; set DRIFTLINE_SIGNING_KEY_FILE to this path where releases and verdicts are signed\n"
        "public key; services with DRIFTLINE_SERVING_KEYS set to it follow only releases signed with this key",
        file=sys.stderr,
    )
    print(public)
    return 0


def _manifests(settings: Settings, options: argparse.Namespace) -> int:
    from platform_assets.kubernetes import service_manifests as manifests

    if options.replicas is not None and options.replicas < 1:
        raise ValueError(f"--replicas is {options.replicas}; expected at least 1.")
    print(manifests.manifests(_opened(settings, options), options.replicas), end="")
    return 0


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    """Become the server of the product's Bento, built where it is missing."""
    from platform_assets.serving.releasing import whole
    from platform_assets.serving.run import build, child

    product = _opened(settings, options)
    if options.digest is not None:
        digest = whole(product, options.digest)
        settings = settings.replace(serving_digest=digest)
    elif (live := product.history.live()) is not None:
        digest = live[1].digest
    else:
        raise ValueError(f"{product.name} has no release in {settings.root}: there is no model to serve yet.")
    command = child.command(build.build(settings, product.artifacts, digest).tag, options.port, options.host)
    os.execve(command[0], command, settings.child_environment())


def _exporter(settings: Settings, options: argparse.Namespace) -> int:
    import prometheus_client

    from platform_assets.engine import product_files
    from platform_assets.operations import exporter

    loaded, broken = product_files.load_each()
    home, patience_s = dagster_home_named() or settings.dagster_home, exporter.ONCE_S if options.once else None
    registry = exporter.metrics(settings, [*loaded, *broken], home, patience_s)
    if options.once:
        print(prometheus_client.generate_latest(registry).decode(), end="")
        return 0
    server, thread = prometheus_client.start_http_server(options.port, addr=options.host, registry=registry)
    print(f"Metrics are at http://{options.host}:{server.server_port}/metrics.", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: Thread(target=server.shutdown).start())
    thread.join()
    return 0


def _env(settings: Settings, _options: argparse.Namespace) -> int:
    from platform_assets.instance import home

    variables = settings.to_environment()
    if home.SOURCE.exists():
        home.prepare(settings)
    else:
        del variables["DAGSTER_HOME"]  # the project's own stays
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _products(name: str | None) -> list[Product | Broken]:
    """Return the product with a name, or all; one whose file is broken as `Broken`."""
    from platform_assets.engine import product_files

    loaded, broken = product_files.load_each()
    products: list[Product | Broken] = [*loaded, *broken]
    return [product for product in products if name in (None, product.name)] or [_product(name)]


def _opened(settings: Settings, options: argparse.Namespace) -> ProductStore:
    """Open the product that a command names, or the first."""
    from platform_assets.store.product_store import ProductStore

    return ProductStore(_product(options.product), settings)


def _product(name: str | None, is_fit: Callable[[Product], bool] = lambda _: True, otherwise: str = NONE) -> Product:
    """Return the product with a name, or the first that fits; without one, the error names those that are broken."""
    from platform_assets.engine import product_files

    if name is not None:
        return product_files.load(name)
    products, broken = product_files.load_each()
    product = next(filter(is_fit, products), None)
    if product is None:
        raise ValueError("\n".join([f"{otherwise} in platform_assets/products/.", *(one.error for one in broken)]))
    return product


def _check_profiles() -> None:
    """Refuse wrong profiles here, in a sentence: a server would die of them with a traceback."""
    from platform_assets.launch import profiles

    profiles.profile("cpu_small")


def _end_on_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As a shell reports a process that a signal has ended.
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))


if __name__ == "__main__":
    sys.exit(main())
