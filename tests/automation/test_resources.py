"""The launcher of steps takes the image of the run's pod, which has a host's package, unless settings name another."""
# No postponed annotations here: Dagster compares the annotation of `context` as an object.

from types import SimpleNamespace

import dagster as dg
import pytest

from platform_assets.automation.resources import RUN_IMAGE, launcher
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource

pytestmark = pytest.mark.slow

IMAGE, NAMED = (f"registry.example/{name}@sha256:{digit * 64}" for name, digit in (("shop", "1"), ("trainer", "2")))


def recorded(settings: Settings) -> SimpleNamespace:
    """Stand in for a launcher: it has its settings."""
    return SimpleNamespace(settings=settings)


@pytest.mark.parametrize(("named", "expected"), [(None, IMAGE), (NAMED, NAMED)])
def test_a_step_runs_in_the_image_of_its_run_unless_the_deployment_names_one(
    settings: Settings, named: str | None, expected: str
) -> None:
    seen = []

    @dg.op(required_resource_keys={naming.LAUNCHER})
    def step(context: dg.OpExecutionContext) -> None:
        seen.append(getattr(context.resources, naming.LAUNCHER).settings.trainer_image)

    store = StoreResource(variables=settings.replace(trainer_image=named).to_environment())
    resources = {naming.STORE: store, naming.LAUNCHER: launcher({"subprocess": f"{__name__}:recorded"})}

    @dg.job(resource_defs=resources)
    def job() -> None:
        step()

    assert job.execute_in_process(tags={RUN_IMAGE: IMAGE}).success
    assert seen == [expected]
