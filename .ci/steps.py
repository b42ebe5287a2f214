"""Write docs/steps.md from the tables of the code: failure classes and the fields of a profile (`make reference`)."""

from __future__ import annotations

from pathlib import Path

from pydantic.fields import FieldInfo

from platform_assets.base.failures import FAILURES, LOST, Failure
from platform_assets.launch.step_profile import StepProfile

PAGE = Path(__file__).resolve().parents[1] / "docs" / "steps.md"
HEADER = """# Reference of steps

Written by `make reference` from `platform_assets/base/failures.py` and `platform_assets/launch/step_profile.py`; a test
fails when the page is out of date. How steps run: [operate](operate.md#steps-on-kubernetes).

## Failure classes
Every attempt at a step ends with success or in one of these classes, which its record names. Tries are further
attempts per run of the asset; losses share one budget per kind of node, spot or on demand.

| class | the step failed: | what showed it | tries | next |
|---|---|---|---|---|
"""
PROFILES = """
Where a pod shows several of these, `platform_assets/kubernetes/pods.py` decides which one counts. An API that refuses a
pod for a quota, a missing service account or a conflict is asked again; Pod Security and admission policies are final.

## Profiles
Fields of a profile, for `resources/profiles.toml` and `DRIFTLINE_PROFILE__NAME__FIELD`; see
[Profiles](operate.md#profiles).

| field | default | meaning |
|---|---|---|
"""


def render() -> str:
    """Return the page."""
    classes = "".join(f"| {' | '.join(_class(failure))} |\n" for failure in FAILURES)
    fields = "".join(
        f"| `{name}` | {_default(field)} | {field.description} |\n" for name, field in StepProfile.model_fields.items()
    )
    return f"{HEADER}{classes}{PROFILES}{fields}"


def _class(failure: Failure) -> tuple[str, ...]:
    budget = LOST if failure.is_loss else failure.budget
    tries = "none" if not budget.tries else f"{budget.tries}, after {budget.pause_s:g} s" if budget.pause_s else "1"
    return f"`{failure.name}`", failure.sentence, failure.evidence, tries, _next(failure)


def _next(failure: Failure) -> str:
    """Return what the next attempt is, as `platform_assets/launch/endings.py` decides it."""
    places = {"required": ", never on that node", "preferred": ", on another node if there is one", "": ""}
    if failure.is_loss:
        return f"again, resuming; after {LOST.tries} losses on spot nodes on demand{places[failure.other_node]}"
    if failure.needs_on_demand:
        return "a spot step on demand; otherwise the run fails"
    if not failure.budget.tries:
        return "the run fails, with the step's last lines"
    if failure.needs_memory:
        return "with twice the memory, or the profile's `larger_memory_gb`"
    if failure.needs_storage:
        return "with twice the ephemeral storage, or the profile's `larger_storage_gb`"
    refused = "; never if what refused it says that another try is useless" if failure.is_unpaid else ""
    return f"again{places[failure.other_node]}{refused}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, float):
        return f"`{field.default:g}`"
    return "" if field.default in (None, ()) else f"`{field.default}`"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
