"""Digest what determines a stage's bytes: the code of its maker and every value that the maker holds.

A maker is a frozen dataclass of the files `*_maker.py`: its fields are all it knows about a product, so no property
of a product can change a result without changing the digest. Its classes, and functions, count with everything that
they name in our files (`definitions`), everything else by value. Of the engine around makers counts what names the
content of every stage (`CARRIERS`), and what a maker names of it in a member of its class. The rest is not digested:
what it passes to a maker is in a record's inputs, or is verified by a content digest when it is read.

A stage's *version* covers less: the product's own functions and values, and a number that its maker states. Rows of one
version may be trained on together.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID

from platform_assets.engine.digests import cache, definitions, modules
from platform_assets.product import data_files
from platform_assets.product.channels import Channel

if TYPE_CHECKING:
    from platform_assets.engine.outputs import RowMaker

CARRIERS = (
    "platform_assets.store.content:content_digest",
    "platform_assets.store.artifacts:canonical",
    "platform_assets.store.artifacts:sha256",
)
"""What names the content of every stage: of rows, of JSON and of bytes. With other code, other content is stored."""
SHORT_LENGTH = 12
"""Length of a digest as shown to people and to Dagster."""
_VERSION_LENGTH = 16
_EXACT = (bytes, complex, range, date, time, timedelta, tzinfo, PurePath, re.Pattern, Decimal, Fraction, UUID)
_REPR_LENGTH = 80
_PLAIN = (bool, int, str, float, type(None))


@dataclass(frozen=True, kw_only=True)
class _Scope:
    """What a description covers.

    Attributes:
        is_own: only the product's own code and values, not the platform's.
        names: collects the platform's definitions.
        files: collects the data files of functions and paths.
    """

    is_own: bool = False
    names: set[str] = field(default_factory=set)
    files: dict[str, Path] = field(default_factory=dict)


def code_digest(maker: object) -> str:
    """Return the code digest of a stage, a sha256.

    Raises:
        ValueError: a value cannot be compared reliably; the message names it.
    """
    scope, description = _described(maker)
    return _digest(json.dumps(description, sort_keys=True), scope.names)


def version(maker: RowMaker) -> str:
    """Return the version of a maker's rows: its number, a dot and a digest of the product's part.

    Raises:
        ValueError: a value cannot be compared reliably; the message names it.
    """
    name = type(maker).__name__
    # Without the platform's code, which each upgrade moves: it would make all history older. NUMBER stands for that.
    parts = {key: _describe(value, f"{name}.{key}", _Scope(is_own=True)) for key, value in maker.own().items()}
    cache.save()
    text = json.dumps([name, parts], sort_keys=True)
    return f"{maker.NUMBER}.{hashlib.sha256(text.encode()).hexdigest()[:_VERSION_LENGTH]}"


def channel_digest(channel: Channel) -> str:
    """Return a digest of what a channel delivers: its class by code, its fields by value, its places by name."""
    text = json.dumps(_describe(channel, type(channel).__name__, _Scope(is_own=True)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_VERSION_LENGTH]


def modules_digest(*names: str) -> str:
    """Return the code digest of a stage without a maker, from modules and everything that they name."""
    return _digest("", {f"{name}:" for name in names})


def parts(maker: object) -> dict[definitions.Reference, str]:
    """Return the sha256 of each definition in a maker's digest, except those that only the product's functions name."""
    return definitions.digests(*CARRIERS, *_described(maker)[0].names)


def data_files_of(maker: object) -> dict[str, Path]:
    """Return each data file that counts in a maker's digest, or in a function's, by its place in the project."""
    scope, _ = _described(maker)
    return dict(sorted((scope.files | definitions.files(*scope.names)).items()))


def data_files_in(module: str) -> dict[str, Path]:
    """Return each data file that a module, or one that it imports, names, by its place in the project."""
    return modules.files(module) if modules.is_ours(module) else {}


def short(digest: str) -> str:
    """Return the digits of a digest that are shown to people."""
    return digest.rpartition(".")[2][:SHORT_LENGTH]


def _described(maker: object) -> tuple[_Scope, Any]:
    scope = _Scope()
    return scope, _describe(maker, type(maker).__name__, scope)


def _text(text: str, scope: _Scope) -> Any:
    """Return the content of a data file for its path, which differs between machines; another text as it is."""
    reading = data_files.reading(text)
    if reading is None:
        return text
    folder = Path(text).parents[len(Path(reading.name).parts) - 1]
    files = modules.placed(reading.module.rpartition(".")[0], folder, [reading.name])
    scope.files.update(files)
    return [data_files.READER, {name: data_files.sha256(file) for name, file in files.items()}]


def _digest(text: str, names: Iterable[str]) -> str:
    lines = [text, *(f"{name} {digest}" for name, digest in definitions.digests(*CARRIERS, *names).items())]
    cache.save()
    return hashlib.sha256(chr(0).join(lines).encode()).hexdigest()


def _describe(value: Any, path: str, scope: _Scope) -> Any:
    """Return a value as JSON that is equal for equal values; add its classes to the scope's names."""
    kind = type(value)
    if kind in _PLAIN:
        return ["float", repr(value)] if kind is float else _text(value, scope) if kind is str else value
    if isinstance(value, types.FunctionType):
        return _function(value, path, scope)
    if isinstance(value, types.MethodType):
        return ["method", value.__func__.__name__, _describe(value.__self__, path, scope)]
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return ["partial", *(_describe(item, path, scope) for item in parts)]
    if isinstance(value, type | types.BuiltinFunctionType):
        name, *own = _named(value, value if isinstance(value, type) else type(value), scope)
        return ["named", *([name] if scope.is_own else [value.__module__, value.__qualname__]), *own]
    if isinstance(value, PurePath) and (content := _text(str(value), scope)) != str(value):
        return content
    qualified, name = f"{kind.__module__}.{kind.__qualname__}", _named(kind, kind, scope)
    if isinstance(value, Enum):
        return [*name, value.name]
    if isinstance(value, int | str | float):
        return [*name, repr(value)]
    if isinstance(value, Mapping):
        # In its own order, which a function may rely on.
        return [*name, *([_describe(part, path, scope) for part in pair] for pair in value.items())]
    if isinstance(value, AbstractSet):
        return [*name, *sorted((_describe(item, path, scope) for item in value), key=json.dumps)]
    if isinstance(value, tuple | list):
        return [*name, *(_describe(item, f"{path}[{number}]", scope) for number, item in enumerate(value))]
    if isinstance(value, Channel):
        return [*name, {key: _describe(member, f"{path}.{key}", scope) for key, member in value.identity().items()}]
    if is_dataclass(value):
        members = {
            item.name: getattr(value, item.name) for item in fields(value) if not _is_default(value, item, scope)
        }
        return [*name, {key: _describe(member, f"{path}.{key}", scope) for key, member in members.items()}]
    if modules.is_ours(kind.__module__) and hasattr(value, "__dict__"):
        return [*name, {key: _describe(member, f"{path}.{key}", scope) for key, member in vars(value).items()}]
    if hasattr(value, "__wrapped__"):  # such as by functools.cache
        return [*name, _describe(value.__wrapped__, path, scope)]
    if kind.__module__ == "numpy" and hasattr(value, "tobytes"):
        return [*name, str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    # The repr of these is complete; a table's or a long array's is abbreviated.
    if isinstance(value, _EXACT) or kind.__module__.startswith("polars.datatypes") or qualified == "torch.dtype":
        return [*name, repr(value)]
    raise ValueError(
        f"{path} is {repr(value)[:_REPR_LENGTH]}, which cannot be compared reliably across processes; use "
        "plain values, a dataclass, or a function defined by name in the product's file; in a channel, name what only "
        "says where the data is in PLACES."
    )


def _function(function: types.FunctionType, path: str, scope: _Scope) -> list[Any]:
    """Return a function by its code: in a product's file as far as it reaches, in a library by name."""
    module = function.__module__
    name: list[Any] = [module, function.__qualname__]
    if not modules.is_ours(module):
        return name
    if not modules.is_own(module):
        scope.names.add(_reference(function))
        return [*(name[1:] if scope.is_own else name), *_captured_values(function, path, scope)]
    try:
        values = [definitions.nested_index(function), *_captured_values(function, path, scope)]
    except data_files.DataFileProblem:
        raise
    except (ValueError, RecursionError):
        # The whole product file counts for such a function, including the call that created it.
        scope.files.update(definitions.files_of(function, is_whole=True))
        return [*name, definitions.digest(function, is_whole=True, is_own=scope.is_own)]
    scope.files.update(definitions.files_of(function))
    return [*name, definitions.digest(function, is_own=scope.is_own), *values]


def _captured_values(function: types.FunctionType, path: str, scope: _Scope) -> Iterator[Any]:
    """Yield what a nested function captures: its closure and its defaults."""
    captured = [cell.cell_contents for cell in function.__closure__ or ()]
    if "<locals>" in function.__qualname__:
        captured += [function.__defaults__, function.__kwdefaults__]
    for number, value in enumerate(captured):
        yield _describe(value, f"{path}, made with [{number}]", scope)


def widening_line(function: types.FunctionType) -> tuple[int, str] | None:
    """Return number and text of the line that makes a whole product file count for a function; None without one."""
    try:
        list(_captured_values(function, "", _Scope()))
    except (ValueError, RecursionError):
        return definitions.widening_line(function, is_whole=True)
    return definitions.widening_line(function)


def _named(item: Any, kind: type, scope: _Scope) -> list[Any]:
    """Return the name of a class or function, and the code of the product's own among its class and bases.

    The platform's classes count with all that they name, and in a version by their bare name.
    """
    bases = [base for base in kind.__mro__ if modules.is_ours(base.__module__)]
    own = [base for base in bases if modules.is_own(base.__module__)]
    scope.names.update(_reference(base) for base in bases if base not in own)
    is_platform = scope.is_own and bool(bases) and kind not in own
    name = [item.__qualname__] if is_platform else [f"{item.__module__}.{item.__qualname__}"]
    return [*name, *(definitions.digest(base, is_own=scope.is_own) for base in own)]


def _reference(item: Any) -> definitions.Reference:
    """Return the definition at the top of a module that a function or class is, or is part of."""
    return f"{item.__module__}:{item.__qualname__.partition('.')[0]}"


def _is_default(value: Any, member: Field[Any], scope: _Scope) -> bool:
    """Tell whether a member of one of the platform's types is left out of a version: it has its default.

    So a member that the platform adds changes no version.
    """
    if not scope.is_own or modules.is_own(type(value).__module__):
        return False
    default = member.default_factory() if member.default_factory is not MISSING else member.default
    actual = getattr(value, member.name)
    return default is not MISSING and type(default) is type(actual) and default == actual
