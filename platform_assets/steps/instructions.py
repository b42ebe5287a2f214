"""Open what the launcher tells this step, and the way back: through files, or through S3.

Belongs here: choosing Dagster Pipes' loaders by what the launcher left in the environment. Does not belong here: what
is told.
"""

from __future__ import annotations

from dagster_pipes import (
    PipesContext,
    PipesEnvVarParamsLoader,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)

WRITE_EVERY_S = 2.0


def opened() -> PipesContext:
    """Return the context of this step, to be used in a `with`; its messages are sent when that ends."""
    params = PipesEnvVarParamsLoader()
    if params.is_dagster_pipes_process() and "bucket" in params.load_context_params():
        import boto3

        client = boto3.client("s3")
        return open_dagster_pipes(
            context_loader=PipesS3ContextLoader(client=client),
            message_writer=PipesS3MessageWriter(client=client, interval=WRITE_EVERY_S),
        )
    return open_dagster_pipes()
