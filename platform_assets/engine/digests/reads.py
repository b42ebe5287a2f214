"""Refuse reads of files by a product's code, whose content no digest covers; `data_file` is the way to read one.

Python's own reads raise an audit event. Readers in compiled code raise none, so they are wrapped. Both act only on a
thread while a product's code runs there (`guarded`), and there only on what that code asks for: imports, time zones,
what an installed distribution reads of its own files, what the same call wrote, and what the platform reads pass.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.machinery
import os
import re
import stat
import sys
import threading
import zoneinfo
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Literal
from urllib.parse import unquote

from platform_assets.base.problems import Problem
from platform_assets.engine import digests
from platform_assets.engine.digests import modules
from platform_assets.product import data_files

READERS: dict[str, tuple[str, ...]] = {
    "polars": ("read_*", "scan_*", *(f"{kind}.deserialize" for kind in ("DataFrame", "LazyFrame", "Expr"))),
    "deltalake": ("DeltaTable.__init__", "DeltaTable.is_deltatable"),
    "pyarrow": ("memory_map", "input_stream"),
    "pyarrow.parquet": ("read_*", "ParquetFile.__init__", "ParquetDataset.__init__"),
    "pyarrow.dataset": ("dataset", "parquet_dataset"),
    "pyarrow.csv": ("read_csv", "open_csv"),
    "pyarrow.json": ("read_json", "open_json"),
    "pyarrow.feather": ("read_*", "FeatherDataset.__init__"),
    "pyarrow.orc": ("read_*", "ORCFile.__init__"),
    "pyarrow.ipc": ("open_file", "open_stream"),
    "obstore.store": ("LocalStore.__init__", "from_url"),
    "safetensors": ("safe_open",),
    "safetensors.torch": ("load_file", "safe_open"),
    "safetensors.numpy": ("load_file", "safe_open"),
    "onnxruntime": ("InferenceSession.__init__",),
    "lightgbm": ("Booster.__init__", "Dataset.__init__"),
    "torch.jit": ("load",),
}
"""Functions and methods that read files without an audit event, by module."""
_SOURCES = (
    *("source", "table_uri", "path", "paths", "where", "filename"),
    *("model_file", "path_or_bytes", "url", "data", "f", "prefix"),
)
"""What readers call the file, where it is not their first argument."""
_ALWAYS = {"read_database", "read_database_uri", "read_clipboard"}
"""Readers whose arguments name no file."""
_SQL_READER = re.compile(r"\b(read|scan)_\w+\s*\(", re.IGNORECASE)
_COMMANDS = {"subprocess.Popen": 1, "os.system": 0, "os.posix_spawn": 1, "os.exec": 1, "os.spawn": 2}
"""Events of other programs, with the place of the command among their arguments."""
_EVENTS = frozenset(
    {
        *("open", "os.listdir", "os.scandir", "os.mkdir", "sqlite3.connect", "import"),
        *_COMMANDS,
    }
)
_MODULES = tuple(importlib.machinery.all_suffixes())
_TIME_ZONES = (*zoneinfo.TZPATH, "/usr/share/zoneinfo", "/etc/localtime", "/etc/timezone")
_SYSTEM = (*_TIME_ZONES, "/proc", "/sys", "/usr/share/locale", "/usr/lib/locale", "/usr/share/i18n", "/usr/share/fonts")
_READ_BY_PYTHON = ("importlib.metadata", "zoneinfo")
"""Modules of Python that read what distributions bring: versions, time zones."""
_PLATFORM = tuple(str(Path(__file__).parents[3] / name) for name in modules.PACKAGES)
_PYTHON = tuple({path for folder in modules.LIBRARIES[:2] for path in (str(folder), os.path.realpath(folder))})
_DISTRIBUTION = re.compile(r"/(?:site|dist)-packages/([^/]+)")
_TEMPORARY = getattr(os, "O_TMPFILE", 0)

Kind = Literal["python", "library", "platform", "product"]


class UndigestedRead(Problem):
    """A product's code reads a file whose content no digest covers."""


@dataclass(eq=False)
class _Scope:
    """A call of a product's code.

    Attributes:
        module: of the product's file.
        maker: whose data files may be read; None for all of them.
        refused: what it was refused.
        written: paths of files and folders that it made.
        boundary: the code that called the product's.
        others: threads that ran before.
    """

    module: str
    maker: object = None
    boundary: FrameType | None = None
    refused: list[UndigestedRead] = field(default_factory=list)
    written: set[str] = field(default_factory=set)
    others: frozenset[threading.Thread] = frozenset()


class _Thread(threading.local):
    scope: _Scope | None = None
    is_judging = False


@dataclass
class _Asked:
    """Who asks for a file: whose code, its functions from the nearest on, and what libraries lie in between."""

    by: Kind
    functions: list[tuple[str, str, int]] = field(default_factory=list)
    libraries: set[str] = field(default_factory=set)
    is_import: bool = False
    nearest: str = ""
    python: set[str] = field(default_factory=set)


_THREAD = _Thread()
_BOOTSTRAP = threading.Thread._bootstrap.__code__  # type: ignore[attr-defined]  # private
"""What every thread of Python runs first."""
_SCOPES: list[_Scope] = []
_WRAPPED: dict[str, ModuleType] = {}
_LOCK = threading.RLock()


@contextmanager
def guarded(module: str, maker: object = None) -> Iterator[None]:
    """Refuse reads of files by a product's code on this thread; what the platform reads meanwhile passes.

    Args:
        module: the name of the product's file as a module.
        maker: what runs the code, or its function: the data files that count for it may be read. None for all.

    Raises:
        UndigestedRead: the code asked for a file, whatever it made of the refusal; or a data file has changed since
            the code read it in this process.
    """
    if _THREAD.scope is not None:
        yield
        return
    _install()
    for name in READERS:
        _wrap(name)
    # This generator, contextlib's `__enter__`, and whose `with` it is.
    scope = _Scope(module, maker, boundary=sys._getframe(2), others=frozenset(threading.enumerate()))
    _SCOPES.append(scope)
    _THREAD.scope = scope
    try:
        yield
    except Exception as problem:
        # A library in between may have made another error of the refusal.
        if scope.refused and problem is not scope.refused[0]:
            raise scope.refused[0] from problem
        raise
    finally:
        _THREAD.scope = None
        scope.boundary = None
        _SCOPES.remove(scope)
    # The product's code may have caught it.
    if scope.refused:
        raise scope.refused[0]
    # The code may still hold what a data file contained before.
    reached = {module, *(modules.closure(module) if modules.is_ours(module) else ())}
    if changed := data_files.changed(reached):
        raise UndigestedRead(
            f"{changed[0]} has changed since this process read it, so results may follow its former content; reload "
            "the code location, or start the command again."
        )


@functools.cache
def _install() -> None:
    """Hear Python's reads, for the rest of the process; a thread outside of `guarded` costs a look-up."""
    # Python cannot remove an audit hook, hence one for all scopes.
    sys.addaudithook(_hook_of(_EVENTS, _THREAD, _SCOPES))


def _hook_of(events: frozenset[str], thread: _Thread, scopes: list[_Scope]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return the hook; it holds what it needs, because Python empties modules at its end and goes on reading."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in events and scopes and not thread.is_judging and (scope := _scope()) is not None:
            thread.is_judging = True
            try:
                _judge(scope, event, arguments)
            finally:
                thread.is_judging = False

    return hook


def _scope() -> _Scope | None:
    """Return the call that this thread's code belongs to, if any.

    A thread that began during a call and runs a function of the same file belongs to it: one that the product starts,
    or a library's that runs what it was given, such as a function for `map_elements`.
    """
    if _THREAD.scope is not None:
        return _THREAD.scope
    frame = outermost = sys._getframe(1)
    while outermost.f_back is not None:
        outermost = outermost.f_back
    thread = outermost.f_locals.get("self") if outermost.f_code is _BOOTSTRAP else None
    scopes = [scope for scope in [*_SCOPES] if thread not in scope.others]
    if threading.get_ident() == threading.main_thread().ident or not scopes:
        return None
    names = {name for _, name, _ in _asker(frame).functions}
    return next((scope for scope in scopes if scope.module in names), None)


def _judge(scope: _Scope, event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what an audit event announces, unless it passes."""
    if event == "import":
        # A package with readers is imported ahead of the product's code, so that it gets the wrapped ones.
        name = str(arguments[0])
        top = name.partition(".")[0]
        for module in READERS:
            if module.partition(".")[0] != top or module in _WRAPPED:
                continue
            # `from pyarrow import parquet` raises no event for the latter.
            if module in (top, name) or top == "pyarrow":
                with contextlib.suppress(ImportError):
                    importlib.import_module(module)
            _wrap(module)
    elif event == "os.mkdir":
        if not os.path.lexists(arguments[0]):
            scope.written.add(_path(arguments[0]))
    elif event in _COMMANDS:
        command = arguments[_COMMANDS[event]]
        text = " ".join(map(str, command)) if isinstance(command, list | tuple) else str(command)
        asked = _asker(sys._getframe(1), scope.boundary)
        if asked.by == "product" and not asked.libraries:
            raise _refusal(scope, asked, f"the output of the command {text[:80]!r}", "NAME")
    elif event == "open":
        path, _, flags = arguments
        if isinstance(path, int) or _is_writing(scope, path, flags):
            return
        _judge_path(scope, path)
    else:
        path = "." if arguments[0] is None else arguments[0]
        if event == "sqlite3.connect":
            path = os.fsdecode(path)
            if path.startswith("file:"):  # an address, with parameters of the connection
                path = unquote(path.removeprefix("file:").partition("?")[0].partition("#")[0])
                path = f"/{path.lstrip('/')}" if path.startswith("//") else path
            if path in ("", ":memory:") or not os.path.lexists(path):
                return
        if not isinstance(path, int):
            _judge_path(scope, path)


def _is_writing(scope: _Scope, path: Any, flags: int) -> bool:
    """Tell whether a file is opened without reading what was in it before; what is new in it may be read back."""
    if _TEMPORARY and flags & _TEMPORARY == _TEMPORARY:
        return True
    is_new = bool(flags & os.O_TRUNC) or flags & (os.O_CREAT | os.O_EXCL) == os.O_CREAT | os.O_EXCL
    is_new = is_new or bool(flags & os.O_CREAT and not os.path.lexists(path))
    if is_new:
        scope.written.add(_path(path))
    return is_new or flags & (os.O_WRONLY | os.O_RDWR) == os.O_WRONLY


def _judge_path(scope: _Scope, path: Any) -> None:
    text = os.fsdecode(path)
    resolved = _path(text.removeprefix("file://"))
    if _is_within(resolved, _SYSTEM):
        return
    if any(resolved == item or resolved.startswith(f"{item}{os.sep}") for item in [*scope.written]):
        return
    with contextlib.suppress(OSError):
        if stat.S_ISCHR(Path(resolved).stat().st_mode):
            return
    asked = _asker(sys._getframe(1), scope.boundary)
    if data_files.reading(resolved) is not None and (
        # A data file may count for another function of the product's alone.
        scope.maker is None or resolved in map(str, digests.data_files_of(scope.maker).values())
    ):
        return
    if asked.by == "product" and not asked.is_import and not _is_own(resolved, asked):
        raise _refusal(
            scope, asked, text if "://" in text else resolved, Path(text).name if Path(resolved).is_file() else "NAME"
        )


def _is_own(path: str, asked: _Asked) -> bool:
    """Tell whether Python, an import or a distribution reads a file of its own."""
    if asked.nearest.startswith(("<frozen importlib", "<frozen zipimport")):
        return path.endswith((*_MODULES, ".zip")) or Path(path).is_dir()
    if "linecache" in asked.python and path.endswith(".py"):  # lines of code for a traceback or a warning
        return True
    owner = _owner(path)
    if owner is None:
        # A metadata path finder looks through every folder that may hold distributions.
        is_looked_through = Path(path).is_dir() or not os.path.lexists(path)
        return "importlib.metadata" in asked.python and is_looked_through
    if owner == "" or owner in asked.libraries:
        return True
    return any(name.startswith(_READ_BY_PYTHON) for name in asked.python)


def _refusal(scope: _Scope, asked: _Asked, subject: str, name: str) -> UndigestedRead:
    """Keep and return the refusal of a read."""
    cure = f'put it next to the product\'s file and read it by data_file("{name}")'
    if not asked.functions:
        reader, where = f"code of {scope.module}", ""
    else:
        (nearest, module, line), (outermost, *_) = asked.functions[0], asked.functions[-1]
        where = f", line {line} of {module}"
        reader = "the file, while it is imported," if nearest == "<module>" else f"{nearest}()"
        if outermost not in ("<module>", nearest):
            reader += f", called by {outermost}(),"
    problem = UndigestedRead(
        f"{reader} reads {subject}{where}; expected no file but data files, because no digest covers others: a change "
        f"would recompute nothing. If it belongs to the product, {cure}, from platform_assets.product.spec; otherwise "
        "deliver it by a source."
    )
    scope.refused.append(problem)
    return problem


def _asker(frame: FrameType | None, boundary: FrameType | None = None) -> _Asked:
    """Return who asks, from the frame that reads outwards: the nearest code that belongs to no library decides."""
    asked = _Asked("product")
    while frame is not None:
        if frame is boundary:
            asked.by = "product" if asked.functions else "platform"
            break
        code, name = frame.f_code, str(frame.f_globals.get("__name__", ""))
        if name != __name__:
            asked.nearest = asked.nearest or code.co_filename
            kind, owner = _kind(code.co_filename, name)
            if kind == "platform":
                if not asked.functions:
                    asked.by = "platform"
                break
            if kind == "product":
                function = code.co_qualname.partition(".<locals>")[0]
                asked.functions.append((function, name, frame.f_lineno))
            elif not asked.functions:
                if kind == "library":
                    asked.libraries.add(owner)
                    asked.is_import |= code.co_name == "<module>"
                else:
                    asked.python.add(name)
        frame = frame.f_back
    return asked


@lru_cache(maxsize=4096)
def _kind(file: str, module: str) -> tuple[Kind, str]:
    """Return whose code a file is, and the distribution."""
    if file.startswith("<"):
        return "python", ""
    if _is_within(file, _PLATFORM):
        return ("product" if modules.is_own(module) else "platform"), ""
    owner = _owner(file)
    if owner is None:
        return "product", ""
    return ("library", owner) if owner else ("python", "")


@lru_cache(maxsize=4096)
def _owner(path: str) -> str | None:
    """Return the distribution whose file this is by its top folder, "" for Python's own, None for others'."""
    if _is_within(path, _PLATFORM):
        return None
    if match := _DISTRIBUTION.search(path):
        top = match[1]
        return "" if top.endswith("-info") else top.removesuffix(".py").removesuffix(".libs")
    return "" if _is_within(path, _PYTHON) else None


def _path(path: Any) -> str:
    return os.path.realpath(os.fsdecode(path))


def _is_within(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(f"{folder}{os.sep}") for folder in folders)


# Readers in compiled code ---------------------------------------------------------------------------------------------


def _wrap(name: str) -> None:
    """Wrap the readers of a module that is imported."""
    module = sys.modules.get(name)
    if module is None or _WRAPPED.get(name) is module or getattr(module.__spec__, "_initializing", False):
        return
    with _LOCK:
        _WRAPPED[name] = module
        for reader in READERS[name]:
            owner_name, _, attribute = reader.rpartition(".")
            owner, prefix = getattr(module, owner_name, None) if owner_name else module, attribute.removesuffix("*")
            if prefix == attribute and owner is not None:
                _replace(owner, attribute)
            elif owner is not None:
                for item in [item for item in vars(owner) if item.startswith(prefix)]:
                    _replace(owner, item)
        if name == "polars":
            _replace(module.SQLContext, "execute")


def _replace(owner: Any, name: str) -> None:
    """Replace a reader by one that asks first, also where one of our modules has imported it by name."""
    reader = vars(owner).get(name)
    if isinstance(reader, staticmethod | classmethod):
        setattr(owner, name, type(reader)(_asking(reader.__func__, name, start=int(isinstance(reader, classmethod)))))
    elif callable(reader):
        is_method = isinstance(owner, type)
        asking = _asking(reader, name, start=int(is_method))
        with contextlib.suppress(TypeError):  # a class in compiled code cannot be changed
            setattr(owner, name, asking)
            for module in [] if is_method else [*sys.modules.values()]:
                file = getattr(module, "__file__", None)
                if file is not None and _kind(file, module.__name__)[0] == "product":
                    for copy in [copy for copy, value in vars(module).items() if value is reader]:
                        setattr(module, copy, asking)


def _asking(reader: Callable[..., Any], name: str, start: int) -> Callable[..., Any]:
    """Return a reader that refuses files to a product's code, and otherwise is the same."""

    @functools.wraps(reader, updated=())
    def asking(*arguments: Any, **named: Any) -> Any:
        if _SCOPES and not _THREAD.is_judging and (scope := _scope()) is not None:
            _THREAD.is_judging = True
            try:
                _judge_call(scope, name, arguments[start:], named)
            finally:
                _THREAD.is_judging = False
        return reader(*arguments, **named)

    return asking


def _judge_call(scope: _Scope, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    if name == "execute":
        query = arguments[0] if arguments else named.get("query", "")
        if match := _SQL_READER.search(str(query)):
            asked = _asker(sys._getframe(1), scope.boundary)
            if asked.by == "product":
                raise _refusal(scope, asked, f"files by {match.group().rstrip('( ')} in SQL", "NAME")
        return
    if name in _ALWAYS:
        asked = _asker(sys._getframe(1), scope.boundary)
        if asked.by == "product":
            raise _refusal(scope, asked, f"what {name} returns", "NAME")
    for value in (*arguments[:1], *(named[item] for item in _SOURCES if item in named)):
        for path in value if isinstance(value, list | tuple | set) else (value,):
            if isinstance(path, str | os.PathLike):
                _judge_path(scope, path)
