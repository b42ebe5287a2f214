"""Open what the launcher tells this step, and the way back: through files, or through S3.

Belongs here: choosing Dagster Pipes' loaders by what the launcher left in the environment, and refusing to work for a
run of other code. Does not belong here: what else is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dagster_pipes import (
    PipesContext,
    PipesEnvVarParamsLoader,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)

from platform_assets.compute import closure

WRITE_EVERY_S = 2.0
NAMED = 5
"""How many modules a refusal names."""


class OtherCode(RuntimeError):
    """The step's code is not the code of the run that started it."""


@contextmanager
def opened() -> Iterator[PipesContext]:
    """Yield the context of this step; its messages are sent at the end.

    Raises:
        OtherCode: what the run calls the code of its result is not what would make it.
    """
    with _context() as context:
        check_code(context.extras.get("code", {}))
        yield context


def check_code(told: Mapping[str, str]) -> None:
    """Compare the digests of modules that the run has with the files of this place.

    Raises:
        OtherCode: naming the modules that differ.
    """
    if other := closure.differing(told):
        named = ", ".join(other[:NAMED]) + (f" and {len(other) - NAMED} more" if len(other) > NAMED else "")
        raise OtherCode(
            f"the code of this step is not that of the run that started it: {len(other)} of {len(told)} modules differ "
            f"or are missing here, {named}. In a container or a pod, build the image again (`make image`) and set "
            "DRIFTLINE_TRAINER_IMAGE to what that prints; on a laptop, reload the code location and launch again."
        )


def _context() -> PipesContext:
    params = PipesEnvVarParamsLoader()
    if params.is_dagster_pipes_process() and "bucket" in params.load_context_params():
        import boto3

        client = boto3.client("s3")
        return open_dagster_pipes(
            context_loader=PipesS3ContextLoader(client=client),
            message_writer=PipesS3MessageWriter(client=client, interval=WRITE_EVERY_S),
        )
    return open_dagster_pipes()
