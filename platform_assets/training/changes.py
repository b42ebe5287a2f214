"""Change a product's configuration by name: `--set epochs=20 --set learner.settings.num_leaves=15`, a trial's values.

A name is a field of `Training`, or `learner.` and a field of the learner. A dot leads into a mapping or a tuple.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from platform_assets.base.configuration import toml_value
from platform_assets.product.tuning import Range
from platform_assets.training.learners.network import learner_of

if TYPE_CHECKING:
    from platform_assets.product.spec import Product

LEARNER, TRAINING = "learner", "training"


def changed(spec: Product, settings: Sequence[str]) -> Product:
    """Return a product with changes.

    Args:
        settings: `name=value`; a value is TOML, or plain text.

    Raises:
        ValueError: a name that is not there, or a value that is refused.
    """
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign or not name:
            raise ValueError(f"--set is {setting!r}; expected name=value, such as epochs=20.")
        spec = with_values(spec, {name: toml_value(text)}, "--set")
    return spec


def with_values(spec: Product, values: Mapping[str, Any], where: str = "search") -> Product:
    """Return a product with other values, by name.

    Args:
        where: who names them, for messages.

    Raises:
        ValueError: a name that is not there, or a value that is refused.
    """
    for name, value in values.items():
        part, path = located(name)
        if part == LEARNER:
            spec = replace(spec, model=_changed(learner_of(spec), path, value, name, where))
        else:
            spec = replace(spec, training=_changed(spec.training, path, value, name, where))
    return spec


def values_of(spec: Product, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a trial's parameters: those of the product's file where it has none."""
    if not params:
        return {setting.name: value_of(spec, setting.name) for setting in spec.search}
    return {
        item.name: params[item.name] if isinstance(item, Range) else item.samples[params[item.name]]
        for item in spec.search
    }


def check_search(spec: Product) -> str:
    """Try the samples of each setting of `search`; return what `driftline tune` varies.

    Raises:
        ValueError: a setting that the product does not have, or a value of it that the product refuses.
    """
    for setting in spec.search:
        for value in setting.samples:
            try:
                with_values(spec, {setting.name: value})
            except ValueError as problem:
                raise ValueError(f"{spec.name}: search tries {setting.name}={value!r}: {problem}") from None
    return f"driftline tune varies {', '.join(setting.name for setting in spec.search)}"


def value_of(spec: Product, name: str) -> Any:
    """Return the value that a name has now; None where a mapping does not hold it.

    Raises:
        ValueError: a name that is not there.
    """
    part, path = located(name)
    value: Any = learner_of(spec) if part == LEARNER else spec.training
    with_values(spec, {name: _at(value, path)})  # refuses a name that is not there
    return _at(value, path)


def located(name: str) -> tuple[str, list[str]]:
    """Return the part that a name is in, `learner` or `training`, and the path in it."""
    first, *rest = name.split(".")
    return (first, rest) if first in (LEARNER, TRAINING) else (TRAINING, [first, *rest])


def _at(part: Any, path: Sequence[str]) -> Any:
    for step in path:
        if isinstance(part, Mapping):
            part = part.get(step)
        elif isinstance(part, tuple) and step.isdigit() and int(step) < len(part):
            part = part[int(step)]
        else:
            part = getattr(part, step, None)
    return part


def _changed(part: Any, path: Sequence[str], value: Any, name: str, where: str) -> Any:
    """Return a dataclass, a mapping or a tuple with another value at a path."""
    if not path:
        return tuple(value) if isinstance(part, tuple) and isinstance(value, list) else value
    first, *rest = path
    if is_dataclass(part) and not isinstance(part, type):
        names = [field.name for field in fields(part)]
        if first not in names:
            raise ValueError(
                f"{where} names {name!r}, and {type(part).__name__} has no {first!r}; expected one of "
                f"{', '.join(names)}."
            )
        return replace(part, **{first: _changed(getattr(part, first), rest, value, name, where)})
    if isinstance(part, Mapping):
        return {**part, first: _changed(part.get(first), rest, value, name, where)}
    if isinstance(part, tuple) and first.isdigit() and int(first) < len(part):
        number = int(first)
        return (*part[:number], _changed(part[number], rest, value, name, where), *part[number + 1 :])
    raise ValueError(f"{where} names {name!r}, and there is nothing below {first!r}; expected a name that exists.")
