"""docs/reference.md states what the types of a product file state, for every field."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base.failures import FAILURES
from platform_assets.launch.step_profile import StepProfile

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(REPOSITORY / ".ci" / "reference.py"))


def test_the_reference_is_up_to_date(generator: dict[str, Any]) -> None:
    page = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    assert page == generator["render"](), "docs/reference.md is out of date: run `make reference`"


def test_the_reference_of_steps_is_up_to_date() -> None:
    page = (REPOSITORY / "docs" / "steps.md").read_text(encoding="utf-8")
    generated = runpy.run_path(str(REPOSITORY / ".ci" / "steps.py"))["render"]()
    assert page == generated, "docs/steps.md is out of date: run `make reference`"
    assert all(f"| `{failure.name}` |" in page for failure in FAILURES)
    assert all(f"| `{field}` |" in page for field in StepProfile.model_fields)


def test_every_field_is_described_and_every_number_has_a_unit(generator: dict[str, Any]) -> None:
    kinds = [kind for _, types in generator["TYPES"] for kind in types]
    assert [problem for kind in kinds for problem in generator["check_entries"](kind)] == []


def test_every_type_that_a_product_file_imports_is_on_the_page(generator: dict[str, Any]) -> None:
    from platform_assets.product import spec

    documented = {kind.__name__ for _, types in generator["TYPES"] for kind in types}
    importable = {name for name in spec.__all__ if isinstance(getattr(spec, name), type)}
    assert importable - documented == {"FeatureTables", "Learner", "RecordingMissing", "Task"}, (
        "add it to TYPES in .ci/reference.py"
    )


def test_a_refusal_is_listed_with_the_fields_it_concerns(generator: dict[str, Any]) -> None:
    """Each message on the page is raised by the code; four are raised here."""
    from platform_assets.product import spec

    page = generator["render"]()
    cases = (
        (lambda: spec.Training(epochs=0), "epochs", "expected more than 0."),
        (
            lambda: spec.Gates(confidence=2.0),
            "confidence",
            "and a confidence between 0 and 1.",
        ),
        (lambda: spec.Service(latency_ms=0.0), "latency_ms", "expected a number above 0."),
        (lambda: spec.Binary(threshold=1.5), "threshold", "expected a probability between 0 and 1."),
    )
    for make, field, ending in cases:
        with pytest.raises(ValueError, match=field) as refused:
            make()
        assert str(refused.value).endswith(ending)
        assert f"{ending}\n" in page
        row = next(line for line in page.splitlines() if line.startswith(f"| `{field}` |"))
        assert row.split("|")[-2].strip(), f"{field} names no refusal"
