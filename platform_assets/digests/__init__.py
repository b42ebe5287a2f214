"""Digest what determines a stage's bytes: the code of its maker and every value that the maker holds.

A maker is a frozen dataclass of `platform_assets.makers`: its fields are all it knows about a product, so no property
of a product can change a result without changing the digest. Its classes count with the modules they import, a function
with everything it reaches in its file, everything else by value. The engine around makers (tables, artifacts, plans) is
not digested: whatever it passes to a maker is in a record's inputs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from platform_assets import naming
from platform_assets.digests import cache, definitions, modules
from platform_assets.product import data_files

ENGINE = 1
"""Raise this when the engine changes so that the same maker stores other bytes: everything is then recomputed."""
SHORT_LENGTH = 12
"""Length of a digest as shown to people and to Dagster."""
_EXACT = (bytes, complex, range, date, time, timedelta, tzinfo, PurePath, re.Pattern, Decimal, Fraction, UUID)
_REPR_LENGTH = 80
_PLAIN = (bool, int, str, float, type(None))


def code_digest(maker: object) -> str:
    """Return the code digest of a stage: the engine's number, a dot and a sha256.

    Raises:
        ValueError: a value cannot be compared reliably; the message names it.
    """
    names = _Reached()
    text = json.dumps([ENGINE, _describe(maker, type(maker).__name__, names)], sort_keys=True)
    return _digest(text, names)


def modules_digest(*names: str) -> str:
    """Return the code digest of a stage without a maker, from modules and everything they import."""
    return _digest("", names)


def module_digests(maker: object) -> dict[str, str]:
    """Return the sha256 of each module in a maker's digest, except those that only functions name."""
    names = _Reached()
    _describe(maker, type(maker).__name__, names)
    return modules.digests(*names)


def data_files_of(maker: object) -> dict[str, Path]:
    """Return each data file that counts in a maker's digest, or in a function's, by its place in the project."""
    names = _Reached()
    _describe(maker, type(maker).__name__, names)
    return dict(sorted((names.files | modules.files(*names)).items()))


def data_files_in(module: str) -> dict[str, Path]:
    """Return each data file that a module, or one that it imports, names, by its place in the project."""
    return modules.files(module) if modules.is_ours(module) else {}


def short(digest: str) -> str:
    """Return the digits of a digest that are shown to people."""
    return digest.rpartition(".")[2][:SHORT_LENGTH]


class _Reached(set[str]):
    """The modules that a value names, and the data files of its functions and paths."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, Path] = {}


def _add_files(files: Mapping[str, Path], names: set[str]) -> None:
    if isinstance(names, _Reached):
        names.files |= files


def _text(text: str, names: set[str]) -> Any:
    """Return the content of a data file for its path, which differs between machines; another text as it is."""
    reading = data_files.reading(text)
    if reading is None:
        return text
    package, folder = reading.module.rpartition(".")[0], _folder_of(text, reading.name)
    files = modules.placed(package, folder, [reading.name])
    _add_files(files, names)
    return [data_files.READER, {name: data_files.sha256(file) for name, file in files.items()}]


def _folder_of(path: str, name: str) -> Path:
    return Path(path).parents[len(Path(name).parts) - 1]


def _digest(text: str, names: Iterable[str]) -> str:
    parts = [text, *(f"{name} {digest}" for name, digest in modules.digests(*names).items())]
    cache.save()
    return f"{ENGINE}.{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}"


def _describe(value: Any, path: str, names: set[str]) -> Any:
    """Return a value as JSON that is equal for equal values; add the modules of its classes to `names`."""
    kind = type(value)
    if kind in _PLAIN:
        return ["float", repr(value)] if kind is float else _text(value, names) if kind is str else value
    if isinstance(value, types.FunctionType):
        return _function(value, path, names)
    if isinstance(value, types.MethodType):
        return ["method", value.__func__.__name__, _describe(value.__self__, path, names)]
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return ["partial", *(_describe(item, path, names) for item in parts)]
    if isinstance(value, type | types.BuiltinFunctionType):
        _add_class(value if isinstance(value, type) else type(value), names)
        return ["named", value.__module__, value.__qualname__]
    if isinstance(value, PurePath) and (content := _text(str(value), names)) != str(value):
        return content
    _add_class(kind, names)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, Enum):
        return [name, value.name]
    if isinstance(value, int | str | float):
        return [name, repr(value)]
    if isinstance(value, Mapping):
        # In its own order, which a function may rely on.
        return [name, *([_describe(part, path, names) for part in pair] for pair in value.items())]
    if isinstance(value, AbstractSet):
        return [name, *sorted((_describe(item, path, names) for item in value), key=json.dumps)]
    if isinstance(value, tuple | list):
        return [name, *(_describe(item, f"{path}[{number}]", names) for number, item in enumerate(value))]
    if is_dataclass(value):
        members = {field.name: getattr(value, field.name) for field in fields(value)}
        return [name, {key: _describe(member, f"{path}.{key}", names) for key, member in members.items()}]
    if modules.is_ours(kind.__module__) and hasattr(value, "__dict__"):
        return [name, {key: _describe(member, f"{path}.{key}", names) for key, member in vars(value).items()}]
    if hasattr(value, "__wrapped__"):  # such as by functools.cache
        return [name, _describe(value.__wrapped__, path, names)]
    if kind.__module__ == "numpy" and hasattr(value, "tobytes"):
        return [name, str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    # The repr of these is complete; a table's or a long array's is abbreviated.
    if isinstance(value, _EXACT) or kind.__module__.startswith("polars.datatypes") or name == "torch.dtype":
        return [name, repr(value)]
    raise ValueError(
        f"{path} is {repr(value)[:_REPR_LENGTH]}, which cannot be compared reliably across processes; use "
        "plain values, a dataclass, or a function defined by name in the product's file."
    )


def _function(function: types.FunctionType, path: str, names: set[str]) -> list[Any]:
    """Return a function by its code: in a product's file as far as it reaches, in a library by name."""
    module = function.__module__
    name: list[Any] = [module, function.__qualname__]
    if not modules.is_ours(module):
        return name
    if not _is_product(module):
        names.add(module)
        return [*name, *_captured_values(function, path, names)]
    try:
        values = [definitions.nested_index(function), *_captured_values(function, path, names)]
    except data_files.DataFileProblem:
        raise
    except (ValueError, RecursionError):
        # The whole product file counts for such a function, including the call that created it.
        _add_files(definitions.files(function, is_whole=True), names)
        return [*name, definitions.digest(function, is_whole=True)]
    _add_files(definitions.files(function), names)
    return [*name, definitions.digest(function), *values]


def _captured_values(function: types.FunctionType, path: str, names: set[str]) -> Iterator[Any]:
    """Yield what a nested function captures: its closure and its defaults."""
    captured = [cell.cell_contents for cell in function.__closure__ or ()]
    if "<locals>" in function.__qualname__:
        captured += [function.__defaults__, function.__kwdefaults__]
    for number, value in enumerate(captured):
        yield _describe(value, f"{path}, made with [{number}]", names)


def widening_line(function: types.FunctionType) -> tuple[int, str] | None:
    """Return number and text of the line that makes a whole product file count for a function; None without one."""
    try:
        list(_captured_values(function, "", _Reached()))
    except (ValueError, RecursionError):
        return definitions.widening_line(function, is_whole=True)
    return definitions.widening_line(function)


def _is_product(module: str) -> bool:
    """Tell whether a module is a product's file, of which only a part may count; other modules count as a whole."""
    package, _, name = module.rpartition(".")
    is_spec = package == "platform_assets.specs" and name not in naming.SPEC_VOCABULARY
    return is_spec or module.split(".")[0] not in modules.PACKAGES


def _add_class(kind: type, names: set[str]) -> None:
    names.update(base.__module__ for base in kind.__mro__ if modules.is_ours(base.__module__))
