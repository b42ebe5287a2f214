"""Know the runs of this deployment by its own files, and what the row of such a run may not say.

Whoever has the password of Dagster's database can write a row, so neither the launcher nor the process of a run
believes it: account, secrets, image, command and code follow from the job's name and from the files of the image.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from platform_assets.base import accounts
from platform_assets.base.accounts import Account
from platform_assets.engine import product_files

LOCATION, MODULE = "driftline", "platform_assets.definitions"
"""Our code location, as workspace.yaml and code.yaml in deploy/kubernetes/base name it."""
ASSET_JOB = "__ASSET_JOB"
"""Dagster's job for assets that were picked."""
POD_TAGS, IMAGE_TAG = "dagster-k8s/", "dagster/image"
"""Tags that decide in which pod dagster-k8s runs a job; it notes the image afterwards."""


def is_own(run: dg.DagsterRun) -> bool:
    """Tell whether a run is of a job that this deployment lists as its own: of a product's file, or of its assets."""
    if run.remote_job_origin is None or run.remote_job_origin.location_name != LOCATION:
        return False
    verb, _, product = run.job_name.partition("__")
    return run.job_name == ASSET_JOB or (verb in accounts.VERBS and product in _products())


def account_of(run: dg.DagsterRun) -> Account:
    """Return the account of one of our runs."""
    return accounts.of_run(run.job_name, {key.path[-1] for key in picked(run)})


def only_product(run: dg.DagsterRun) -> str | None:
    """Return the one product whose definitions a run needs; None: all."""
    products = products_of(run)
    return min(products) if len(products) == 1 and products <= _products() else None


def products_of(run: dg.DagsterRun) -> set[str]:
    """Return the products of a run: those of the picked assets, or the one in its job's name, `advance__orders`."""
    verb, _, product = run.job_name.partition("__")
    return {key.path[0] for key in picked(run)} or ({product} if verb else set())


def picked(run: dg.DagsterRun) -> list[dg.AssetKey]:
    """Return the assets that were picked, those of picked checks included; none if the job decides."""
    return [*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())]


def command(run: dg.DagsterRun) -> list[str]:
    """Return the command of one of our runs. `deploy/kubernetes/base/admission.yaml` lets in this one only."""
    return ["python", "-m", "platform_assets.instance.cluster_run", run.run_id, run.job_name, account_of(run).name]


def origin(job: str) -> JobPythonOrigin:
    """Return where the code of one of our jobs is."""
    return JobPythonOrigin(job, RepositoryPythonOrigin(sys.executable, ModuleCodePointer(MODULE, "defs")))


def pod_config(run: dg.DagsterRun) -> list[object]:
    """Return what a run's row says of its pod: tags of dagster-k8s, parsed, and the container context of its code."""
    origin = run.job_code_origin
    tags = [json.loads(text) for tag, text in run.tags.items() if tag.startswith(POD_TAGS)]
    return [*tags, origin.repository_origin.container_context if origin else None]


def problems(run: dg.DagsterRun, image: str | None) -> Iterator[str]:
    """Yield why the row of one of our runs is refused.

    Args:
        image: of this deployment's runs. A row may name another digest of it: the images were replaced meanwhile.
    """
    name = f"run {run.run_id} of {run.job_name}"
    if not image:
        yield f"{name} has no image; set job_image of run_launcher in dagster.yaml to this deployment's own."
        return
    for tag, text in sorted(run.tags.items()):
        if tag.startswith(POD_TAGS) or (tag == IMAGE_TAG and _repository(text) != _repository(image)):
            yield (
                f"{name} has the tag {tag}, and image, account, secrets and command of a run are not chosen by tags. "
                "Remove the tag; what runs have is in dagster.yaml."
            )
    for field, stated, expected in _stated_origin(run, image):
        if stated not in expected:
            yield (
                f"{name} has the origin {field} {stated!r}; expected {expected[0]!r}, as this deployment's own files "
                "say. Launch the run again from Dagster's UI; if nobody here made it, somebody has the database's "
                "password."
            )
    # The store's variables name image, account and secret of steps.
    resources = run.run_config.get("resources")
    for resource, entry in sorted(resources.items()) if isinstance(resources, Mapping) else ():
        chosen = entry.get("config") if isinstance(entry, Mapping) else entry
        values = chosen.values() if isinstance(chosen, Mapping) else [chosen]
        if any(value is not None for value in values):  # the UI's scaffold names all of them, as null
            yield (
                f"{name} configures the resource {resource}; only the deployment configures resources. Remove it from "
                "the run's config."
            )
    for variable in variables_read(run.run_config):
        yield (
            f"{name} reads the variable {variable} of its pod in its config, which Dagster and records show. Write the "
            "value itself into the run's config."
        )


def variables_read(value: object) -> Iterator[str]:
    """Yield the variables of the environment that a config names: Dagster replaces `env: NAME` by the value."""
    if isinstance(value, Mapping):
        if set(value) == {"env"} and isinstance(value["env"], str):
            yield value["env"]
        for item in value.values():
            yield from variables_read(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from variables_read(item)


def _stated_origin(run: dg.DagsterRun, image: str) -> Iterator[tuple[str, object, Sequence[object]]]:
    """Yield field, value and allowed values of what a row's origin says about the code; all of it is ignored."""
    if run.job_code_origin is None:
        return
    code = run.job_code_origin.repository_origin
    yield "job", run.job_code_origin.job_name, (run.job_name,)
    yield "image", code.container_image and _repository(code.container_image), (_repository(image), None)
    yield "executable path", code.executable_path, (sys.executable,)
    entry_point = None if code.entry_point is None else list(code.entry_point)
    yield "entry point", entry_point, ([sys.executable, "-m", "dagster"], ["dagster"], None)
    yield "container context", code.container_context or None, (None,)
    pointer = code.code_pointer
    module = pointer.module if isinstance(pointer, ModuleCodePointer) else pointer.describe()
    yield "code", module, (MODULE,)


def _repository(image: str) -> str:
    return image.partition("@")[0]


@cache
def _products() -> frozenset[str]:
    """Return the names of the products' files in this image, whether they load or not."""
    return frozenset(product_files.names())
