"""Base of what a team configures, settings and profiles: pydantic models whose errors are sentences."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from platform_assets.base.problems import Problem


class ConfigurationProblem(Problem, ValueError):
    """A value of a file or an environment variable that cannot be used.

    Attributes:
        field: its field; empty where no single field is at fault.
        text: what is wrong, without the name: `is 0; expected at least 1`.
    """

    def __init__(self, sentence: str, field: str = "", text: str = "") -> None:
        super().__init__(sentence)
        self.field = field
        self.text = text


class Unfit(Problem, ValueError):
    """Raised by a validator: a field of the model with what is wrong with it."""

    def __init__(self, text: str, field: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.field = field


class Configuration(BaseModel):
    """A frozen model. Every error is raised as `problem`, in a sentence of our own instead of pydantic's report."""

    # Built at the first instance: loading definitions makes none of Settings, and pays nothing for its validators.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)
    problem: ClassVar[type[ConfigurationProblem]] = ConfigurationProblem
    named_by: ClassVar[str] = ""
    """The field that tells instances apart in messages; empty where there is one."""
    advice: ClassVar[str] = ""
    """Where to fix a wrong value, appended to each message."""

    if not TYPE_CHECKING:  # type checkers read the signature from the fields

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as report:
                field, text = _first(report, type(self))
                instance = f"({values.get(self.named_by)!r})" if self.named_by else ""
                raise self.problem(self.sentence(field, text, instance), field, text) from None

    @classmethod
    def sentence(cls, field: str, text: str, instance: str = "") -> str:
        """Return the message for a field; `instance` follows the model's name."""
        return f"{cls.__name__}{instance}.{field} {text}.{cls.advice}"

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values, validated like a new one."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


def expect(expected: str, is_fit: Callable[[Any], object] | None = None) -> WrapValidator:
    """Return a validator that names the value and what was expected, whether the type or the value is wrong.

    Args:
        is_fit: is not asked about None, where the type allows that.
    """

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            result = handler(value)
        except ValidationError:
            raise Unfit(unexpected(value, expected)) from None
        if is_fit is not None and result is not None and not is_fit(result):
            raise Unfit(unexpected(value, expected))
        return result

    return WrapValidator(validate)


def toml_value(text: str) -> Any:
    """Return a text as a TOML value, which needs no quotes."""
    try:
        document = tomllib.loads(f"value = {text}")
    # tomllib recurses into brackets: a deeply nested text ends in RecursionError, not in its own error.
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return document["value"] if len(document) == 1 else text  # a line break must not hide a second field


def one_of(*allowed: str) -> WrapValidator:
    """Return a validator for a `Literal` of these texts."""
    return expect(f"one of {', '.join(allowed)}")


def number_from(least: float) -> WrapValidator:
    """Return a validator for a finite number of at least this much."""
    # The comparison with infinity also refuses NaN, which is neither below nor above a number.
    return expect(f"a number of at least {least}", lambda value: least <= value < math.inf)


def unexpected(value: object, expected: str) -> str:
    """Return what is wrong with a value: `is 0; expected at least 1`."""
    return f"is {value!r}; expected {expected}"


def _first(report: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """Return the field and the text of the first error; one sentence is enough to go on."""
    error = report.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in error["loc"])
    # pydantic keeps the exception of a validator here, and puts words of its own around its text.
    reason = error.get("ctx", {}).get("error")
    if isinstance(reason, Unfit):
        return reason.field or field, reason.text
    if error["type"] == "missing":
        return field, f"is missing; expected {model.model_fields[field].description}"
    if error["type"] == "extra_forbidden":
        return field, f"is not a field; expected one of {', '.join(model.model_fields)}"
    return field, f"cannot be used: {error['msg']}"
