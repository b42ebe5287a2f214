"""The profiles of this installation: the built-in ones, those of `resources/`, and changes by a file and by variables.

A table of the file is a profile, and its keys are the fields of `StepProfile`. See "Profiles" in docs/operate.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from platform_assets.base.configuration import toml_value
from platform_assets.base.settings import PROFILE_VARIABLE, deployment_profiles, profile_variables, profiles_file
from platform_assets.launch.step_profile import BUILT_IN, ProfileProblem, StepProfile, Toleration

__all__ = ["PROFILES", "ProfileProblem", "StepProfile", "Toleration", "configured", "named", "profile"]


class Change(NamedTuple):
    """A value of a field, and the file's place or the variable that it comes from."""

    origin: str
    value: Any


def named(*profiles: StepProfile, fix: str = BUILT_IN) -> dict[str, StepProfile]:
    """Return the profiles by name, when they agree with each other.

    Args:
        fix: a sentence without its full stop: where profiles are changed.

    Raises:
        ProfileProblem: a name twice, or a spot profile whose on-demand twin is unknown, of another size, precision or
            image, or priced otherwise.
    """
    by_name = {profile.name: profile for profile in profiles}
    if len(by_name) < len(profiles):
        names = [profile.name for profile in profiles]
        raise ProfileProblem(f"profiles is {names}; expected every name once. {fix}.")
    for spot in profiles:
        if spot.on_demand is not None:
            field, expected = _disagreement(spot, by_name)
            if expected:
                value = getattr(spot, field)
                raise ProfileProblem(f"StepProfile({spot.name!r}).{field} is {value!r}; expected {expected}. {fix}.")
    return by_name


def _disagreement(spot: StepProfile, by_name: Mapping[str, StepProfile]) -> tuple[str, str]:
    """Return the field of a spot profile that does not agree with its on-demand twin, and what was expected."""
    twin = by_name.get(spot.on_demand or "")
    if twin is None or twin.is_spot:
        on_demand = ", ".join(profile.name for profile in by_name.values() if not profile.is_spot)
        return "on_demand", f"one of the profiles on demand: {on_demand or 'there are none'}"
    fields = ("cores", "memory_gb", "accelerators", "accelerator_resource", "precision", "world_size", "nodes")
    size, same = (tuple(getattr(profile, field) for field in fields) for profile in (twin, spot))
    if size != same:
        return "on_demand", f"a profile of the same size, {same}, not {size}"
    # The first two are in the fingerprint, so the last try needs the same ones.
    for field in ("image", "libraries", "gpu_memory_gb"):
        if getattr(spot, field) != getattr(twin, field):
            return field, f"that of its twin {twin.name}, {getattr(twin, field)!r}"
    if spot.on_demand_usd_per_hour != twin.usd_per_hour:
        return "on_demand_usd_per_hour", f"{twin.name}'s {twin.usd_per_hour!r}"
    return "on_demand", ""


def configured(
    built_in: Mapping[str, StepProfile], path: Path | None = None, variables: Mapping[str, str] | None = None
) -> dict[str, StepProfile]:
    """Return the built-in profiles with the changes and additions of a file and of variables, which override the file.

    Args:
        built_in: by name.
        path: a TOML file with one table per profile.
        variables: `DRIFTLINE_PROFILE__NAME__FIELD`, with a TOML value or a plain text.

    Raises:
        ProfileProblem: names the file with table and field, or the variable, its value and what was expected.
    """
    changes = dict[str, dict[str, Change]]()
    if path is not None:
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ProfileProblem(f"DRIFTLINE_PROFILES is {str(path)!r}; expected a TOML file that exists.") from None
        except (OSError, UnicodeDecodeError) as problem:
            raise ProfileProblem(f"{path} cannot be read ({problem}); expected a TOML file.") from None
        except (tomllib.TOMLDecodeError, RecursionError) as problem:
            raise ProfileProblem(f"{path} is not TOML: {problem}.") from None
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise ProfileProblem(
                    f"{path}: {name} is {table!r}; expected one table per profile, such as [gpu_spot]."
                )
            changes[name] = {field: Change(f"{path}, [{name}]: {field}", value) for field, value in table.items()}
    for variable, text in (variables or {}).items():
        # A name of a profile may hold two underscores itself.
        name, _, field = variable.removeprefix(PROFILE_VARIABLE).lower().rpartition("__")
        if not name or not field:
            raise ProfileProblem(f"{variable} names no field of a profile; expected {PROFILE_VARIABLE}NAME__FIELD.")
        changes.setdefault(name, {})[field] = Change(variable, toml_value(text))
    if not changes:
        return dict(built_in)
    changed = {name: _changed(name, built_in.get(name), fields) for name, fields in changes.items() if fields}
    places = ([str(path)] if path is not None else []) + ["DRIFTLINE_PROFILE__ variables"] * bool(variables)
    return named(*{**built_in, **changed}.values(), fix=f"Profiles were changed by {' and '.join(places)}")


def _changed(name: str, built_in: StepProfile | None, changes: Mapping[str, Change]) -> StepProfile:
    """Return one profile with these values; without a built-in one they make a new one."""
    values: dict[str, Any] = {
        field: change.value.isoformat() if type(change.value) is date else change.value
        for field, change in changes.items()
    }
    for field in ("usd_per_hour", "on_demand_usd_per_hour"):
        if built_in is not None and field in values and "priced_on" not in values:
            raise ProfileProblem(
                f"{changes[field].origin} is {values[field]!r} without priced_on; expected the new price's date too."
            )
    if "name" in values:
        raise ProfileProblem(f"{changes['name'].origin} is {values['name']!r}; expected no name: the table has it.")
    try:
        return built_in.replace(**values) if built_in is not None else StepProfile(name=name, **values)
    except ProfileProblem as problem:
        if problem.field in changes:
            origin = changes[problem.field].origin
        else:
            # A field that is missing, or wrong only together with another one, is reported with one that was set.
            first = next(iter(changes.values())).origin
            place = first.rpartition(":")[0] or f"profile {name}, changed by {first}"
            origin = f"{place}: {problem.field}"
        raise ProfileProblem(f"{origin} {problem.text}.", problem.field, problem.text) from None


BUILT_IN_PROFILES = named(
    StepProfile(name="cpu_small", cores=2, memory_gb=4, at_once=4, usd_per_hour=0.08, priced_on="2026-11-01"),
    StepProfile(
        name="cpu_spot",
        cores=2,
        memory_gb=4,
        at_once=8,
        is_spot=True,
        usd_per_hour=0.03,
        on_demand_usd_per_hour=0.08,
        priced_on="2026-11-01",
        # Without it a spot step could land on an on-demand node, and cost more than recorded.
        node_selector=(("driftline/spot", "true"),),
        tolerations=(Toleration(key="driftline/spot", value="true", effect="NoSchedule"),),
        on_demand="cpu_small",
    ),
)

PROFILES = configured(configured(BUILT_IN_PROFILES, deployment_profiles()), profiles_file(), profile_variables())
"""Read when the module loads: a wrong file or variable stops whatever would have used it."""


def profile(name: str) -> StepProfile:
    """Return a profile by name; raise `ValueError` listing the existing ones."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(f"profile is {name!r}; expected one of {', '.join(PROFILES)}.") from None
