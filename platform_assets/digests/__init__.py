"""Digest what makes the bytes of a stage: the code of its maker and every value that the maker holds.

A maker is a frozen dataclass of `platform_assets.makers`: its fields are all that it knows of a product, so nothing of
a product can change a result without changing the digest. Its classes count with the modules that they import, a
function by what it reaches in its file, everything else by value. The engine around makers (tables, artifacts, plans)
is not digested: what it hands to a maker stands in a record's inputs.
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
from pathlib import PurePath
from typing import Any
from uuid import UUID

from platform_assets import naming
from platform_assets.digests import cache, definitions, modules

ENGINE = 1
"""Raised by whoever changes the engine so that the same maker stores other bytes: everything is then made anew."""
SHOWN = 12
"""How many letters of a digest people and Dagster are shown."""
_EXACT = (bytes, complex, range, date, time, timedelta, tzinfo, PurePath, re.Pattern, Decimal, Fraction, UUID)
_SHOWN_OF_A_VALUE = 80
_PLAIN = (bool, int, str, float, type(None))


def code_digest(maker: object) -> str:
    """Return the code digest of a stage: the engine's number, a dot and a sha256.

    Raises:
        ValueError: a value of which nobody can tell whether it is the same; the message names it.
    """
    names = set[str]()
    text = json.dumps([ENGINE, _described(maker, type(maker).__name__, names)], sort_keys=True)
    return _digest(text, names)


def modules_digest(*names: str) -> str:
    """Return the code digest of a stage that some modules make, with what they import."""
    return _digest("", names)


def module_digests(maker: object) -> dict[str, str]:
    """Return the sha256 of each module that counts in a maker's digest, but for those that only functions name."""
    names = set[str]()
    _described(maker, type(maker).__name__, names)
    return modules.digests(*names)


def short(digest: str) -> str:
    """Return the digits of a digest that people are shown."""
    return digest.rpartition(".")[2][:SHOWN]


def _digest(text: str, names: Iterable[str]) -> str:
    parts = [text, *(f"{name} {digest}" for name, digest in modules.digests(*names).items())]
    cache.save()
    return f"{ENGINE}.{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}"


def _described(value: Any, place: str, names: set[str]) -> Any:
    """Return a value as JSON that is equal for equal values, and add the modules of its classes to `names`."""
    kind = type(value)
    if kind in _PLAIN:
        return ["float", repr(value)] if kind is float else value
    if isinstance(value, types.FunctionType):
        return _function(value, place, names)
    if isinstance(value, types.MethodType):
        return ["method", value.__func__.__name__, _described(value.__self__, place, names)]
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return ["partial", *(_described(each, place, names) for each in parts)]
    if isinstance(value, type | types.BuiltinFunctionType):
        _add_class(value if isinstance(value, type) else type(value), names)
        return ["named", value.__module__, value.__qualname__]
    _add_class(kind, names)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, Enum):
        return [name, value.name]
    if isinstance(value, int | str | float):
        return [name, repr(value)]
    if isinstance(value, Mapping):
        # In its own order, which a function may follow.
        return [name, *([_described(each, place, names) for each in item] for item in value.items())]
    if isinstance(value, AbstractSet):
        return [name, *sorted((_described(each, place, names) for each in value), key=json.dumps)]
    if isinstance(value, tuple | list):
        return [name, *(_described(each, f"{place}[{number}]", names) for number, each in enumerate(value))]
    if is_dataclass(value):
        members = {each.name: getattr(value, each.name) for each in fields(value)}
        return [name, {each: _described(member, f"{place}.{each}", names) for each, member in members.items()}]
    if modules.is_ours(kind.__module__) and hasattr(value, "__dict__"):
        return [name, {each: _described(member, f"{place}.{each}", names) for each, member in vars(value).items()}]
    if hasattr(value, "__wrapped__"):  # such as by functools.cache
        return [name, _described(value.__wrapped__, place, names)]
    if kind.__module__ == "numpy" and hasattr(value, "tobytes"):
        return [name, str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    # What these print is all that they are; a table or a long array prints its ends.
    if isinstance(value, _EXACT) or kind.__module__.startswith("polars.datatypes") or name == "torch.dtype":
        return [name, repr(value)]
    raise ValueError(
        f"{place} is {repr(value)[:_SHOWN_OF_A_VALUE]}, of which nobody can tell whether it is the same tomorrow; use "
        "plain values, a dataclass, or a function defined by name in the product's file."
    )


def _function(function: types.FunctionType, place: str, names: set[str]) -> list[Any]:
    """Return a function by its code: of a product's file as far as it reaches, of a library by name."""
    module = function.__module__
    name: list[Any] = [module, function.__qualname__]
    if not modules.is_ours(module):
        return name
    if not _is_product(module):
        names.add(module)
        return [*name, *_made_with(function, place, names)]
    try:
        values = [definitions.nested_index(function), *_made_with(function, place, names)]
    except (ValueError, RecursionError):
        # All of a product's file counts for such a function, the call that made it too.
        return [*name, definitions.digest(function, is_whole=True)]
    return [*name, definitions.digest(function), *values]


def _made_with(function: types.FunctionType, place: str, names: set[str]) -> Iterator[Any]:
    """Yield what a function that was made inside of another one keeps of there: what it names, and its defaults."""
    kept_values = [cell.cell_contents for cell in function.__closure__ or ()]
    if "<locals>" in function.__qualname__:
        kept_values += [function.__defaults__, function.__kwdefaults__]
    for number, value in enumerate(kept_values):
        yield _described(value, f"{place}, made with [{number}]", names)


def widening_line(function: types.FunctionType) -> tuple[int, str] | None:
    """Return number and text of the line for which all of a product's file counts for a function; None without one."""
    try:
        list(_made_with(function, "", set()))
    except (ValueError, RecursionError):
        return definitions.widening_line(function, is_whole=True)
    return definitions.widening_line(function)


def _is_product(module: str) -> bool:
    """Tell whether a module is the file of a product, whose rest may change; others count as a whole."""
    package, _, name = module.rpartition(".")
    is_spec = package == "platform_assets.specs" and name not in naming.SPEC_VOCABULARY
    return is_spec or module.split(".")[0] not in modules.PACKAGES


def _add_class(kind: type, names: set[str]) -> None:
    names.update(each.__module__ for each in kind.__mro__ if modules.is_ours(each.__module__))
